"""Closing a period early, and opening one again: nothing that was final changes, and all partitions agree."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.cli.periods import PeriodLine, lines_of
from kaohe.core import reopening
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.model import Pack, Results
from kaohe.decisions import Decision
from kaohe.packs.load import load_pack
from tests.support.packs import Story, make_pack

RULES = Path(__file__).resolve().parents[2] / "rules"
MONTH = {"pack": "logistics-service", "window": "month", "period": "2026-08"}


@pytest.fixture(scope="module")
def pack() -> Pack:
    """The pack without what is made of its grades: a grade that others were made of is not opened again."""
    whole = load_pack(RULES / "logistics-service")
    card = whole.scorecard
    assert card is not None
    alone = msgspec.structs.replace(card, dimensions=(), base="base_score")
    return msgspec.structs.replace(whole, scorecard=alone, results=Results(), cards=())


def surveys(story: Story, day: str, satisfied: int, neutral: int) -> None:
    for number in range(satisfied + neutral):
        answer = "satisfied" if number < satisfied else "neutral"
        story.late(f"{day}T09:00", "survey.customer", satisfaction=answer)


def order(story: Story, when: str, tag: str, **more: Any) -> None:
    story.tell(
        when, tag, agent="", subject="periods", **(MONTH | {"by": "hr", "reason": "It must be."} | more)
    )  # fmt: skip


def said(story: Story) -> list[Decision]:
    """What was charged and taken back, without the tasks that follow from a weak month."""
    story.replay.finish()
    return [one for one in story.replay.decision_list() if one.kind != "task"]


def august_line(story: Story) -> PeriodLine:
    """How August stands, as ``kaohe period status`` shows it."""
    story.replay.finish()
    newest = {one.id: one for one in story.replay.grade_list()}
    found = lines_of(newest.values(), story.replay.alert_list())
    return next(one for one in found if (one.period, one.window) == ("2026-08", "month"))


def august(pack: Pack, partitions: int = 1) -> Story:
    """Ten of a hundred not satisfied costs nothing; two more each cost a point (the target is 90 %)."""
    story = Story(pack, partitions=partitions)
    story.tick("2026-08-24T09:00")
    surveys(story, "2026-08-24", 88, 12)
    return story


def test_a_period_that_is_closed_early_is_final_at_once(pack: Pack) -> None:
    story = august(pack)
    story.tick("2026-09-01T10:00")
    order(story, "2026-09-01T10:00", "period.closed")
    assert [(one.points, one.status) for one in said(story)][-1] == ("-2", "final")
    assert story.replay.grade_list()[-1].status == "final"
    surveys(story, "2026-08-24", 0, 8)
    story.tick("2026-09-02T00:00")
    late = said(story)[-1]
    assert (late.kind, late.period, late.adjusts_period) == ("adjust", "2026-09", "2026-08")
    story.tick("2026-09-10T00:00")
    finals = [one for one in story.replay.grade_list() if (one.period, one.status) == ("2026-08", "final")]
    assert len(finals) == 1


def test_a_period_that_is_open_again_takes_late_events_itself(pack: Pack) -> None:
    story = august(pack)
    story.tick("2026-09-05T00:00")
    first = said(story)[-1]
    assert (first.points, first.status, first.revision) == ("-2", "final", 2)
    order(story, "2026-09-05T10:00", "period.reopened")
    surveys(story, "2026-08-24", 0, 10)
    story.tick("2026-09-05T12:00")
    reversal, anew = said(story)[-2:]
    assert (reversal.kind, reversal.points, reversal.reverses, reversal.period) == (
        "waive",
        "2",
        first.id,
        "2026-08",
    )
    assert (anew.kind, anew.points, anew.status, anew.period) == ("deduct", "-10", "final", "2026-08")
    grade = story.replay.grade_list()[-1]
    assert (grade.score, grade.status, grade.period) == ("90", "final", "2026-08")
    surveys(story, "2026-08-24", 100, 0)
    story.tick("2026-09-05T14:00")
    total = sum(Fraction(one.points) for one in story.replay.newest_decisions().values())
    assert total == 0
    assert story.replay.grade_list()[-1].score == "100"


def test_closed_again_it_adjusts_the_running_period(pack: Pack) -> None:
    story = august(pack)
    story.tick("2026-09-05T00:00")
    order(story, "2026-09-05T10:00", "period.reopened")
    surveys(story, "2026-08-24", 0, 10)
    story.tick("2026-09-05T12:00")
    order(story, "2026-09-05T13:00", "period.closed")
    surveys(story, "2026-08-24", 0, 10)
    story.tick("2026-09-05T15:00")
    late = said(story)[-1]
    assert (late.kind, late.period, late.adjusts_period) == ("adjust", "2026-09", "2026-08")
    total = sum(Fraction(one.points) for one in story.replay.newest_decisions().values())
    assert total == -16  # 88 of 120 is 73.3 %: 16 full points below 90 %, and two thirds of one
    assert story.rejects() == []


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_period_is_shown_as_open_from_the_order_to_the_next_one(pack: Pack, partitions: int) -> None:
    story = august(pack, partitions)
    story.tick("2026-09-05T00:00")
    assert (august_line(story).state, august_line(story).opened_by) == ("closed", "")
    order(story, "2026-09-05T10:00", "period.reopened", by="hr-1", reason="A survey was lost")
    order(story, "2026-09-05T10:05", "period.reopened", by="hr-2", reason="Refused: it is open")
    line = august_line(story)
    assert (line.state, line.final, line.provisional) == ("open", 1, 0)
    assert (line.opened_by, line.opened_why) == ("hr-1", "A survey was lost")
    assert line.opened_since[:16] == "2026-09-05T10:00"
    order(story, "2026-09-06T10:00", "period.closed")
    assert (august_line(story).state, august_line(story).opened_by) == ("closed", "")
    order(story, "2026-09-07T10:00", "period.reopened", by="hr-3")
    assert (august_line(story).state, august_line(story).opened_by) == ("open", "hr-3")
    story.tick("2026-11-20T00:00")
    assert august_line(story).state == "closed"
    told = [one.state for one in story.replay.alert_list() if one.rule == "period-reopened"]
    assert told == ["firing", "resolved"] * 2


def test_a_period_is_shown_as_open_although_nobody_has_a_grade_of_it(pack: Pack) -> None:
    story = august(pack)
    story.tick("2026-09-05T00:00")
    order(story, "2026-09-05T10:00", "period.reopened")
    story.replay.finish()
    (line,) = lines_of([], story.replay.alert_list())
    assert (line.level, line.state, line.final, line.opened_by) == ("", "open", 0, "hr")


def test_what_an_exemption_took_back_stays_taken_back(pack: Pack) -> None:
    story = august(pack)
    story.tick("2026-09-05T00:00")
    entry = said(story)[-1]
    story.tell("2026-09-05T08:00", "appeal.filed", appeal_id="a", against=entry.id, text="No.")
    story.tell("2026-09-05T08:10", "appeal.accepted", appeal_id="a", by="hr", reason="Yes.")
    story.tell("2026-09-05T08:20", "appeal.heard", appeal_id="a", who="employee")
    story.tell("2026-09-05T08:21", "appeal.heard", appeal_id="a", who="supervisor")
    story.tell("2026-09-05T08:30", "appeal.decided", appeal_id="a", upheld=True, by="gm", reason="So.")
    order(story, "2026-09-05T10:00", "period.reopened")
    surveys(story, "2026-08-24", 0, 10)
    before = len(said(story))
    story.tick("2026-09-05T12:00")
    assert len(said(story)) == before


@pytest.mark.parametrize(
    ("when", "tag", "more"),
    [
        ("2026-08-25T10:00", "period.closed", {}),
        ("2026-09-02T10:00", "period.reopened", {}),
        ("2026-09-05T10:00", "period.closed", {}),
        ("2026-09-05T10:00", "period.closed", {"pack": "unknown"}),
        ("2026-09-05T10:00", "period.reopened", {"window": "week", "period": "2026-W33"}),
        ("2026-09-05T10:00", "period.reopened", {"period": "August"}),
        ("2026-12-05T10:00", "period.reopened", {}),
    ],
)
def test_what_cannot_be_done_is_refused(pack: Pack, when: str, tag: str, more: dict[str, str]) -> None:
    story = august(pack)
    story.tick(when)
    order(story, when, tag, **more)
    assert len(story.rejects()) == 1


def test_the_number_of_open_periods_is_bounded(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopening, "MAX_REOPENED", 0)
    story = august(pack)
    story.tick("2026-09-05T00:00")
    order(story, "2026-09-05T10:00", "period.reopened")
    assert story.rejects() == ["period_state"]


def test_a_period_open_again_is_forgotten_with_its_counts(pack: Pack) -> None:
    story = august(pack)
    story.tick("2026-09-05T00:00")
    order(story, "2026-09-05T10:00", "period.reopened")
    assert story.replay.engines[0].judge.reopened == {("logistics-service", "month", "2026-08")}
    story.tick("2026-11-20T00:00")
    assert story.replay.engines[0].judge.reopened == set()


def test_partitions_and_the_group_stage_agree(pack: Pack) -> None:
    found = []
    for partitions in (1, 3):
        story = august(pack, partitions)
        story.tick("2026-09-05T00:00")
        order(story, "2026-09-05T10:00", "period.reopened")
        story.tick("2026-09-05T10:10")
        assert all(engine.judge.reopened for engine in story.replay.engines)
        assert story.replay.group.judge.reopened
        surveys(story, "2026-08-24", 0, 10)
        story.tick("2026-09-05T12:00")
        found.append((story.decisions(), story.grades()))
    assert found[0] == found[1]


def test_a_successor_knows_what_is_open_again(pack: Pack) -> None:
    story = august(pack)
    story.tick("2026-09-05T00:00")
    order(story, "2026-09-05T10:00", "period.reopened")
    stored = {key: raw for key, raw in story.replay.engines[0].checkpoint().items() if raw is not None}
    successor = PartitionEngine((pack,), zones=Zones(default="Asia/Shanghai"))
    successor.restore(stored)
    assert successor.judge.reopened == {("logistics-service", "month", "2026-08")}
    assert [one.key for one in successor.opened] == [("logistics-service", "month", "2026-08")]


def test_a_period_closed_early_can_be_opened_again(pack: Pack) -> None:
    story = august(pack)
    story.tick("2026-09-01T10:00")
    order(story, "2026-09-01T10:00", "period.closed")
    order(story, "2026-09-01T10:01", "period.closed")
    order(story, "2026-09-01T10:02", "period.reopened")
    order(story, "2026-09-01T10:03", "period.reopened")
    assert story.rejects() == ["period_state", "period_state"]
    surveys(story, "2026-08-24", 0, 10)
    story.tick("2026-09-10T00:00")
    assert [(one.points, one.period) for one in said(story)][-1] == ("-10", "2026-08")
    assert story.replay.grade_list()[-1].score == "90"
    story.tick("2026-11-20T00:00")
    assert story.replay.engines[0].judge.early == set()


MEANS = """
wait:
  mean: {field: wait_ms, of: call.answered}
  level: [agent, queue]
  windows: [month]
"""
CLOSE = """
- id: slow
  level: [agent, queue]
  judged: month
  at_close_only: true
  when: wait.month > 60
  then:
    - alert: {severity: info, owner: team_leader, response: {en: Look., zh: 查看。}}
    - task: {title: {en: Coaching, zh: 辅导}, owner: team_leader, due: 14d}
- id: slower
  level: [agent]
  judged: month
  at_close_only: true
  when: wait.month > 90
  then:
    - alert: {severity: high, owner: team_leader, response: {en: Look., zh: 查看。}}
    - proposal: observation
"""


def call(story: Story, wait_s: int, queue: str = "q-1") -> None:
    story.late("2026-08-24T09:00", "call.answered", call_id="c", wait_ms=wait_s * 1000, queue=queue)


def given(story: Story) -> dict[str, list[tuple[str, str]]]:
    """By rule: which alerts went out, as what, in order."""
    story.replay.finish()
    found: dict[str, list[tuple[str, str]]] = {}
    for one in story.replay.alert_list():
        found.setdefault(f"{one.rule} {one.level}", []).append((one.id, one.state))
    return found


def test_alerts_of_the_close_follow_a_period_that_is_opened_again(tmp_path: Path) -> None:
    story = Story(make_pack(tmp_path, metrics=MEANS, rules=CLOSE))
    story.tick("2026-08-24T09:00")
    call(story, 80)
    story.tick("2026-09-05T00:00")
    small = {"pack": "small"}
    order(story, "2026-09-05T10:00", "period.reopened", **small)
    call(story, 84)  # 82 s: slow as before
    story.tick("2026-09-05T11:00")
    first = given(story)["slow agent"]
    assert [state for _, state in first] == ["firing"]
    story.tell("2026-09-05T11:00", "appeal.filed", appeal_id="a", against=first[0][0], text="No.")
    assert story.replay.rejects.pop().code == "unknown_appealed"
    assert "slower agent" not in given(story)
    call(story, 136)  # 100 s: slower as well
    story.tick("2026-09-05T12:00")
    assert len(given(story)["slow agent"]) == len(given(story)["slow queue"]) == 1
    assert [state for _, state in given(story)["slower agent"]] == ["firing"]
    for _ in range(9):
        call(story, 0)  # 25 s: neither
    story.tick("2026-09-05T13:00")
    for rule in ("slow agent", "slow queue", "slower agent"):
        (began, firing), (ended, resolved) = given(story)[rule]
        assert (began, firing, resolved) == (ended, "firing", "resolved")
    for _ in range(12):
        call(story, 125)  # 75 s: slow again
    story.tick("2026-09-05T14:00")
    order(story, "2026-09-05T15:00", "period.closed", **small)
    assert [state for _, state in given(story)["slow agent"]] == ["firing", "resolved", "firing"]
    assert len({one for one, _ in given(story)["slow agent"]}) == 2
    assert len(given(story)["slower agent"]) == 2
    found = story.replay.newest_decisions().values()
    gone = {one.reverses for one in found if one.reverses}
    tasks = [one.id for one in found if one.kind in ("task", "proposal") and one.level == "agent"]
    assert (len(tasks), len([one for one in tasks if one not in gone])) == (3, 1)
    assert story.rejects() == []
