"""The packs that Kaohe ships: they load, every story comes as told, and every clause is covered."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaohe.core.model import Pack
from kaohe.packs.load import NEEDED_CASES, Loaded, loaded_packs, pack_names
from kaohe.packs.story import Story, load_stories, run_story
from kaohe.packs.trace import needed_cases, trace
from tests.packs.patching import MINIMAL

RULES = Path(__file__).parents[2] / "rules"
LOADED = loaded_packs([], RULES)
TOLD = [(one.pack, story) for one in LOADED for story in load_stories(one.pack)]


def _story_id(story: Story) -> str:
    return f"{story.clause}-{story.name}"


@pytest.mark.parametrize(("pack", "story"), TOLD, ids=[_story_id(story) for _, story in TOLD])
def test_a_story_comes_as_told(pack: Pack, story: Story) -> None:
    result = run_story(pack, story)
    assert result.passed, "\n".join([story.place, *result.failures])


@pytest.mark.parametrize("loaded", LOADED, ids=pack_names(RULES))
def test_every_clause_is_covered(loaded: Loaded) -> None:
    assert trace(loaded, load_stories(loaded.pack)).gaps == []


@pytest.mark.parametrize("loaded", LOADED, ids=pack_names(RULES))
def test_a_pack_charges_nobody_twice(loaded: Loaded) -> None:
    assert [str(warning) for warning in loaded.warnings] == []


def test_the_clauses_of_the_policies_are_there() -> None:
    clauses = {loaded.pack.name: set(loaded.pack.clauses) for loaded in LOADED}
    assert "CK-18" in clauses["contact-centre"]
    assert {f"FD-{number:02}" for number in (1, 2, 3, 5, 6, 7, 14)} <= clauses["front-desk"]
    assert {f"LS-{number:02}" for number in range(1, 10)} <= clauses["logistics-service"]
    assert {f"RD-{number:02}" for number in range(1, 15)} == clauses["reception"]
    assert {f"CK-{number:02}" for number in range(1, 21)} | {"ALL-02"} == clauses["company-kpi"]


def test_a_clause_needs_every_case_that_has_a_meaning_for_it() -> None:
    loaded = loaded_packs(["logistics-service"], RULES)[0]
    clauses, coverage = loaded.pack.clauses, loaded.coverage
    assert needed_cases(clauses["LS-01"], coverage["LS-01"]) == NEEDED_CASES
    assert clauses["LS-11"].without.keys() == {"appealed"}
    assert needed_cases(clauses["LS-11"], coverage["LS-11"]) == NEEDED_CASES[:-1]


def test_the_trace_names_what_is_missing() -> None:
    loaded = loaded_packs([str(MINIMAL)], RULES)[0]
    found = trace(loaded, load_stories(loaded.pack))
    assert found.gaps == [
        "MI-01: no story shows holds, at_limit, beyond, steps, no_data, late, corrected, appealed",
        "MI-01: no story shows the rule mi-wait doing anything",
        "MI-01: no story shows the rule mi-wait-live doing anything",
        "MI-02: no story shows holds, at_limit, steps, no_data, late, corrected, appealed",
        "MI-02: no story shows the rule mi-late doing anything",
        "MI-03: no story shows holds, at_limit, beyond, steps, no_data, late, corrected, appealed",
    ]
