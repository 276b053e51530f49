"""Figures in reports: attendance told to each person, resources and effect beside the period before, the best."""

from __future__ import annotations

import json
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from kaohe.cli import run
from kaohe.core.model import Pack
from kaohe.packs.load import load_pack
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.records import ALERTS_TOPIC, DECISIONS_TOPIC, GRADES_TOPIC, Delivery
from kaohe.reports import FigureLine, Report, figures_of, lot, report_of
from kaohe.reports_html import page
from tests.support.packs import Story

RULES = Path(__file__).resolve().parents[2] / "rules"
PEOPLE = {"a-1": (20, 0), "a-2": (20, 0), "a-3": (19, 1), "a-4": (20, 0), "a-5": (20, 0), "a-6": (10, 10)}
"""Content and discontent customers of each month. a-5 is late once; a-3 meets the threshold of 95 % exactly."""


def month_of(story: Story, first: date, late: str = "") -> None:
    """Twelve shifts of everybody, and what customers and colleagues say, in the order of time."""
    for number in range(12):
        day = first + timedelta(days=number)
        for agent in PEOPLE:
            shift = f"{agent}/{day}"
            story.tell(
                f"{day}T00:00", "shift.scheduled", agent, shift_id=shift, day=str(day), site="north",
                starts_at=story.event(f"{day}T09:00", "clock.in", agent).time,
                ends_at=story.event(f"{day}T18:00", "clock.in", agent).time,
            )  # fmt: skip
        tardy = late if number == 3 else ""
        for agent in [*(name for name in PEOPLE if name != tardy), *([tardy] if tardy else [])]:
            came = "09:20" if agent == tardy else "08:50"
            story.tell(f"{day}T{came}", "clock.in", agent, shift_id=f"{agent}/{day}", site="north")
        for agent in PEOPLE:
            story.tell(f"{day}T18:05", "clock.out", agent, shift_id=f"{agent}/{day}", site="north")
    day = first + timedelta(days=20)
    for agent, (content, other) in PEOPLE.items():
        for number in range(content + other):
            said = "satisfied" if number < content else "dissatisfied"
            story.tell(f"{day}T20:00", "survey.customer", agent, satisfaction=said, site="north")


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack(RULES / "full-attendance")


@pytest.fixture(scope="module")
def story(pack: Pack) -> Story:
    """July and August of six people at one site, both closed."""
    story = Story(pack)
    for agent in PEOPLE:
        story.tell("2026-06-30T08:00", "roster.changed", agent, team="t", site="north")
    month_of(story, date(2026, 7, 1), late="a-4")
    month_of(story, date(2026, 8, 3), late="a-5")
    story.tick("2026-09-05T01:00")
    story.replay.finish()
    assert story.replay.rejects == []
    return story


def report(story: Story, pack: Pack, label: str = "2026-08", agent: str = "") -> Report:
    newest = {grade.id: grade for grade in story.replay.grade_list()}
    entries = list(story.replay.newest_decisions().values())
    return report_of("month", label, entries, story.replay.alert_list(), newest.values(), [pack], agent)


def told(line: FigureLine) -> dict[str, str | None]:
    return {one.name.removesuffix(".month"): one.value for one in line.figures}


def test_everybody_has_a_line_with_their_own_attendance(story: Story, pack: Pack) -> None:
    lines = report(story, pack).attendance
    assert [line.subject for line in lines] == sorted(PEOPLE)
    assert told(lines[0]) == {
        "required_days": "12", "attended_days": "12", "attendance_rate": "1", "late_arrivals": "0",
        "early_leaves": "0", "absences": "0", "leave_days": "0", "full_streak": "2",
    }  # fmt: skip
    late = told(lines[4])
    assert (late["late_arrivals"], late["full_streak"]) == ("1", "0")
    assert told(lines[3])["full_streak"] == "1"
    assert lines[0].figures[2].shown == "100%"
    assert lines[0].figures[0].title.zh == "应出勤天数"


def test_every_figure_is_a_fact_of_an_entry_of_the_ledger(story: Story, pack: Pack) -> None:
    entries = story.replay.newest_decisions()
    month = report(story, pack)
    lines = [*month.attendance, *month.effect, *month.commended]
    assert lines
    for line in lines:
        entry = entries[line.entry]
        assert (entry.rule, entry.subject, entry.period, entry.status) == (
            line.rule, line.subject, "2026-08", "final",
        )  # fmt: skip
        assert [one.value for one in line.figures] == [entry.facts[one.name].value for one in line.figures]


def test_the_effect_stands_beside_the_month_before(story: Story, pack: Pack) -> None:
    (line,) = report(story, pack).effect
    assert (line.subject, line.level) == ("north", "site")
    rate, customers, colleagues = line.figures
    assert (rate.value, rate.before, rate.change) == ("1", "1", "0")
    exact = Fraction(sum(one for one, _ in PEOPLE.values()), sum(map(sum, PEOPLE.values())))
    assert customers.value is not None
    assert Fraction(customers.value.partition(" ")[0]) == exact
    assert customers.change == "0"
    assert (colleagues.value, colleagues.shown, colleagues.change) == (None, "–", None)
    (first,) = report(story, pack, "2026-07").effect
    assert [one.before for one in first.figures] == [None] * 3


def test_the_best_are_ranked_by_figures_and_equals_by_a_lot(story: Story, pack: Pack) -> None:
    # a-6 is below the threshold, a-5 was late; a-1 and a-2 are equal, and a-4's streak is shorter than theirs.
    best = report(story, pack).commended
    first = sorted(("a-1", "a-2"), key=lambda name: lot("full-attendance", "2026-08", name))
    assert [(line.rank, line.subject) for line in best] == [(1, first[0]), (2, first[1]), (3, "a-4")]
    # In July nobody had a streak, and a-5 was in time: four are equal and one of them has no place.
    july = [line.subject for line in report(story, pack, "2026-07").commended]
    equal = sorted(("a-1", "a-2", "a-5"), key=lambda name: lot("full-attendance", "2026-07", name))
    assert july == equal
    assert report(story, pack, agent="a-4").commended == [best[2]]


def test_the_lots_of_another_month_are_others() -> None:
    names = [f"a-{number}" for number in range(20)]
    orders = {
        tuple(sorted(names, key=lambda name: lot("p", f"2026-{month:02}", name))) for month in range(1, 13)
    }
    assert len(orders) == 12


def test_one_person_sees_what_concerns_them_alone(story: Story, pack: Pack) -> None:
    own = report(story, pack, agent="a-5")
    assert [line.subject for line in own.attendance] == ["a-5"]
    assert own.effect == []
    assert {one.subject for one in own.next} == {"a-5"}
    assert own.waiting == []


def test_a_month_that_is_not_closed_says_so(story: Story, pack: Pack) -> None:
    running = report(story, pack, "2026-09")
    assert [one.en.partition(":")[0] for one in running.waiting] == [
        "no figures about attendance", "no figures about the effect of the scheme", "no figures about commendation",
    ]  # fmt: skip
    assert report(story, pack).waiting == []


def test_tasks_of_before_that_are_due_later_are_next_and_those_taken_back_are_not(
    story: Story, pack: Pack
) -> None:
    entries = list(story.replay.newest_decisions().values())
    (one,) = [entry for entry in entries if entry.rule == "fa-effect" and entry.period == "2026-07"]
    due_later = type(one)(
        **{name: getattr(one, name) for name in one.__struct_fields__}
        | {"id": "d-later", "at": "2026-07-30T00:00:00+08:00", "due_at": "2026-10-01T00:00:00+08:00"}
    )
    back = type(one)(
        **{name: getattr(one, name) for name in one.__struct_fields__}
        | {"id": "d-back", "kind": "waive", "reverses": "d-later"}
    )
    shown = report_of("month", "2026-08", [due_later], [], []).next
    assert [line.id for line in shown] == ["d-later"]
    assert report_of("month", "2026-08", [due_later, back], [], []).next == []
    assert report_of("month", "2026-06", [due_later], [], []).next == []


def test_the_week_tells_how_resources_were_used(tmp_path: Path) -> None:
    pack = load_pack(RULES / "front-desk")
    story = Story(pack)
    story.tell("2026-08-01T08:00", "roster.changed", team="t", site="north")
    for monday, cost in (("2026-08-03", 900_00), ("2026-08-10", 1500_00)):
        for tag, amount in (("budget.booked", 1000_00), ("cost.booked", cost)):
            story.tell(
                f"{monday}T08:30", tag, booking_id=f"{tag}/{monday}", amount_minor=amount, site="north"
            )
        story.tell(f"{monday}T09:00", "agent.logged_in")
        story.tell(f"{monday}T09:00", "agent.ready", id=f"r-{monday}")
        story.tell(f"{monday}T10:00", "call.completed", call_id=f"c-{monday}", talk_ms=1_800_000)
        story.tell(f"{monday}T11:00", "agent.logged_out")
    story.tick("2026-08-21T00:00")
    story.replay.finish()
    entries = list(story.replay.newest_decisions().values())
    (line,) = figures_of("week", "2026-W33", entries, [pack])["resources"]
    figures = {one.name: one for one in line.figures}
    busy, costs = figures["utilisation.week"], figures["costs.week"]
    assert (busy.value, busy.before, busy.change) == ("0.25", "0.25", "0")
    assert (costs.value, costs.before, costs.change) == ("150000", "90000", "60000")
    assert (costs.shown, costs.before_shown) == ("1500.00 CNY", "900.00 CNY")
    assert figures["budget_use.week"].value == "1.5"
    assert figures["budget.week"].value == "100000"
    week = report_of("week", "2026-W34", entries, [], [], [pack])
    assert [one.en.partition(":")[0] for one in week.waiting] == ["no figures about resource use"]


def test_what_is_told_once_is_a_problem_of_its_own_time(story: Story, pack: Pack) -> None:
    alerts = [one for one in story.replay.alert_list() if one.rule in ("fa-late-warning", "fa-not-in")]
    told = {one.rule: one for one in alerts if one.state == "firing" and one.at.startswith("2026-07")}
    assert set(told) == {"fa-late-warning", "fa-not-in"}
    for label, wanted in (("2026-07", set(told)), ("2026-08", {"fa-not-in"}), ("2026-06", set())):
        found = report_of("month", label, [], list(told.values()), [], [pack])
        assert {line.rule for line in found.problems} == wanted, label


# --- pages and the command --------------------------------------------------------------------------------------------


def test_a_page_shows_all_and_is_safe(story: Story, pack: Pack) -> None:
    month = report(story, pack)
    text = page(month, "month").decode()
    for line in (*month.attendance, *month.effect, *month.commended):
        assert line.entry in text
        assert line.subject in text
    assert "出勤统计" in text
    assert "the month before 上月" in text
    assert "<script" not in text
    assert "http" not in text
    strange = '<b>&"x"'
    entry = next(one for one in story.replay.newest_decisions().values() if one.rule == "fa-statistics")
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    odd = report_of("month", "2026-08", [type(entry)(**fields | {"subject": strange})], [], [], [pack])
    assert "<b>" not in page(odd, "month").decode()


@pytest.fixture
def ledger(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    replay = story.replay
    with Ledger(url) as opened:
        for topic, records in (
            (DECISIONS_TOPIC, replay.decision_list()), (ALERTS_TOPIC, replay.alert_list()),
            (GRADES_TOPIC, replay.grade_list()),
        ):  # fmt: skip
            several: list[Any] = list(records)
            opened.write([Delivery(topic, 0, at, one) for at, one in enumerate(several)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAOHE_DATABASE_URL", url)
    monkeypatch.setenv("KAOHE_RULES", str(RULES))
    monkeypatch.setenv("KAOHE_PACKS", "full-attendance")
    return tmp_path


def test_the_command_writes_text_json_a_page_and_a_notice_for_each(
    ledger: Path, story: Story, pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    month = ["report", "monthly", "--period", "2026-08"]
    assert run([*month, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    wanted = report(story, pack)
    assert [one["subject"] for one in document["attendance"]] == [one.subject for one in wanted.attendance]
    assert document["commended"][0]["entry"] == wanted.commended[0].entry
    assert run([*month, "--lang", "zh"]) == 0
    assert "应出勤天数" in capsys.readouterr().out
    assert run([*month, "--agent", "a-5"]) == 0
    assert "a-1" not in capsys.readouterr().out
    assert run([*month, "--html", "out/august.html", "--notices", "notices"]) == 0
    assert (ledger / "out" / "august.html").read_text(encoding="utf-8").count("fa-statistics") >= 1
    notices = sorted((ledger / "notices").iterdir())
    assert len(notices) == len(PEOPLE)
    own = notices[0].read_text(encoding="utf-8")
    assert "a-1" in own
    assert "a-2" not in own
    assert run(["report", "weekly", "--period", "2026-W33"]) == 0
    capsys.readouterr()
    assert run([*month, "--html", str(ledger)]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert run(["report", "monthly", "--period", "2026-W33"]) == 2
    assert "'2026-W33' is no month" in capsys.readouterr().err
