"""The reports of a week and a month: the same ledger gives the same report, and every entry is in it once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from kaohe.cli.periods import lines_of
from kaohe.packs.load import load_pack
from kaohe.reports import Report, report_of
from tests.support.packs import Story

RULES = Path(__file__).resolve().parents[2] / "rules"


@pytest.fixture(scope="module")
def story() -> Story:
    story = Story(load_pack(RULES / "logistics-service"))
    story.tell("2026-08-03T09:00", "survey.cross_department", by="legal", rating="poor")
    story.tell("2026-08-04T09:00", "survey.cross_department", by="legal", rating="excellent")
    story.tell("2026-08-05T09:00", "goal.proposed", goal_id="g", period="2026-09", indicator="x", target="y")
    story.tell("2026-08-11T09:00", "goal.signed", goal_id="g", who="employee")
    story.tell("2026-08-12T09:00", "goal.signed", goal_id="g", who="supervisor")
    story.tell("2026-08-13T09:00", "goal.proposed", goal_id="h", period="2026-09", indicator="x", target="y")
    story.tick("2026-09-05T00:00")
    story.replay.finish()
    return story


def report(story: Story, window: str, label: str) -> Report:
    replay = story.replay
    newest = {grade.id: grade for grade in replay.grade_list()}
    entries = list(replay.newest_decisions().values())
    return report_of(window, label, entries, replay.alert_list(), newest.values())


def test_the_report_of_a_month_tells_what_was_done_and_what_is_wrong(story: Story) -> None:
    month = report(story, "month", "2026-08")
    assert [(one.rule, one.ended[:10]) for one in month.done] == [("ls-goal-unsigned", "2026-08-12")]
    assert [(one.rule, one.began[:10]) for one in month.problems] == [("ls-goal-unsigned", "2026-08-18")]
    assert [(one.rule, one.entries, one.points) for one in month.deductions] == [("ls-cooperation", 1, "-2")]
    assert [one.rule for one in month.awards] == ["ls-cooperation"]
    assert [(one.rule, one.owner) for one in month.next] == [("ls-goal-in-force", "employee")]
    assert month.grades == {"A": 1}
    assert (month.first_day, month.last_day) == ("2026-08-01", "2026-08-31")


def test_the_weeks_of_a_month_add_up_to_it(story: Story) -> None:
    month = report(story, "month", "2026-08")
    weeks = [report(story, "week", f"2026-W{number}") for number in range(31, 37)]
    points = [sum(Fraction(line.points) for line in one.deductions) for one in (month, *weeks)]
    assert points[0] == sum(points[1:]) == -2
    assert len(month.done) == sum(len(one.done) for one in weeks) == 1


def test_a_period_without_anything_is_empty(story: Story) -> None:
    empty = report(story, "month", "2026-07")
    assert [empty.done, empty.problems, empty.deductions, empty.awards, empty.next] == [[]] * 5
    assert empty.grades == {}


def test_the_state_of_periods_is_that_of_their_grades(story: Story) -> None:
    newest = {grade.id: grade for grade in story.replay.grade_list()}
    found = [(one.period, one.state, one.final, one.provisional) for one in lines_of(newest.values())]
    assert ("2026-08", "closed", 1, 0) in found
