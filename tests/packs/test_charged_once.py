"""No fact about a person is charged by two of the shipped packs unseen: it is charged once, or excused by a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kaohe.core.model import Combined, Pack
from kaohe.packs.charged_once import looks_at
from kaohe.packs.load import check_together, load_pack

RULES = Path(__file__).resolve().parents[2] / "rules"
PACKS = [load_pack(RULES / folder.parent.name) for folder in sorted(RULES.glob("*/pack.yaml"))]
KPI = next(pack for pack in PACKS if pack.name == "company-kpi")
assert KPI.results.combined is not None
COMBINED: Combined = KPI.results.combined


def told(kpi: Pack, *others: Pack) -> list[str]:
    """What is said about the shipped packs with some of them changed."""
    changed = {pack.name: pack for pack in (kpi, *others)}
    return [str(error) for error in check_together([changed.get(pack.name, pack) for pack in PACKS])]


def declaring(**changes: Any) -> Pack:
    combined = msgspec.structs.replace(COMBINED, **changes)
    return msgspec.structs.replace(KPI, results=msgspec.structs.replace(KPI.results, combined=combined))


def test_everything_that_two_packs_look_at_is_charged_once_or_excused() -> None:
    assert told(KPI) == []
    with_scores = {pack.name for pack in PACKS if pack.cards or pack.scorecard}
    (shares,) = (table for _, table in KPI.parameters[COMBINED.shares].values)
    assert isinstance(shares, dict)
    assert with_scores == shares.keys(), "every pack that scores people is part of the combined score"


@pytest.mark.parametrize("key", ["once", "apart"])
def test_each_declaration_is_needed(key: str) -> None:
    declared = getattr(COMBINED, key)
    for index, one in enumerate(declared):
        rest = declared[:index] + declared[index + 1 :]
        said = told(declaring(**{key: rest}))
        assert said, one
        named = {name for things in one.what.values() for name in things}
        assert all(named & {*error.replace(",", " ").split()} for error in said), said


def test_a_clause_that_is_added_later_cannot_slip_through() -> None:
    """A front desk that also charges for trainings is refused until somebody decides who charges."""
    desk = next(pack for pack in PACKS if pack.name == "front-desk")
    model = next(rule for rule in desk.rules if rule.id == "fd-flow-breach")
    metric = next(metric for metric in desk.metrics.values() if metric.name == "training_completion")
    rule = msgspec.structs.replace(model, id="fd-untrained", on="training.assigned", evidence=metric.evidence)
    said = told(KPI, msgspec.structs.replace(desk, rules=(*desk.rules, rule)))
    assert [one.partition("): ")[2].partition(",")[0] for one in said] == [
        "fd-untrained of front-desk and ls-training-participation of logistics-service both look at training.assigned",
        "fd-untrained of front-desk and participation of reception both look at training.assigned",
    ]


def test_what_a_pack_looks_at_is_found_in_rules_items_rates_and_deadlines() -> None:
    seen = {pack.name: looks_at(pack, "month") for pack in PACKS}
    assert seen["logistics-service"]["ls-error-rate"] == {
        "error.recorded", "call.completed", "ticket.resolved", "task.completed",
    }  # fmt: skip
    assert seen["full-attendance"]["fa-bad-attitude"] == {"complaint.upheld"}
    assert seen["full-attendance"]["fa-late"] == seen["reception"]["attendance"] == {"attendance"}
    assert seen["reception"]["settled"] == {"complaint.logged", "complaint.resolved"}
    assert seen["company-kpi"]["monitored"] == {"quality.evaluated"}
    assert "fa-year-bonus" not in seen["full-attendance"], "the year's bonus is no part of a month's score"
    assert "completion" not in seen["company-kpi"], "what is said of work is said for one pack"
    assert "fd-complaint-reduction" not in seen["front-desk"], "a team's complaints are no person's"


def test_whatever_moves_a_score_rests_on_something() -> None:
    for pack in PACKS:
        for name, facts in looks_at(pack, "month").items():
            assert facts, f"{name} of {pack.name} moves a score and rests on nothing"
