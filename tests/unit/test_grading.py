"""Scorecards of items, from events to final grades: the whole core over a pack that uses everything."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.cli.periods import lines_of
from kaohe.core import company
from kaohe.core.engine import PartitionEngine, Zones, group_partition
from kaohe.core.grading import Proposal
from kaohe.core.group import GroupEngine
from kaohe.core.model import Pack
from kaohe.core.records import Record
from kaohe.core.replay import Replay
from kaohe.decisions import DECISION_DECODER, GRADE_DECODER, Decision, Grade, ScoreDetail
from kaohe.errors import StateError
from kaohe.events import PAYLOADS, make
from kaohe.packs.load import load_pack, load_packs
from kaohe.reports import report_of
from tests.support.core_runs import Timed, records_of, run_all, run_engine, seed
from tests.support.packs import Story, at_ms, moment

RULES = Path(__file__).resolve().parents[2] / "rules"
SCORED = Path(__file__).parents[1] / "packs" / "scored"


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack(SCORED)


def newest(story: Story, subject: str = "a-1", window: str = "month") -> Grade:
    """The newest grade of a subject."""
    story.replay.finish()
    grades = story.replay.newest_grades().values()
    found = [one for one in grades if (one.subject, one.window) == (subject, window)]
    assert found, story.replay.rejects
    return max(found, key=lambda one: one.at)


def detail_of(grade: Grade) -> ScoreDetail:
    assert grade.detail is not None
    return grade.detail


def enrol(story: Story, when: str = "2026-02-01T08:00", agent: str = "a-1", **fields: Any) -> None:
    line = {"superior": "s-1", "leader": "l-1", "team": "t-1", "department": "east", **fields}
    story.tell(when, "roster.changed", agent, **line)


def assess(story: Story, when: str, role: str, by: str, item: str = "attitude", **fields: Any) -> None:
    about: dict[str, Any] = {"pack": "scored", "window": "month", "period": when[:7]}
    story.tell(when, "assessment.submitted", **{**about, "item": item, "role": role, "by": by, **fields})


def decide(story: Story, when: str, by: str = "l-1", **fields: Any) -> None:
    about: dict[str, Any] = {"pack": "scored", "window": "month", "period": when[:7]}
    story.tell(when, "assessment.decided", **{**about, "by": by, **fields})


def line_of(grade: Grade, item: str) -> Any:
    return next(one for one in detail_of(grade).lines if one.item == item)


def test_a_card_adds_up_what_its_items_earned(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    for number in range(4):
        story.tell(
            f"2026-02-02T09:0{number}", "ticket.resolved", ticket_id=f"t-{number}", first_contact=number < 3
        )
    story.tell("2026-02-02T09:10", "call.completed", call_id="c-1", talk_ms=200_000)
    story.tell("2026-02-02T09:20", "error.recorded", id="error-1", error_id="x-1")
    for when, role, by, score in (
        ("2026-02-03T09:00", "self", "a-1", 1000), ("2026-02-03T10:00", "superior", "s-1", 800),
        ("2026-02-03T11:00", "peer", "a-2", 600), ("2026-02-03T12:00", "peer", "a-3", 1000),
    ):  # fmt: skip
        assess(story, when, role, by, score=score)
    story.tick("2026-02-04T00:00")
    assert story.replay.rejects == []
    grade = newest(story)
    # attitude: self 0.2 * 1 + peers 0.2 * 0.8 + superior 0.4 * 0.8, of 0.8; solving: (0.75 - 0.6) / 0.3;
    # nobody was monitored and nobody judged the cooperation: both leave the sum.
    attitude = (Fraction("0.2") + Fraction("0.16") + Fraction("0.32")) / Fraction("0.8")
    quality = (attitude + Fraction(1, 2)) / 2
    efficiency = (Fraction(1, 2) + Fraction(7, 10)) / 2
    wanted = (
        100 * (Fraction("0.4") * quality + Fraction("0.25") * efficiency + Fraction("0.2")) / Fraction("0.85")
    )
    assert Fraction(detail_of(grade).exact.partition(" ")[0]) == wanted
    assert Fraction(grade.score) == round(wanted, 2)
    assert (grade.grade, grade.status) == ("qualified", "provisional")
    assert (detail_of(grade).word or grade.explanation).en == "Qualified"
    assert line_of(grade, "attitude").share == "0.85"
    assert [(one.role, one.by) for one in line_of(grade, "attitude").said] == [
        ("peer", ""), ("peer", ""), ("self", "a-1"), ("superior", "s-1"),
    ]  # fmt: skip
    assert (line_of(grade, "speed").word, line_of(grade, "speed").value) == ("slow", "200")
    assert (line_of(grade, "monitored").share, line_of(grade, "cooperation").part) == (None, "0")
    assert len(line_of(grade, "accuracy").entries) == 1
    assert grade.entries == line_of(grade, "accuracy").entries
    assert contributions(grade) == wanted


def contributions(grade: Grade) -> Fraction:
    """The sum of everything that a grade shows."""
    detail = detail_of(grade)
    texts = [one.contribution for one in detail.lines] + list(detail.others.values())
    return sum((Fraction(text.partition(" ")[0]) for text in texts), Fraction(0))


def test_each_revision_says_what_moved(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    assess(story, "2026-02-03T09:00", "superior", "s-1", score=800)
    story.tell("2026-02-03T10:00", "error.recorded", error_id="x-1")
    grade = newest(story)
    moved = {(one.what, one.id): (one.before, one.after) for one in detail_of(grade).changes}
    entry = line_of(grade, "accuracy").entries[0]
    assert moved[("entry", entry)] == ("", "-3")
    # Of 85 % of the weights that have data, accuracy is 25.
    assert [Fraction(text.partition(" ")[0]) for text in moved["item", "accuracy"]] == [
        Fraction(2500, 85), Fraction(2500, 85) * Fraction(7, 10),
    ]  # fmt: skip
    assert "Accuracy 29.411765 → 20.588235" in grade.explanation.en
    assert "准确性 29.411765 → 20.588235" in grade.explanation.zh


def test_the_newest_word_of_each_counts_in_whatever_order_it_comes(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    assess(story, "2026-02-03T09:00", "superior", "s-1", score=500)
    assess(story, "2026-02-03T11:00", "superior", "s-1", grade="good")
    about: dict[str, Any] = {"pack": "scored", "window": "month", "period": "2026-02", "item": "attitude"}
    story.late("2026-02-03T10:00", "assessment.submitted", role="superior", by="s-1", score=0, **about)
    assert (line_of(newest(story), "attitude").share, line_of(newest(story), "attitude").said[0].word) == (
        "0.8",
        "good",
    )


@pytest.mark.parametrize(
    ("role", "by", "more", "reason"),
    [
        ("self", "a-2", {}, "a-2 is not a-1, who alone speaks in the role self"),
        ("superior", "s-2", {}, "s-2 is not the superior of a-1 by the roster"),
        ("leader", "s-1", {}, "s-1 is not the leader in charge of a-1 by the roster"),
        ("peer", "a-1", {}, "a-1 is no peer of a-1"),
        ("peer", "s-1", {}, "s-1 is no peer of a-1"),
    ],
)
def test_who_may_not_say_it_is_refused_with_the_reason(
    pack: Pack, role: str, by: str, more: dict[str, Any], reason: str
) -> None:
    story = Story(pack)
    enrol(story)
    assess(story, "2026-02-03T09:00", role, by, score=500, **more)
    (reject,) = story.replay.rejects
    assert (reject.code, reject.reason) == ("not_allowed", f"$.data.by: {reason}")
    assert story.grades() == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"pack": "nowhere"}, "unknown_pack"),
        ({"window": "week", "period": "2026-W06"}, "unknown_scorecard"),
        ({"period": "2026-13"}, "invalid"),
        ({"period": "2026-03"}, "invalid"),
        ({"item": "solving"}, "unknown_item"),
        ({"role": "department"}, "not_allowed"),
        ({"score": 1001}, "invalid"),
        ({"grade": "good"}, "invalid"),
        ({"score": None, "grade": "splendid"}, "invalid"),
        ({"score": None}, "invalid"),
        ({"department": "east"}, "department_not_subject"),
        ({"by": "s\x1f1"}, "invalid"),
    ],
)
def test_an_assessment_that_says_nothing_useful_is_refused(
    pack: Pack, fields: dict[str, Any], code: str
) -> None:
    story = Story(pack)
    enrol(story)
    assess(story, "2026-02-03T09:00", **{"role": "superior", "by": "s-1", "score": 500, **fields})
    assert story.rejects() == [code]


def test_nothing_is_heard_about_a_closed_period_or_a_pack_that_is_not_in_force(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    enrol(story, agent="a-2", packs=["another"])
    story.tick("2026-03-04T01:00")
    assess(story, "2026-03-04T02:00", "superior", "s-1", score=500, period="2026-02")
    assess(story, "2026-03-04T02:00", "superior", "s-1", score=500, agent="a-2")
    assert story.rejects() == ["period_closed", "pack_not_in_force"]


def test_the_leader_in_charge_has_the_final_word(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    assess(story, "2026-02-03T09:00", "superior", "s-1", score=1000)
    decide(story, "2026-02-04T09:00", item="attitude", score=500)
    assert line_of(newest(story), "attitude").share == "0.5"
    assert line_of(newest(story), "attitude").calculation == "final word of l-1"
    decide(story, "2026-02-05T09:00", grade="qualified", reason="a grave mistake")
    ruled = newest(story)
    # Both views agree: the score is the nearest one that is qualified.
    assert (ruled.grade, ruled.score) == ("qualified", "74.99")
    assert "decided by l-1: a grave mistake" in ruled.explanation.en
    assert "由 l-1 最终裁定：a grave mistake" in ruled.explanation.zh
    decide(story, "2026-02-06T09:00", score=9100)
    assert (newest(story).grade, newest(story).score) == ("excellent", "91")


@pytest.mark.parametrize(
    ("by", "fields", "code"),
    [
        ("s-1", {"grade": "good"}, "not_allowed"),
        ("a-1", {"grade": "good"}, "not_allowed"),
        ("l-1", {"grade": "splendid"}, "invalid"),
        ("l-1", {"grade": "good", "score": 9100}, "views_disagree"),
        ("l-1", {"item": "solving", "score": 100}, "unknown_item"),
        ("l-1", {}, "invalid"),
    ],
)
def test_a_final_word_that_may_not_be_said_is_refused(
    pack: Pack, by: str, fields: dict[str, Any], code: str
) -> None:
    story = Story(pack)
    enrol(story)
    decide(story, "2026-02-04T09:00", by=by, **fields)
    assert story.rejects() == [code]


def test_a_superior_decides_where_no_leader_is_named(pack: Pack) -> None:
    story = Story(pack)
    enrol(story, leader="")
    decide(story, "2026-02-04T09:00", by="s-1", score=8000)
    assert (newest(story).score, newest(story).grade) == ("80", "good")


def test_a_rule_that_holds_the_grade_down_holds_the_score_in_its_band(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    assess(story, "2026-02-03T09:00", "superior", "s-1", score=1000)
    story.tell("2026-02-04T09:00", "complaint.upheld", complaint_id="k-1", severity="critical")
    grade = newest(story)
    assert (grade.grade, grade.score, detail_of(grade).exact) == ("qualified", "74.99", "100")
    assert "held down by sc-major" in grade.explanation.en


def test_a_waived_entry_leaves_its_item(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    story.tell("2026-02-03T09:00", "error.recorded", id="e-9", error_id="x-1")
    assert line_of(newest(story), "accuracy").share == "0.7"
    story.tell("2026-02-04T09:00", "exemption.granted", exemption_id="x", incident="e-9")
    grade = newest(story)
    assert (line_of(grade, "accuracy").share, len(line_of(grade, "accuracy").entries)) == ("1", 2)
    assert detail_of(grade).others == {}


def test_an_entry_of_no_item_moves_the_whole_score(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    assess(story, "2026-02-03T09:00", "superior", "s-1", score=500)
    before = newest(story)
    story.tell("2026-02-04T09:00", "survey.cross_department", rating="excellent", by="west")
    after = newest(story)
    assert Fraction(after.score) - Fraction(before.score) == 2
    assert list(detail_of(after).others.values()) == ["2"]
    assert contributions(after) == Fraction(detail_of(after).exact.partition(" ")[0])


def test_monitored_contacts_count_from_a_least_number_on(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    story.tell("2026-02-03T09:00", "quality.evaluated", score=9000, by="q-1")
    assert story.grades() == []
    story.tell("2026-02-03T10:00", "quality.evaluated", score=6000, by="q-2")
    line = line_of(newest(story), "monitored")
    assert (line.share, line.calculation) == ("0.75", "150 / 2 / 100")


def test_tuned_weights_hold_from_the_period_that_begins_with_them(pack: Pack) -> None:
    story = Story(pack)
    enrol(story, "2026-06-01T08:00")
    assess(story, "2026-06-03T09:00", "superior", "s-1", score=500)
    june = newest(story)
    assess(story, "2026-07-03T09:00", "superior", "s-1", score=500)
    assert [one.weight for one in detail_of(june).dimensions] == ["0.4", "0.25", "0.2", "0.15"]
    assert [one.weight for one in detail_of(newest(story)).dimensions] == ["0.45", "0.2", "0.2", "0.15"]


# --- closing


def months_of(story: Story, months: list[str], scores: dict[str, list[int]]) -> None:
    """Each month the leader decides everybody's score."""
    for index, month in enumerate(months):
        for agent, given in sorted(scores.items()):
            if index < len(given):
                decide(story, f"{month}-20T09:00", agent=agent, score=given[index], period=month)
        year, number = month.split("-")
        following = f"{year}-{int(number) + 1:02d}" if number != "12" else f"{int(year) + 1}-01"
        story.tick(f"{following}-04T00:00")
        story.tick(f"{following}-04T00:05")


def finals(story: Story, window: str = "month") -> dict[tuple[str, str], tuple[str, str]]:
    story.replay.finish()
    return {
        (one.subject, one.period): (one.score, one.grade)
        for one in story.replay.grade_list()
        if one.status == "final" and one.window == window
    }


def test_only_so_many_are_excellent_and_the_others_are_told_why(pack: Pack) -> None:
    story = Story(pack)
    for agent, department in (
        ("a-1", "east"),
        ("a-2", "east"),
        ("a-3", "west"),
        ("a-4", "south"),
        ("a-5", "south"),
    ):
        enrol(story, agent=agent, department=department)
    months_of(story, ["2026-02"], {"a-1": [9500], "a-2": [9700], "a-3": [9100], "a-4": [9050], "a-5": [8000]})
    assert finals(story) == {
        ("a-1", "2026-02"): ("89.99", "good"), ("a-2", "2026-02"): ("97", "excellent"),
        ("a-3", "2026-02"): ("91", "excellent"), ("a-4", "2026-02"): ("89.99", "good"),
        ("a-5", "2026-02"): ("80", "good"),
    }  # fmt: skip
    held = newest(story)
    assert (
        "excellent by the score, good by the quota (SC-03): rank 2 of 4 for 2 places among 5 people"
        in held.explanation.en
    )
    assert "1 in the department east have one already" in held.explanation.en
    assert "保留 excellent" in newest(story, "a-2").explanation.zh
    assert [(one.what, one.before, one.after) for one in detail_of(held).changes] == [
        ("grade", "excellent", "good"), ("score", "95", "89.99"),
    ]  # fmt: skip


def test_months_make_quarters_and_quarters_years(pack: Pack) -> None:
    story = Story(pack)
    enrol(story, "2026-01-01T08:00")
    months = [f"2026-{number:02d}" for number in range(1, 13)]
    about = {"window": "quarter", "item": "skill"}
    assess(story, "2026-01-05T09:00", "superior", "s-1", period="2026-Q1", score=900, **about)
    months_of(story, months, {"a-1": [8000, 7000, 9000, *[6000] * 9]})
    quarters = finals(story, "quarter")
    assert quarters["a-1", "2026-Q1"] == ("83", "good")
    # Without an assessment of growth the months are all that counts.
    assert quarters["a-1", "2026-Q2"] == ("60", "qualified")
    assert finals(story, "year") == {("a-1", "2026"): ("65.75", "qualified")}
    told = [(one.id, one.at) for one in story.replay.grade_list() if one.status == "provisional"]
    assert len(told) == len(set(told)), "one grade twice in one moment"


def test_a_year_that_closes_with_its_last_month_is_told_once() -> None:
    story = Story(load_pack(RULES / "logistics-service"))
    enrol(story, "2026-11-01T08:00")
    for month, rating in (("11", "poor"), ("12", "excellent")):
        story.tell(f"2026-{month}-05T09:00", "survey.cross_department", by="legal", rating=rating)
    story.tick("2027-01-10T00:00")
    story.replay.finish()
    year = [
        (one.status, one.revision, one.at[:10]) for one in story.replay.grade_list() if one.window == "year"
    ]
    assert year == [("provisional", 1, "2026-12-04"), ("final", 2, "2027-01-04")]


def test_a_card_of_who_leaves_the_pack_in_the_month_is_withdrawn(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    enrol(story, agent="a-2")
    for agent in ("a-1", "a-2"):
        assess(story, "2026-02-03T09:00", "superior", "s-1", score=500, agent=agent)
    enrol(story, "2026-02-20T08:00", packs=["another"])
    story.tick("2026-04-05T00:00")
    left, stays = newest(story), newest(story, "a-2")
    assert (left.status, left.period, stays.status) == ("withdrawn", "2026-02", "final")
    (line,) = [
        one for one in lines_of(story.replay.newest_grades().values())
        if (one.period, one.level) == ("2026-02", "agent")
    ]  # fmt: skip
    assert (line.state, line.final, line.provisional, line.withdrawn) == ("closed", 1, 0, 1)
    report = report_of("month", "2026-02", [], [], story.replay.newest_grades().values())
    assert (sum(report.grades.values()), report.withdrawn) == (1, 1)
    story.tell("2026-04-05T01:00", "appeal.filed", appeal_id="a", against=left.id, text="No.")
    assert story.rejects() == ["no_appeals"]


@pytest.mark.parametrize(("kept", "status"), [([], "withdrawn"), (["company-kpi"], "final")])
def test_the_one_score_of_several_packs_ends_with_its_parts(kept: list[str], status: str) -> None:
    packs = load_packs(["company-kpi", "logistics-service"], RULES)
    story = Story(*packs)
    enrol(story, packs=["company-kpi", "logistics-service"])
    story.tell("2026-02-03T09:00", "survey.cross_department", by="legal", rating="poor")
    for number in range(8):
        story.tell(f"2026-02-04T09:0{number}", "survey.customer", satisfaction="very_satisfied")
    enrol(story, "2026-02-20T08:00", packs=[*kept, "front-desk"])
    story.tick("2026-03-15T00:00")
    story.tick("2026-03-16T00:00")
    story.replay.finish()
    newest_of = {one.pack: one for one in story.replay.newest_grades().values() if one.period == "2026-02"}
    assert newest_of["logistics-service"].status == "withdrawn"
    joint = newest_of["company-kpi+"]
    assert joint.status == status
    if kept:
        assert joint.score == newest_of["company-kpi"].score


def proposals(story: Story) -> list[tuple[str, str, str, str]]:
    story.replay.finish()
    return [
        (one.rule, one.subject, one.period, one.proposal)
        for one in story.replay.decision_list()
        if one.kind == "proposal"
    ]


def test_poor_grades_are_counted_and_proposals_follow(pack: Pack) -> None:
    story = Story(pack)
    enrol(story, "2026-01-01T08:00")
    months = [f"2026-{number:02d}" for number in range(1, 6)]
    months_of(story, months, {"a-1": [3000, 8000, 2000, 1000, 0]})
    assert proposals(story) == [
        ("sc-observation", "a-1", "2026-01", "observation"), ("sc-probation", "a-1", "2026-03", "probation"),
        ("sc-dismissal", "a-1", "2026-04", "dismissal"), ("sc-penalty", "a-1", "2026-04", "penalty"),
        ("sc-dismissal", "a-1", "2026-05", "dismissal"), ("sc-penalty", "a-1", "2026-05", "penalty"),
    ]  # fmt: skip
    told = next(one for one in story.replay.decision_list() if one.rule == "sc-dismissal")
    assert told.explanation.en == "a-1 was graded to_improve 3 times (2026-01, 2026-03, 2026-04)."
    assert (told.clause, told.owner, told.facts["count"].value) == ("SC-04", "leader_in_charge", "3")
    grades = {one.id for one in story.replay.grade_list()}
    assert set(told.evidence) <= grades


def test_assessors_are_calibrated_against_each_other(pack: Pack) -> None:
    story = Story(pack)
    superiors = {"a-1": "s-1", "a-2": "s-1", "a-3": "s-2", "a-4": "s-2"}
    for agent, superior in superiors.items():
        enrol(story, agent=agent, superior=superior)
    for agent, score in (("a-1", 900), ("a-2", 1000), ("a-3", 600), ("a-4", 700)):
        assess(story, "2026-02-10T09:00", "superior", superiors[agent], agent=agent, score=score)
    before = {agent: newest(story, agent) for agent in superiors}
    story.tick("2026-03-04T00:00")
    story.tick("2026-03-04T00:05")
    # The means are 0.95 and 0.65: half of the difference would be 0.15, the limit is 0.1.
    part = Fraction(line_of(before["a-1"], "attitude").part.partition(" ")[0])
    for agent, sign in (("a-1", -1), ("a-2", -1), ("a-3", 1), ("a-4", 1)):
        exact = Fraction(detail_of(before[agent]).exact.partition(" ")[0]) + sign * part / 10
        after = newest(story, agent)
        assert Fraction(detail_of(after).exact.partition(" ")[0]) == exact
        assert after.status == "final"
        assert "calibrated between assessors by" in after.explanation.en
    tasks = [one for one in story.replay.decision_list() if one.rule == "sc-calibration"]
    assert [(one.subject, one.kind, one.facts["mean"].value, one.facts["others_mean"].value) for one in tasks] == [
        ("s-1", "task", "0.95", "0.65"), ("s-2", "task", "0.65", "0.95"),
    ]  # fmt: skip
    assert (
        "s-1 gave 95% on average in 2 assessments of 2026-02 (spread 5%), the others 65%"
        in tasks[0].explanation.en
    )


def assess_department(
    story: Story, when: str, department: str, role: str, by: str, points: dict[str, int], **more: Any
) -> None:
    for number, (item, score) in enumerate(points.items()):
        fields = {
            "pack": "scored",
            "window": "month",
            "period": when[:7],
            "item": item,
            "role": role,
            "by": by,
            **more,
        }
        lead(story, f"{when}:{number:02d}", "assessment.submitted", department, score=score, **fields)


def lead(story: Story, when: str, tag: str, department: str, **fields: Any) -> None:
    """An event about a department."""
    story.tell(when, tag, "", subject=department, department=department, **fields)


SIX = {"work": 6300, "execution": 800, "guidance": 400, "safety": 500, "discipline": 400, "spirit": 450}


def test_departments_are_assessed_by_themselves_by_each_other_and_by_the_leader(pack: Pack) -> None:
    story = Story(pack)
    for department, head in (("east", "h-1"), ("west", "h-2")):
        lead(story, "2026-01-01T08:00", "department.changed", department, head=head, leader="l-1")
    assess_department(story, "2026-01-10T09:00", "east", "self", "h-1", SIX)
    assess_department(
        story, "2026-01-10T10:00", "east", "department", "h-2", {**SIX, "work": 5600}, by_department="west"
    )
    assess_department(story, "2026-01-10T11:00", "east", "leader", "l-1", {**SIX, "work": 6160})
    assess_department(story, "2026-01-10T11:00", "west", "leader", "l-1", {**SIX, "work": 7000})
    assert story.rejects() == []
    assess_department(story, "2026-01-10T12:00", "east", "self", "h-2", {"work": 7000})
    assess_department(
        story, "2026-01-10T12:00", "east", "department", "h-1", {"work": 7000}, by_department="east"
    )
    assert story.rejects() == ["not_allowed"] * 2
    for month in (2, 3, 4):
        story.tick(f"2026-{month:02d}-04T00:00")
        story.tick(f"2026-{month:02d}-04T00:05")
    work = Fraction("0.2") * 63 + Fraction("0.3") * 56 + Fraction("0.5") * Fraction("61.6")
    assert Fraction(finals(story)["east", "2026-01"][0]) == work + Fraction("25.5")
    assert finals(story)["west", "2026-01"] == ("95.5", "excellent")
    assert finals(story, "quarter")["west", "2026-Q1"] == ("95.5", "excellent")
    assert proposals(story) == [("sc-best-department", "west", "2026-Q1", "reward")]
    assert "rank 2 of 2 departments" in newest(story, "east", "quarter").explanation.en


# --- the same over partitions and restarts


PEOPLE = [f"a-{number}" for number in range(9)]


class Life:
    """Some months of a company: everything that scorecards look at, in random order and at random ages."""

    def __init__(self, rng: random.Random, months: int = 5) -> None:
        self.rng = rng
        self.now_ms = at_ms("2026-01-01T08:00")
        self.log: list[Timed] = [("tick", self.now_ms)]
        for index, agent in enumerate(PEOPLE):
            self.add("roster.changed", agent, 0, team=f"t-{index % 3}", department=f"d-{index % 2}",
                     superior=f"s-{index % 3}", leader="l-1", site=rng.choice(["nome", "berlin", ""]),
                     hired_on=f"20{10 + index // 2}-05-01")  # fmt: skip
        for department in ("d-0", "d-1"):
            self.add("department.changed", department, 0, department=department, head="h", leader="l-1")
        for _ in range(90 * months):
            self.now_ms += rng.choice((60_000, 3_600_000, 8 * 3_600_000, 16 * 3_600_000))
            self.log.append(("tick", self.now_ms))
            self.something()
        self.log += [("tick", self.now_ms + step * 6 * 3_600_000) for step in range(1, 4 * 50)]

    def add(self, tag: str, subject: str, age_ms: int, **fields: Any) -> None:
        """An event of a subject that happened ``age_ms`` ago."""
        event = make(
            tag, id=f"e-{len(self.log)}", source="life", subject=subject, time=moment(self.now_ms - age_ms),
            data=PAYLOADS[tag](agent="" if subject[0] == "d" else subject, **fields),
        )  # fmt: skip
        self.log.append(("event", event))

    def something(self) -> None:
        """Anything that can happen to somebody."""
        rng = self.rng
        agent = rng.choice(PEOPLE)
        superior, key = f"s-{PEOPLE.index(agent) % 3}", f"k-{len(self.log)}"
        about = {"pack": "scored", "window": "month", "period": moment(self.now_ms).strftime("%Y-%m")}
        submitted = "assessment.submitted"
        choices: list[tuple[str, str, dict[str, Any]]] = [
            (submitted, agent, {**about, "item": "attitude", "role": "superior", "by": superior,
                                "score": rng.randrange(700, 1001)}),
            (submitted, agent, {**about, "item": "cooperation", "role": "peer", "by": rng.choice(PEOPLE),
                                "grade": rng.choice(["excellent", "good", "fair"])}),
            (submitted, "d-1", {**about, "item": "work", "role": "leader", "by": "l-1", "department": "d-1",
                                "score": rng.randrange(4000, 7001)}),
            ("assessment.decided", agent, {**about, "by": "l-1", "score": rng.randrange(5000, 10_001)}),
            ("error.recorded", agent, {"error_id": key}),
            ("quality.evaluated", agent, {"score": rng.randrange(6000, 10_001), "by": f"q-{rng.randrange(3)}"}),
            ("ticket.resolved", agent, {"ticket_id": key, "first_contact": rng.random() < 0.8}),
            ("survey.customer", agent, {"satisfaction": rng.choice(["satisfied", "neutral"])}),
            ("survey.cross_department", agent, {"rating": rng.choice(["excellent", "fair"])}),
            ("complaint.upheld", agent, {"complaint_id": key, "severity": rng.choice(["minor", "critical"])}),
        ]  # fmt: skip
        tag, subject, fields = rng.choice(choices)
        self.add(tag, subject, rng.choice((0, 0, 0, 3_600_000)), **fields)


ZONES = {"berlin": "Europe/Berlin", "nome": "America/Nome"}


def lived(
    pack: Pack,
    log: list[Timed],
    partitions: int,
    rng: random.Random,
    restart: Callable[[], bool] = lambda: False,
) -> dict[str, dict[str, bytes]]:
    out = run_all(
        (pack,), log, partitions, rng, lambda: rng.choice((1, 7, 60)), restart, Zones("Asia/Shanghai", ZONES)
    )
    decoders: dict[str, Any] = {"grades": GRADE_DECODER, "decisions": DECISION_DECODER}
    return {topic: {decoders[topic].decode(raw).id: raw for raw in _in_order(out[topic], decoders[topic])}
            for topic in decoders}  # fmt: skip


def replayed(pack: Pack, log: list[Timed], partitions: int) -> dict[str, dict[str, bytes]]:
    """What ``kaohe replay`` says about the log."""
    replay = Replay((pack,), zones=Zones("Asia/Shanghai", ZONES), partitions=partitions)
    for _, what in log:
        if isinstance(what, int):
            replay.tick(what)
            continue
        replay.feed(what)
    replay.finish()
    found = {"grades": (replay.grades, GRADE_DECODER), "decisions": (replay.decisions, DECISION_DECODER)}
    return {topic: {decoder.decode(raw).id: raw for raw in _in_order(raws, decoder)}  # type: ignore[attr-defined]
            for topic, (raws, decoder) in found.items()}  # fmt: skip


def _in_order(raws: list[bytes], decoder: Any) -> list[bytes]:
    """By revision, final ones last: partitions and the company's stage say theirs in no common order."""
    return sorted(raws, key=lambda raw: (decoder.decode(raw).status == "final", decoder.decode(raw).revision))


@pytest.mark.parametrize("turn", range(2))
def test_grades_are_the_same_over_partitions_and_restarts_at_any_place(pack: Pack, turn: int) -> None:
    rng = random.Random(f"{seed()}-{turn}")
    log = Life(rng).log
    one = lived(pack, log, 1, rng)
    assert lived(pack, log, 1, rng, lambda: rng.random() < 0.08) == one
    assert lived(pack, log, 2, rng) == one
    assert lived(pack, log, 4, rng, lambda: rng.random() < 0.04) == one
    assert replayed(pack, log, 1) == replayed(pack, log, 4) == one
    grades = [GRADE_DECODER.decode(raw) for raw in one["grades"].values()]
    months = [grade for grade in grades if grade.window == "month" and grade.level == "agent"]
    assert {grade.status for grade in months} == {"final"}
    assert len(months) >= 9 * 4
    consistent(months, [DECISION_DECODER.decode(raw) for raw in one["decisions"].values()])


def test_the_company_is_looked_at_in_one_of_several_group_partitions(pack: Pack) -> None:
    rng = random.Random(seed())
    log, zones = Life(rng, months=2).log, Zones("Asia/Shanghai", ZONES)
    reports: list[list[Record]] = [[], [], []]
    raws: list[bytes] = []
    for index, records in enumerate(records_of(log, 2)):
        out, _ = run_engine(
            lambda index=index: PartitionEngine(  # type: ignore[misc]
                (pack,), zones=zones, partition=index, group_partitions=3
            ),
            records,
        )
        raws += [one.value for one in out if one.topic == "grades"]
        for one in out:
            if one.topic == "partials":
                assert one.partition is not None
                reports[one.partition].append(Record(0, one.value, None, 0))
    said = []
    for target in range(3):
        group = GroupEngine((pack,), zones=zones, partition=target, source_partitions=2)
        said.append([one.value for one in group.apply(reports[target]) if one.topic == "grades"])
    assert [target for target, own in enumerate(said) if own] == [group_partition("company", "company", 3)]
    found = _in_order([*raws, *(raw for own in said for raw in own)], GRADE_DECODER)
    assert {GRADE_DECODER.decode(raw).id: raw for raw in found} == lived(pack, log, 1, rng)["grades"]


def consistent(months: list[Grade], decisions: list[Decision]) -> None:
    """What must hold of any month: the quota, the sums, and both views of a result."""
    bands = {"excellent": 90, "good": 75, "qualified": 60, "to_improve": 0}
    for period in {grade.period for grade in months}:
        own = [grade for grade in months if grade.period == period]
        best = [grade for grade in own if grade.grade == "excellent"]
        assert len(best) <= len(own) // 2
        assert len({detail_of(grade).department for grade in best}) == len(best)
    for grade in months:
        above = [limit for limit in bands.values() if limit > bands[grade.grade]]
        assert bands[grade.grade] <= Fraction(grade.score) < min(above, default=101)
        charged = [one for one in decisions if one.subject == grade.subject and one.period == grade.period]
        entries = {one.id for one in charged if one.points != "0" and one.level == "agent"}
        assert set(grade.entries) == entries


def test_a_company_keeps_a_bound_on_what_it_remembers(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "MAX_MARKED", 2)
    story = Story(pack)
    for agent in ("a-1", "a-2", "a-3"):
        enrol(story, agent=agent, department=agent)
    months_of(story, ["2026-02"], {"a-1": [5000], "a-2": [5000], "a-3": [5000]})
    assert len(story.replay.group.company.marks) == 2
    assert story.replay.group.company.count == 0
    changed = story.replay.group.checkpoint()
    assert sum(key.startswith("m\x1f") and raw is not None for key, raw in changed.items()) == 2
    proposed = msgspec.structs.replace(PROPOSED, grade=newest(story))
    monkeypatch.setattr(company, "MAX_WAITING", 1)
    fresh = company.Company((pack,), ["Asia/Shanghai"])
    fresh.take([proposed])
    with pytest.raises(StateError, match="1 results wait for the rest of the company"):
        fresh.take([proposed])


PROPOSED = Proposal(
    grade=None, caps=[], ruled=False, hired_on="", previous="", pulls=[], rests=[]  # type: ignore[arg-type]
)  # fmt: skip


def test_what_somebody_says_is_told_although_the_score_stays_where_a_cap_holds_it(pack: Pack) -> None:
    story = Story(pack)
    enrol(story)
    assess(story, "2026-02-03T09:00", "superior", "s-1", score=1000)
    decide(story, "2026-02-03T10:00", score=6000)
    before = newest(story)
    assess(story, "2026-02-03T11:00", "peer", "a-2", score=100)
    after = newest(story)
    assert (after.score, after.grade, after.revision) == (before.score, before.grade, before.revision + 1)
    assert [one.role for one in line_of(after, "attitude").said] == ["peer", "superior"]
    # The same words again tell nothing new.
    assess(story, "2026-02-03T12:00", "peer", "a-2", score=100)
    assert newest(story).revision == after.revision
