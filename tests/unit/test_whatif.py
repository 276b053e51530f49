"""Two outcomes side by side: exact sums, newest revisions, what only one side has."""

from __future__ import annotations

from typing import Any

import pytest

from kaohe.core.model import Pack
from kaohe.decisions import Alert, Decision, Grade, Words
from kaohe.whatif import Comparison, Outcome, SubjectKey, compare
from tests.support.packs import make_pack

PARAMETERS = """
fine:
  unit: points
  min: 0
  max: 20
  values: {2026-01-01: 2}
"""
METRICS = """
answered:
  count: call.answered
  level: [agent]
  windows: [month]
"""
RULES = """
- id: wait
  level: [agent]
  judged: month
  when: answered.month > 3
  then: [{deduct: {points: p.fine}}]
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return make_pack(tmp_path_factory.mktemp("pack"), parameters=PARAMETERS, metrics=METRICS, rules=RULES)


def entry(points: str, *, number: int = 1, subject: str = "a-1", revision: int = 1, **more: Any) -> Decision:
    values: dict[str, Any] = {
        "id": f"d-{number}", "revision": revision, "kind": "deduct", "status": "final", "pack": "small",
        "pack_version": "1.0", "rule": "wait", "clause": "CK-01", "level": "agent", "subject": subject,
        "window": "month", "period": "2026-08", "incident": "", "points": points, "amount_minor": 0,
        "currency": "CNY", "at": "2026-09-04T00:00:00+08:00", "facts": {}, "parameters": {}, "evidence": [],
        "evidence_count": 0, "arithmetic": [], "explanation": Words("", ""),
    }  # fmt: skip
    return Decision(**values | more)


def grade(
    letter: str, score: str, *, subject: str = "a-1", revision: int = 1, period: str = "2026-08"
) -> Grade:
    return Grade(
        id=f"g-{subject}-{period}", revision=revision, status="final", pack="small", pack_version="1.0",
        level="agent", subject=subject, window="month", period=period, score=score, grade=letter,
        previous_grade="", at="2026-09-04T00:00:00+08:00", entries=[], formula="", explanation=Words("", ""),
    )  # fmt: skip


def alert(state: Any, number: int = 1) -> Alert:
    return Alert(
        id=f"w-{number}", state=state, pack="small", pack_version="1.0", rule="wait", clause="CK-01",
        severity="high", level="agent", subject="a-1", incident="", since="", at="", owner="",
        title=Words("", ""), explanation=Words("", ""), response=Words("", ""), facts={}, parameters={},
        evidence=[],
    )  # fmt: skip


def sides(
    pack: Pack, old: list[Decision], new: list[Decision], grades: tuple[list[Grade], list[Grade]] = ([], [])
) -> Comparison:
    return compare(Outcome(pack, old, grades[0], []), Outcome(pack, new, grades[1], []))


def test_the_same_outcome_differs_in_nothing(pack: Pack) -> None:
    one = Outcome(pack, [entry("-4")], [grade("B", "96")], [alert("firing")])
    found = compare(one, one)
    assert (found.summary.subjects, found.summary.differing, found.summary.grade_changes) == (1, 0, {})
    assert not any(line.differs for line in found.subjects)
    assert not any(line.differs for line in found.rules)
    assert not any(line.differs for line in found.lines)
    assert found.subjects[0].money is None


def test_the_newest_revision_counts(pack: Pack) -> None:
    old = [entry("-4"), entry("-6", revision=2)]
    (line,) = sides(pack, old, [entry("-6")]).subjects
    assert (line.points.old, line.points.new, line.differs) == ("-6", "-6", False)


def test_sums_are_exact(pack: Pack) -> None:
    old = [entry("-0.1", number=1), entry("-0.2", number=2)]
    new = [entry("-1/3 (≈ -0.333333)", number=1), entry("-2/3 (≈ -0.666667)", number=2)]
    (line,) = sides(pack, old, new).subjects
    assert (line.points.old, line.points.new, line.points.change) == ("-0.3", "-1", "-0.7")


def test_what_only_one_side_has_stands_against_nothing(pack: Pack) -> None:
    found = sides(
        pack, [entry("-4", subject="b")], [entry("3", subject="a", kind="award")], ([grade("C", "70")], [])
    )
    assert [(one.subject, one.points.old, one.points.new) for one in found.subjects] == [
        ("a", "0", "3"),
        ("a-1", "0", "0"),
        ("b", "-4", "0"),
    ]
    assert found.subjects[1].old_grade == "C"
    assert found.subjects[1].new_grade == ""
    assert found.summary.grade_changes == {"C -> (none)": 1}
    assert (found.summary.gain, found.summary.lose) == (2, 0)
    assert found.summary.points.change == "7"


def test_entries_worth_nothing_are_none_but_tasks_count(pack: Pack) -> None:
    old = [entry("0", number=1), entry("0", number=2, kind="task")]
    (line,) = sides(pack, old, [entry("0", number=1)]).lines
    assert (line.old_entries, line.new_entries, line.differs) == (1, 0, True)


def test_a_rule_is_summed_over_people_and_alerts_are_counted_once(pack: Pack) -> None:
    old = Outcome(
        pack, [entry("-4"), entry("-2", number=2, subject="b")], [], [alert("firing"), alert("resolved")]
    )
    new = Outcome(pack, [entry("-5"), entry("-2", number=2, subject="b")], [], [])
    (total,) = compare(old, new).rules
    assert (total.rule, total.clause, total.title.zh) == ("wait", "CK-01", "规则")
    assert (total.old_entries, total.new_entries, total.subjects) == (2, 2, 1)
    assert (total.points.old, total.points.new) == ("-6", "-7")
    assert (total.old_alerts, total.new_alerts) == (1, 0)


def test_only_wanted_periods_are_compared(pack: Pack) -> None:
    old = Outcome(pack, [entry("-4"), entry("-9", number=2, period="2026-07")], [], [])
    new = Outcome(pack, [entry("-4")], [grade("A", "99", period="2026-07")], [])
    assert compare(old, new, lambda period: period == "2026-08").summary.differing == 0
    assert compare(old, new).summary.differing == 1


def test_money_is_nothing_without_terms_of_pay_and_exact_with_them(pack: Pack) -> None:
    key, other = SubjectKey("agent", "a-1", "month", "2026-08"), SubjectKey("agent", "b", "month", "2026-08")
    old = Outcome(pack, [entry("-4")], [], [], {key: 500_000, other: 1})
    new = Outcome(pack, [entry("-4")], [], [], {key: 498_000})
    found = compare(old, new)
    first, second = found.subjects
    assert first.money is not None
    assert second.money is not None
    assert (first.money.old_minor, first.money.new_minor, first.money.change_minor) == (
        500_000,
        498_000,
        -2_000,
    )
    assert (second.money.old_minor, second.money.new_minor, second.money.change_minor) == (1, None, None)
    assert first.differs
    assert found.summary.money is not None
    assert (found.summary.money.old_minor, found.summary.money.new_minor) == (500_001, 498_000)
    only_new = compare(Outcome(pack, [], [], []), new)
    assert only_new.subjects[0].money is not None
    assert only_new.subjects[0].money.old_minor is None
