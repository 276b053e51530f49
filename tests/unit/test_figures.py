"""Figures of reports: provisional while their period runs, corrected after its close, and never many."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.model import Pack
from kaohe.decisions import Decision
from kaohe.packs.load import load_pack
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.records import DECISIONS_TOPIC, Delivery
from kaohe.reports import FigureLine, report_of, standing
from tests.support.packs import Story, make_pack

RULES_FOLDER = Path(__file__).resolve().parents[2] / "rules"
METRICS = """
answered:
  count: call.answered
  level: [agent, site]
  windows: [month]
wait:
  mean: {field: wait_ms, of: call.answered}
  level: [agent, site]
  windows: [month]
"""
RULES = """
- id: told
  level: [agent, site]
  judged: month
  at_close_only: true
  when: answered.month > 1
  then:
    - task: {title: {en: Tell it, zh: 告知}, owner: superior, due: 5d}
  report: {section: attendance, figures: [answered.month, wait.month]}
- id: slow
  level: [agent]
  judged: month
  at_close_only: true
  when: wait.month > 60
  then:
    - task: {title: {en: Look at it, zh: 查看}, owner: superior, due: 5d}
  report: {section: effect, figures: [wait.month]}
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return make_pack(tmp_path_factory.mktemp("figures"), metrics=METRICS, rules=RULES)


def call(story: Story, when: str, wait_s: int, *, late: bool = False) -> None:
    tell = story.late if late else story.tell
    tell(when, "call.answered", call_id="c", queue="q", site="s", wait_ms=1000 * wait_s)


def order(story: Story, when: str, tag: str) -> None:
    story.tell(
        when, tag, agent="", subject="periods", pack="small", window="month", period="2026-08", by="hr", reason="So."
    )  # fmt: skip


def told(story: Story, level: str = "agent", rule: str = "told") -> list[tuple[str, int, str, str | None]]:
    """Every revision of the figures of August: kind, revision, status, mean wait."""
    story.replay.finish()
    return [
        (one.kind, one.revision, one.status, one.facts["wait.month"].value)
        for one in story.replay.decision_list()
        if (one.level, one.rule) == (level, rule)
    ]


def lines(story: Story, pack: Pack) -> list[FigureLine]:
    """The agent's lines of August, read from a ledger's newest revisions."""
    newest = list(story.replay.newest_decisions().values())
    finals = [one.id for one in story.replay.decision_list() if one.status == "final" and one.kind == "task"]
    corrected = {one for one in finals if finals.count(one) > 1}
    found = report_of("month", "2026-08", newest, [], [], [pack], corrected=corrected).attendance
    return [one for one in found if one.level == "agent"]


def test_figures_of_the_running_month_are_provisional_once_a_day(pack: Pack) -> None:
    story = Story(pack)
    for hour in range(9, 18):
        call(story, f"2026-08-03T{hour:02}:00", 10)
    story.tick("2026-08-03T23:59")
    assert told(story) == []
    story.tick("2026-08-04T00:00")
    assert told(story) == [("task", 1, "provisional", "10")] == told(story, "site")
    call(story, "2026-08-04T09:00", 10)
    story.tick("2026-08-06T00:00")
    assert len(told(story)) == 2  # one more call is another figure, although the mean is the same
    (line,) = lines(story, pack)
    how = standing(line)
    assert how is not None
    assert (line.status, line.corrected, how.en) == ("provisional", False, "provisional, as of 2026-08-05")
    report = report_of("month", "2026-08", story.replay.newest_decisions().values(), [], [], [pack])
    assert report.next == []  # nobody has to do it yet
    assert all(not one.due_at for one in story.replay.decision_list())
    story.tick("2026-09-04T00:00")
    assert told(story)[2:] == [("task", 3, "final", "10")]
    (line,) = lines(story, pack)
    assert (line.status, standing(line)) == ("final", None)
    assert story.replay.decision_list()[-1].due_at


def test_late_events_correct_the_figures_of_a_closed_month_once_a_day(pack: Pack) -> None:
    story = Story(pack)
    call(story, "2026-08-03T09:00", 10)
    call(story, "2026-08-03T09:01", 10)
    story.tick("2026-09-05T08:00")
    before = told(story)
    assert before == [("task", 1, "provisional", "10"), ("task", 2, "final", "10")]
    for hour in range(9, 13):
        story.tick(f"2026-09-05T{hour:02}:00")
        call(story, "2026-08-03T10:00", 30, late=True)
    story.tick("2026-09-06T00:00")
    ((kind, revision, status, mean),) = told(story)[2:]
    assert (kind, revision, status) == ("task", 3, "final")
    assert (mean or "").startswith("70/3")
    (line,) = lines(story, pack)
    how = standing(line)
    assert how is not None
    assert (line.status, line.corrected, how.en) == ("final", True, "corrected on 2026-09-06")
    assert told(story, "site")[-1][1:3] == (3, "final")


@pytest.mark.parametrize("site", ["berlin", "shanghai"])
def test_late_events_correct_the_figures_of_who_moved_to_a_zone_that_closes_later(
    pack: Pack, site: str
) -> None:
    story = Story(pack, zones=Zones(default="Asia/Shanghai", sites={"berlin": "Europe/Berlin"}))
    call(story, "2026-08-03T09:00", 10)
    call(story, "2026-08-03T09:01", 10)
    story.tell("2026-09-04T01:00:00", "roster.changed", site=site)
    call(story, "2026-08-03T10:00", 40, late=True)
    story.tick("2026-09-06T08:00")
    assert told(story) == [
        ("task", 1, "provisional", "10"), ("task", 2, "final", "10"), ("task", 3, "final", "20"),
    ]  # fmt: skip


def test_figures_follow_a_month_that_is_opened_again(pack: Pack) -> None:
    story = Story(pack)
    call(story, "2026-08-03T09:00", 10)
    story.tick("2026-09-05T08:00")
    assert told(story) == []  # one call is not told
    order(story, "2026-09-05T09:00", "period.reopened")
    call(story, "2026-08-03T10:00", 30, late=True)
    story.tick("2026-09-06T01:00")
    assert told(story) == [("task", 1, "final", "20")]
    call(story, "2026-08-03T10:00", 50, late=True)
    order(story, "2026-09-06T02:00", "period.closed")
    assert told(story)[1:] == [("task", 2, "final", "30")]
    story.tick("2026-09-08T00:00")
    assert len(told(story)) == 2
    assert story.rejects() == []


def test_figures_that_are_told_no_more_are_taken_back_by_their_id(pack: Pack) -> None:
    story = Story(pack)
    call(story, "2026-08-03T09:00", 90)
    call(story, "2026-08-04T09:00", 10)
    call(story, "2026-08-05T09:00", 200)
    story.tick("2026-09-05T00:00")
    assert [one[:3] for one in told(story, rule="slow")] == [
        ("task", 1, "provisional"), ("waive", 1, "final"), ("task", 1, "provisional"), ("task", 2, "final"),
    ]  # fmt: skip
    call(story, "2026-08-06T09:00", 0, late=True)
    call(story, "2026-08-06T09:00", 0, late=True)
    call(story, "2026-08-06T09:00", 0, late=True)
    story.tick("2026-09-06T00:00")
    newest = list(story.replay.newest_decisions().values())
    gone = [one.reverses for one in newest if one.rule == "slow" and one.kind == "waive"]
    tasks = {one.id for one in newest if one.rule == "slow" and one.kind == "task"}
    assert (len(gone), set(gone)) == (2, tasks)
    assert report_of("month", "2026-08", newest, [], [], [pack]).effect == []
    agent = story.replay.engines[0].agents["a-1"]
    assert agent.charged("small", "month", "2026-08") is None  # figures are no part of a score


def test_an_appeal_that_was_right_corrects_the_figures_of_a_closed_month() -> None:
    pack = load_pack(RULES_FOLDER / "full-attendance")
    story = Story(pack)
    story.tell("2026-08-28T00:00", "roster.changed", team="t", site="s")
    for day in ("2026-08-29", "2026-08-30"):
        starts, ends = (story.event(f"{day}T{hour}:00", "clock.in").time for hour in ("09", "18"))
        story.tell(
            "2026-08-28T10:00",
            "shift.scheduled",
            shift_id=day,
            day=day,
            starts_at=starts,
            ends_at=ends,
            site="s",
        )
    story.tick("2026-09-04T01:00")
    absent = next(one.id for one in story.replay.decision_list() if one.rule == "fa-absent")
    story.tell("2026-09-04T09:00", "appeal.filed", appeal_id="a", against=absent, text="I was ill.")
    story.tell("2026-09-04T09:10", "appeal.accepted", appeal_id="a", by="hr", reason="See the note.")
    for who in ("employee", "supervisor"):
        story.tell("2026-09-04T09:20", "appeal.heard", appeal_id="a", who=who)
    story.tell(
        "2026-09-04T09:30", "appeal.decided", appeal_id="a", upheld=True, by="gm", reason="A doctor's note."
    )
    story.tick("2026-09-05T00:10")
    story.replay.finish()
    assert story.rejects() == []
    told = [
        one for one in story.replay.decision_list() if one.rule == "fa-statistics" and one.status == "final"
    ]
    assert [one.facts["absences.month"].value for one in told] == ["2", "1"]
    assert len({one.id for one in told}) == 1


def test_what_waits_is_known_to_a_successor(pack: Pack) -> None:
    story = Story(pack)
    call(story, "2026-08-03T09:00", 10)
    call(story, "2026-08-03T09:01", 10)
    story.tick("2026-08-03T12:00")
    engine = story.replay.engines[0]
    stored = {key: raw for key, raw in engine.checkpoint().items() if raw is not None}
    successor = PartitionEngine((pack,), zones=Zones(default="Asia/Shanghai"))
    successor.restore(stored)
    assert successor.judge.figures == engine.judge.figures != {pack.key: {}}
    story.tick("2026-08-04T00:01")
    assert engine.judge.figures == {pack.key: {}}


def test_the_ledger_knows_which_figures_were_corrected(pack: Pack, tmp_path: Path) -> None:
    story = Story(pack)
    for agent in ("a-1", "a-2"):
        for second in (1, 2):
            story.tell(f"2026-08-03T09:00:0{second}", "call.answered", agent, call_id="c", wait_ms=10_000)
    story.tick("2026-09-05T08:00")
    story.late("2026-08-03T10:00", "call.answered", "a-1", call_id="c", wait_ms=20_000)
    story.tick("2026-09-06T00:00")
    story.replay.finish()
    found: list[Decision] = story.replay.decision_list()
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    with Ledger(url) as ledger:
        written = ledger.write([Delivery(DECISIONS_TOPIC, 0, at, one) for at, one in enumerate(found)])
        corrected = ledger.corrected_tasks()
    assert written.conflicts == 0
    assert {(one.subject, one.level) for one in found if one.id in corrected} == {
        ("a-1", "agent"), ("all", "site"),
    }  # fmt: skip
