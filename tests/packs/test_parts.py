"""``kaohe rules explain`` for what is no rule: every part of every pack can be asked for by its name."""

from __future__ import annotations

import json

import pytest

from kaohe.packs.load import load_pack, pack_names
from kaohe.packs.parts import part_data, part_lines, parts_of
from tests.support.commands import RULES, kaohe


@pytest.mark.parametrize("name", pack_names(RULES))
def test_every_part_of_a_pack_has_a_clause_and_says_something(name: str) -> None:
    pack = load_pack(RULES / name)
    parts = parts_of(pack)
    for part in parts:
        assert part.clause in pack.clauses, (part.kind, part.name)
        assert part.title.en
        assert part.title.zh
        assert part.says or part.parameters, (part.kind, part.name)
        for language in ("en", "zh"):
            text = "\n".join(part_lines(part, language))
            assert part.name in text
            assert all(f"p.{one.name} (" in text for one in part.parameters)
        json.dumps(part_data(part))
    shown = {parameter.name for part in parts for parameter in part.parameters}
    assert shown == set(pack.parameters)
    kinds = {part.kind for part in parts}
    wanted = {
        "scorecard": pack.scorecard, "pay": pack.pay, "attendance": pack.attendance, "appeals": pack.appeals,
        "workflow": pack.workflow, "step": pack.workflow, "quota": pack.results.quota,
        "tally": pack.results.tallies or None, "calibration": pack.results.calibration,
        "ranking": pack.results.ranking, "combined": pack.results.combined, "item": pack.cards or None,
    }  # fmt: skip
    assert {kind for kind, one in wanted.items() if one is not None} == kinds & set(wanted)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ck-observation", "p.observed_at (CK-07"),
        ("pay", "p.pay_share (CK-02"),
        ("quota", "p.quota_share (CK-05"),
        ("completion", "p.completion_most"),
        ("appeals", "p.appeal_"),
        ("workflow", "p.escalation_days (CK-10"),
        ("attendance", "calendar: china"),
        ("CK-12", "CK-12  clause:"),
    ],
)
def test_a_part_is_explained_by_its_name(name: str, says: str) -> None:
    found = kaohe("rules", "explain", name, "--pack", "company-kpi")
    assert found.exit_code == 0, found.stderr
    assert says in found.stdout
    data = json.loads(kaohe("rules", "explain", name, "--pack", "company-kpi", "--json").stdout)
    assert (data["name"], data["pack"]) == (name, "company-kpi")


def test_a_name_that_several_packs_have_is_explained_for_each() -> None:
    several = json.loads(kaohe("rules", "explain", "attendance", "--json").stdout)
    terms = [one["pack"] for one in several if one["kind"] == "attendance"]
    assert terms == sorted({"company-kpi", "full-attendance", "reception"} | set(terms))
    assert {one["pack"] for one in several if one["kind"] == "item"} == {"reception"}


def test_a_name_that_there_is_not_is_one_sentence() -> None:
    found = kaohe("rules", "explain", "ck-observaton")
    assert found.exit_code == 2
    assert "no pack has a rule or part 'ck-observaton'; did you mean 'ck-observation'?" in found.stderr
