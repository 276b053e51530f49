"""Scorecards of items in a pack: the stories of one that uses everything, and every kind of mistake in it."""

# ruff: noqa: E501 - the texts of packs and what is said about them stand in one line

from __future__ import annotations

import re
import shutil
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from kaohe.core.model import Pack, Tally
from kaohe.decisions import Grade, Words
from kaohe.errors import PackError
from kaohe.packs.load import check_pack, check_together, load_pack, read_pack
from kaohe.packs.story import load_stories, run_story
from tests.support.packs import Story, make_pack

SCORED = Path(__file__).parent / "scored"
PACK = load_pack(SCORED)
STORIES = load_stories(PACK)


def test_the_pack_is_right() -> None:
    loaded, problems = read_pack(SCORED)
    assert loaded is not None
    assert (problems.errors, problems.warnings) == ([], [])


@pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.clause}-{story.name}")
def test_a_story_comes_as_told(story: object) -> None:
    result = run_story(PACK, story)  # type: ignore[arg-type]
    assert result.failures == ()


def changed(folder: Path, changes: dict[str, tuple[str, str]]) -> list[str]:
    """What is said about the pack with some texts replaced, without the folder."""
    pack = folder / "scored"
    shutil.copytree(SCORED, pack)
    for file, (old, new) in changes.items():
        text = (pack / file).read_text(encoding="utf-8")
        assert old in text
        (pack / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    return [str(error).replace(f"{pack}/", "").partition("): ")[2] for error in check_pack(pack)]


WEIGHTS = "2026-01-01: {quality: 0.4, efficiency: 0.25, satisfaction: 0.2, teamwork: 0.15}, 2026-07-01"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("parameters.yaml", WEIGHTS, WEIGHTS.replace("0.15", "0.2"),
         "on 2026-01-01 the weights sum to 105%; change them by -5% to sum to 100%"),
        ("parameters.yaml", WEIGHTS, WEIGHTS.replace("0.4", "0.46").replace("0.25", "0.19"),
         "on 2026-01-01 the core dimension 'quality' weighs 46%; keep it from 35% to 45%"),
        ("parameters.yaml", WEIGHTS, WEIGHTS.replace(", teamwork: 0.15", ""),
         "on 2026-01-01 there is no weight for 'teamwork'; add a line for it"),
        ("parameters.yaml", WEIGHTS, WEIGHTS.replace("teamwork", "spirit"),
         "on 2026-01-01 there is no weight for 'teamwork'; add a line for it"),
        ("scorecard.yaml", "weights: p.weights\nstandard: p.standard\nband: p.band\n", "",
         "4 dimensions have no weights; add `weights: p.weights`"),
        ("scorecard.yaml", "band: p.band\n", "",
         "core dimensions, their standard weights and their band go together; write `core: true`, `standard:` and `band:`, or none of them"),
        ("scorecard.yaml", "metric: first_contact", "metric: first_contacts",
         "'first_contacts' is not a known metric; did you mean 'first_contact'?"),
        ("scorecard.yaml", "straight: {none_at: p.first_none, full_at: p.first_full}\n", "at_least: p.contacts\n",
         "a metric needs one scale; add `straight: {none_at, full_at}` or `graded: {limits, shares}`"),
        ("scorecard.yaml", "full_at: p.first_full", "full_at: p.first_none",
         "on 2026-01-01 the scale begins and ends at 0.6; let the two differ"),
        ("scorecard.yaml", "none_at: p.first_none", "none_at: p.error_points",
         "p.error_points is in points; name a parameter in ratio"),
        ("scorecard.yaml", "better: lower", "better: slower", "'slower' is not a known direction; did you mean 'lower'?"),
        ("parameters.yaml", "{fast: 1, slow: 0.5, late: 0}", "{fast: 1, slow: 0.5, later: 0}",
         "on 2026-01-01 'late' stands in one of limits and shares only; give both tables the same words"),
        ("parameters.yaml", "unit: ratio, min: 0, max: 1, values: {2026-01-01: {fast: 1",
         "unit: ratio, min: 0, max: 2, values: {2026-01-01: {fast: 1.5",
         "on 2026-01-01 the share of 'fast' is 1.5; write shares from 0 to 1"),
        ("scorecard.yaml", "metric: handling\n", "metric: handling\n        entries: [sc-praise]\n",
         "the item has 2 sources (metric, entries); give it one of metric, entries, assessed, evaluated, periods"),
        ("scorecard.yaml", "        evaluated: quality.evaluated\n", "",
         "the item says not where its points come from; give it one of metric, entries, assessed, evaluated, periods"),
        ("scorecard.yaml", "evaluated: quality.evaluated", "evaluated: flow.audited",
         "'flow.audited' is not a known event type with a score and an assessor; write one of quality.evaluated"),
        ("scorecard.yaml", "entries: [sc-error]", "entries: [sc-errors]",
         "there is no rule 'sc-errors'; did you mean 'sc-error'?"),
        ("scorecard.yaml", "entries: [sc-error]", "entries: [sc-major]",
         "the rule sc-major gives no points to an agent; name rules that give points to each agent in a month"),
        ("scorecard.yaml", "        metric: handling\n        graded: {limits: p.handling_limits, shares: p.handling_shares, better: lower}\n",
         "        entries: [sc-error]\n",
         "the entries of sc-error would count twice; name the rule in one item; the first is in line 51"),
        ("scorecard.yaml", "        entries: [sc-error]\n", "        entries: [sc-error]\n        straight: {none_at: p.low, full_at: p.high}\n",
         "only a metric needs a scale; leave it out"),
        ("scorecard.yaml", "required: [superior]", "required: [boss]",
         "'boss' is not a known role; write one of department, leader, peer, self, superior"),
        ("scorecard.yaml", "roles: p.roles, words: p.words, required: [superior]", "roles: p.team_roles, required: [superior]",
         "on 2026-01-01 'superior' has no weight; name roles that are heard"),
        ("parameters.yaml", "{self: 0.2, peer: 0.2, superior: 0.4, leader: 0.2}", "{self: 0.2, peer: 0.2, superior: 0.4}",
         "on 2026-01-01 the roles' weights sum to 80%; let them sum to 100%"),
        ("parameters.yaml", "{peer: 0.5, department: 0.5}", "{peers: 0.5, department: 0.5}",
         "there is no role 'peers' for an agent; did you mean 'peer'?"),
        ("parameters.yaml", "unit: points, min: 1, max: 100, values: {2026-01-01: 10}", "unit: points, min: 0, max: 100, values: {2026-01-01: 10}",
         "p.most may be 0 (min 0); an item is worth something: set `min: 1`"),
        ("parameters.yaml", "unit: points, min: 1, max: 100, values: {2026-01-01: 70}", "unit: points, min: 1, max: 200, values: {2026-01-01: 70}",
         "p.work may be above 100; points of items go up to 100: set `max: 100`"),
        ("scorecard.yaml", "      accuracy:\n", "      attitude:\n",
         "two items of the card are named 'attitude'; rename one; the first is in line 26"),
        ("scorecard.yaml", "periods: quarter", "periods: year", "a year holds no whole year; name a shorter period"),
        ("scorecard.yaml", "periods: quarter", "periods: week",
         "there is no scorecard for each agent and week above; add one, and put it first"),
        ("scorecard.yaml", "most: p.work, assessed: {roles: p.department_roles}", "most: p.work, evaluated: quality.evaluated",
         "a department has no evaluated of its own; let people assess it, or use `periods`"),
        ("scorecard.yaml", "    window: year\n", "    window: quarter\n",
         "a quarter holds no whole quarter; name a shorter period"),
        ("scorecard.yaml", "step: 0.01", "step: 0", "0 is no step of a score; write 0.01, 0.1, 0.5 or 1"),
        ("scorecard.yaml", "  to_improve: {en: To improve, zh: 待改进}\n", "", "the words of the grades lacks 'to_improve'; add `to_improve:`"),
        ("scorecard.yaml", "  grade: excellent\n", "  grade: good\n", "'good' is not a known best grade; write one of excellent"),
        ("scorecard.yaml", "[score, dimension:quality, previous", "[dimension:quality, score, previous",
         "the score does not come first; begin the list with `score`"),
        ("scorecard.yaml", "dimension:quality", "dimension:speed", "'dimension:speed' is not a known tie-break; did you mean 'dimension:efficiency'?"),
        ("scorecard.yaml", "share: p.quota_share", "share: p.error_points", "p.error_points is in points; name a parameter in ratio"),
        ("scorecard.yaml", "share: p.quota_share", "after_told: forget\n  share: p.quota_share",
         "'forget' is not a known way to go on; write one of keep, redo"),
        ("scorecard.yaml", "grades: [to_improve], reaches: p.first", "grades: [E], reaches: p.first",
         "'E' is not a known grade; write one of excellent, good, qualified, to_improve"),
        ("scorecard.yaml", "id: sc-probation", "id: sc-observation", "the id 'sc-observation' is used twice; choose another"),
        ("scorecard.yaml", "proposal: probation", "proposal: party", "'party' is not a known proposal; did you mean "),
        ("scorecard.yaml", "window: year, grades", "window: week, grades",
         "there is no scorecard for each agent and week; name a card's window"),
        ("scorecard.yaml", "  window: quarter\n  best", "  window: year\n  best",
         "there is no scorecard for each department and year; add one to `further`"),
        ("scorecard.yaml", "roles: [superior, evaluated]", "roles: [boss]",
         "'boss' is not a known role; write one of department, evaluated, leader, peer, self, superior"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_scorecard_is_told_with_its_remedy(
    file: str, old: str, new: str, said: str, tmp_path: Path
) -> None:
    told = changed(tmp_path, {file: (old, new)})
    assert told
    assert told[0].startswith(said), told


def two_packs(folder: Path, clauses_apart: bool, more: str = "") -> tuple[Pack, Pack]:
    """A pack of points and one of attendance, whose scores are combined by the first."""
    kpi = make_pack(
        folder, name="kpi", parameters=FIGURES + SHARES, rules=ERROR, scorecard=CARD + COMBINED + more
    )
    attendance = make_pack(
        folder, name="attendance", parameters=FIGURES, rules=LATE, scorecard=CARD
    )  # fmt: skip
    if clauses_apart:
        rules = tuple(msgspec.structs.replace(rule, clause="CK-02") for rule in attendance.rules)
        attendance = msgspec.structs.replace(attendance, rules=rules)
    return kpi, attendance


FIGURES = """
base:
  unit: points
  min: 0
  max: 100
  values: {2026-01-01: 80}
low:
  unit: points
  min: 0
  max: 100
  values: {2026-01-01: 0}
high:
  unit: points
  min: 0
  max: 100
  values: {2026-01-01: 100}
bands:
  unit: points
  min: 0
  max: 100
  values: {2026-01-01: {A: 75, B: 0}}
points:
  unit: points
  min: 0
  max: 20
  values: {2026-01-01: 10}
"""
SHARES = """
shares:
  unit: ratio
  min: 0
  max: 1
  values: {2026-01-01: {kpi: 0.7, attendance: 0.3}}
once:
  unit: count
  min: 1
  max: 9
  values: {2026-01-01: 1}
all:
  unit: ratio
  min: 0
  max: 1
  values: {2026-01-01: 1}
"""
ERROR = """
- id: error
  level: [agent]
  on: error.recorded
  when: "true"
  then: [deduct: {points: p.points}]
"""
LATE = ERROR.replace("id: error", "id: late").replace("error.recorded", "complaint.upheld")
CARD = """
window: month
level: agent
base: p.base
lowest: p.low
highest: p.high
bands: p.bands
formula: {en: Base and entries., zh: 基础分加各项。}
"""
COMBINED = """
combined:
  clause: CK-01
  shares: p.shares
  bands: p.bands
  formula: {en: Seven tenths and three tenths., zh: 七三开。}
"""
QUOTA = """
quota:
  clause: CK-01
  grade: A
  share: p.all
  per_department: p.once
  tie_break: [score, seniority]
  formula: {en: One in each., zh: 每部门一人。}
"""


def test_the_scores_of_several_packs_make_one(tmp_path: Path) -> None:
    story = Story(*two_packs(tmp_path, clauses_apart=True))
    story.tell("2026-02-02T09:00", "error.recorded", error_id="x")
    story.tell("2026-02-03T09:00", "complaint.upheld", complaint_id="k")
    story.tell("2026-02-04T09:00", "complaint.upheld", complaint_id="l")
    story.tick("2026-03-04T00:00")
    story.replay.finish()
    newest = {one.pack: one for one in story.replay.grade_list()}
    assert {name: (one.score, one.grade, one.status) for name, one in newest.items()} == {
        "kpi": ("70", "B", "final"), "attendance": ("60", "B", "final"), "kpi+": ("67", "B", "final"),
    }  # fmt: skip
    both = newest["kpi+"]
    assert both.formula == "0.3 * 60 + 0.7 * 70 = 67"
    assert sorted(both.entries) == sorted([newest["kpi"].id, newest["attendance"].id])
    first = next(one for one in story.replay.grade_list() if one.pack == "kpi+")
    assert (first.score, first.status) == ("70", "provisional")


def test_one_clause_is_charged_by_one_of_the_combined_packs_only(tmp_path: Path) -> None:
    (told,) = check_together(two_packs(tmp_path, clauses_apart=False))
    assert "attendance and kpi" in str(told) or "kpi and attendance" in str(told)
    assert "nothing is charged twice for one clause" in str(told)
    assert check_together(two_packs(tmp_path / "apart", clauses_apart=True)) == []


def told_by(folder: Path, more: str, attendance_rules: str = LATE) -> list[str]:
    """What is said about the two packs, loaded together, with more lines in the combined score."""
    kpi = make_pack(
        folder, name="kpi", parameters=FIGURES + SHARES, rules=ERROR, scorecard=CARD + COMBINED + more
    )
    attendance = make_pack(
        folder, name="attendance", parameters=FIGURES, rules=attendance_rules, scorecard=CARD
    )
    rules = tuple(msgspec.structs.replace(rule, clause="CK-02") for rule in attendance.rules)
    return [str(one) for one in check_together((kpi, msgspec.structs.replace(attendance, rules=rules)))]


ONCE = """
  once:
    - title: {en: Errors, zh: 差错}
      charged_by: [kpi, attendance]
      what: {kpi: [error], attendance: [late]}
      why: {en: They are one and the same., zh: 同一事项。}
"""
APART = """
  apart:
    - what: {kpi: [error], attendance: [late]}
      why: {en: They are two things., zh: 两回事。}
"""


def agreeing(pack: Pack) -> Pack:
    """The pack with scores that follow a grade which the quota takes away."""
    assert pack.scorecard is not None
    card = msgspec.structs.replace(pack.scorecard, agree=True, step=Fraction(1, 10))
    return msgspec.structs.replace(pack, scorecard=card)


def test_what_another_pack_charges_is_left_out_of_the_combined_score_alone(tmp_path: Path) -> None:
    kpi, attendance = two_packs(tmp_path, clauses_apart=True, more=ONCE)
    story = Story(kpi, attendance)
    story.tell("2026-02-03T09:00", "complaint.upheld", complaint_id="k")
    story.tick("2026-02-10T00:00")
    story.replay.finish()
    newest = {one.pack: one for one in story.replay.grade_list()}
    assert {name: one.score for name, one in newest.items()} == {"attendance": "70", "kpi+": "70"}
    story.tell("2026-02-12T09:00", "error.recorded", error_id="x")
    story.tick("2026-03-04T00:00")
    story.replay.finish()
    newest = {one.pack: one for one in story.replay.grade_list()}
    assert {name: (one.score, one.status) for name, one in newest.items()} == {
        "kpi": ("70", "final"), "attendance": ("70", "final"), "kpi+": ("73", "final"),
    }  # fmt: skip
    assert newest["kpi+"].formula == "0.3 * 80 + 0.7 * 70 = 73"
    assert newest["kpi+"].detail is not None
    assert [note.en for note in newest["kpi+"].detail.notes] == [
        "Errors: charged by kpi, so late of attendance is left out"
    ]


def test_a_score_that_the_quota_moves_is_combined_afterwards_over_one_partition_and_over_many(
    tmp_path: Path,
) -> None:
    kpi, attendance = two_packs(tmp_path, clauses_apart=True, more=ONCE + QUOTA)
    packs = (agreeing(kpi), attendance)
    found = []
    for partitions in (1, 3):
        story = Story(*packs, partitions=partitions)
        for agent, hired in (("a-1", "2020-01-01"), ("a-2", "2019-01-01")):
            story.tell("2026-02-01T09:00", "roster.changed", agent, department="east", hired_on=hired)
        for moment in ("2026-03-04T00:00", "2026-03-04T00:05", "2026-03-04T00:10"):
            story.tick(moment)
        story.replay.finish()
        of_both = [one for one in story.replay.grade_list() if one.pack == "kpi+" and one.status == "final"]
        found.append(sorted((one.subject, one.score, one.grade, one.formula) for one in of_both))
        revisions = [(one.subject, one.revision) for one in story.replay.grade_list() if one.pack == "kpi+"]
        assert len(set(revisions)) == len(revisions)
    assert found[0] == found[1] == [
        ("a-1", "76.43", "A", "0.3 * 80 + 0.7 * 74.9 = 76.43"), ("a-2", "80", "A", "0.3 * 80 + 0.7 * 80 = 80"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("instead_of", "written", "said"),
    [
        ("[kpi, attendance]", "[kpi]", "attendance has no place in the order; name it there as well"),
        ("[kpi, attendance]", "[kpi, attendance, desk]", "desk is to charge, and nothing of it is named"),
        ("kpi", "kpis", "kpis has no share; did you mean 'kpi'?"),
        ("attendance", "absence", "absence has no share"),
        (
            "{kpi: [error], attendance: [late]}",
            "{kpi: [error]}",
            "what two or more packs look at is named by pack",
        ),
    ],
)
def test_a_mistake_in_what_is_charged_once_is_told(
    instead_of: str, written: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(PackError, match=re.escape(said)):
        told_by(tmp_path, ONCE.replace(instead_of, written))


def test_what_is_left_out_must_be_there_and_must_not_move_later(tmp_path: Path) -> None:
    assert told_by(tmp_path, ONCE) == []
    (strange,) = told_by(tmp_path / "b", ONCE.replace("[late]", "[latest]"))
    assert "attendance has neither a rule nor an item 'latest'" in strange
    turned = ONCE.replace("[kpi, attendance]", "[attendance, kpi]")
    kpi, attendance = two_packs(tmp_path / "c", clauses_apart=True, more=turned + QUOTA)
    (late,) = check_together((agreeing(kpi), attendance))
    assert "the company's stage may still move the scores of kpi, of which something is left out" in str(late)
    (undeclared,) = told_by(tmp_path / "d", "", ERROR.replace("id: error", "id: late"))
    assert "late of attendance and error of kpi both look at error.recorded" in undeclared
    assert told_by(tmp_path / "e", ONCE, ERROR.replace("id: error", "id: late")) == []
    assert told_by(tmp_path / "f", APART, ERROR.replace("id: error", "id: late")) == []
    both = told_by(tmp_path / "h", ONCE + APART, ERROR.replace("id: error", "id: late"))
    assert "error of kpi and late of attendance are charged once and apart" in both[0]
    needless = told_by(tmp_path / "g", APART)
    assert ["looks at nothing that the others look at; take it out" in one for one in needless] == [
        True,
        True,
    ]


def test_what_is_left_out_moves_the_combined_score_though_the_own_one_is_held(tmp_path: Path) -> None:
    kpi, _ = two_packs(tmp_path, clauses_apart=True, more=ONCE)
    other = ERROR.replace("id: error", "id: other").replace("error.recorded", "record.audited")
    attendance = make_pack(
        tmp_path / "b", name="attendance", parameters=FIGURES, rules=LATE + other, scorecard=CARD
    )
    story = Story(kpi, attendance)
    story.tell("2026-02-02T09:00", "error.recorded", error_id="x")
    for number in range(2):
        story.tell(f"2026-02-03T09:0{number}", "complaint.upheld", complaint_id=f"k-{number}")
    for number in range(6):
        story.tell(
            f"2026-02-04T09:0{number}",
            "record.audited",
            record_id=f"a-{number}",
            fields_checked=1,
            fields_right=0,
        )
    own, both = newest_of(story, "attendance"), newest_of(story, "kpi+")
    assert (own.score, both.formula) == ("0", "0.3 * 20 + 0.7 * 70 = 55")
    story.tell("2026-02-05T09:00", "record.audited", record_id="b", fields_checked=1, fields_right=0)
    assert newest_of(story, "attendance") == own, "its lowest score holds it"
    assert newest_of(story, "kpi+").formula == "0.3 * 10 + 0.7 * 70 = 52"


def newest_of(story: Story, pack: str) -> Grade:
    story.replay.finish()
    return [one for one in story.replay.grade_list() if one.pack == pack][-1]


def test_a_card_of_entries_has_results_too(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, name="kpi", parameters=FIGURES + SHARES, rules=ERROR, scorecard=CARD + QUOTA)
    tally = Tally(
        id="poor", clause="CK-01", title=Words("Poor", "差"), explanation=Words("", ""), window="month", level="agent",
        grades=("B",), reaches="once", within="ever", or_more=False, proposal="observation", owner="head",
    )  # fmt: skip
    pack = msgspec.structs.replace(pack, results=msgspec.structs.replace(pack.results, tallies=(tally,)))
    story = Story(pack, partitions=2)
    for agent, hired in (("a-1", "2020-01-01"), ("a-2", "2019-01-01"), ("a-3", "2021-01-01")):
        story.tell("2026-02-01T09:00", "roster.changed", agent, department="east", hired_on=hired)
    story.tell("2026-02-02T09:00", "error.recorded", "a-3", error_id="x")
    story.tick("2026-03-04T00:00")
    story.tick("2026-03-04T00:05")
    story.replay.finish()
    final = {one.subject: one for one in story.replay.grade_list() if one.status == "final"}
    assert {name: (one.score, one.grade) for name, one in final.items()} == {
        "a-1": ("80", "B"), "a-2": ("80", "A"), "a-3": ("70", "B"),
    }  # fmt: skip
    assert (
        "A by the score, B by the quota (CK-01): rank 2 of 2 for 3 places among 3 people"
        in final["a-1"].explanation.en
    )
    made = [one for one in story.replay.decision_list() if one.kind == "proposal"]
    assert [(one.rule, one.subject) for one in made] == [("poor", "a-1"), ("poor", "a-3")]


YEAR = """
further:
  - clause: CK-01
    window: year
    level: agent
    lowest: p.low
    highest: p.high
    bands: p.bands
    formula: {en: The mean of the months., zh: 月均分。}
    dimensions:
      months:
        clause: CK-01
        title: {en: The months, zh: 各月}
        items:
          months: {clause: CK-01, title: {en: Mean of the months, zh: 月均分}, most: p.most, periods: month}
"""
MOST = """
most:
  unit: points
  min: 1
  max: 100
  values: {2026-01-01: 10}
"""


def test_months_of_entries_make_a_year(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, name="kpi", parameters=FIGURES + MOST, rules=ERROR, scorecard=CARD + YEAR)
    story = Story(pack)
    story.tell("2026-11-02T09:00", "error.recorded", error_id="x")
    story.tick("2026-12-04T00:00")
    story.tell("2026-12-05T09:00", "error.recorded", error_id="y")
    story.tell("2026-12-05T10:00", "error.recorded", error_id="z")
    story.tick("2027-01-04T00:00")
    assert story.grades() == [
        ("2026", "65", "B", "final"), ("2026-11", "70", "B", "final"), ("2026-12", "60", "B", "final"),
    ]  # fmt: skip


def test_a_rule_that_counts_in_an_item_is_left_out_by_its_item(tmp_path: Path) -> None:
    kpi, _ = two_packs(tmp_path, clauses_apart=True, more=ONCE)
    (card,) = [one for one in PACK.cards if (one.level, one.window) == ("agent", "month")]
    item = next(one for part in card.dimensions for one in part.items if one.rules)
    combined = kpi.results.combined
    assert combined is not None
    once = msgspec.structs.replace(
        combined.once[0], charged_by=(kpi.name, PACK.name), what={PACK.name: (item.rules[0],)}
    )
    results = msgspec.structs.replace(
        kpi.results, combined=msgspec.structs.replace(combined, once=(once,), window="month")
    )
    told = " ".join(str(one) for one in check_together((msgspec.structs.replace(kpi, results=results), PACK)))
    assert f"the rule {item.rules[0]} counts in the item {item.name} of {PACK.name}; name {item.name}" in told
