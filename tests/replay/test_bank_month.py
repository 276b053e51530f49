"""A month of a real call centre: every published figure comes out exactly, through the adapter and the pack."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kaohe.adapters import ADAPTERS, Pseudonyms, SourceItem, read_files
from kaohe.adapters.log_clock import log_ticks
from kaohe.core.replay import Replay
from kaohe.decisions import MetricValue
from kaohe.packs.load import load_packs
from tests.support.need import absent
from tests.support.packs import SHANGHAI

pytestmark = pytest.mark.slow
MONTH = "1999-02"
FIGURES = {
    "offered": "offered",
    "answered": "answered",
    "abandoned": "abandoned",
    "voice_unit_abandoned": "voice_unit_abandoned",
    "abandonment_rate": "abandonment_rate",
    "average_speed_of_answer_s": "average_speed_of_answer_s",
    "service_level_20s": "service_level",
    "average_talk_time_s": "average_talk_time_s",
    "handled": "handled",
}
"""The published name of a figure, and the metric of the pack."""
Values = dict[tuple[str, str, str], MetricValue]


def shared_data() -> Path:
    named = os.environ.get("KAOHE_TEST_SHARED_DATA") or os.environ.get("KAOHE_SHARED_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    path = shared_data() / f"anonymous-bank-{MONTH}.expected.json"
    if not path.is_file():
        absent(
            f"needs the bank's month and its figures in {path.parent} (KAOHE_TEST_SHARED_DATA names another)"
        )
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def replay(expected: dict[str, Any], repository: Path) -> Replay:
    found = Replay(load_packs(["contact-centre"], repository / "rules"))
    source = shared_data() / f"anonymous-bank-{MONTH}.tsv"
    for _, what in log_ticks(read_files([source], ADAPTERS["anonymous-bank"], SHANGHAI, Pseudonyms())):
        if not isinstance(what, SourceItem):
            found.tick(what)
        elif what.event is not None:
            found.feed(what.event, line=what.line, raw=what.raw)
        else:
            found.reject(what.reject_code, what.reject_reason, what.line, what.raw)
    found.finish()
    return found


@pytest.fixture(scope="module")
def values(replay: Replay) -> Values:
    return {
        (one.metric, one.level, one.subject): one
        for one in replay.metrics()
        if (one.window, one.period) == ("month", MONTH)
    }


def differences(values: Values, level: str, subject: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Figures that are not as published. Published quotients are rounded to six places, counts are exact."""
    found: dict[str, Any] = {}
    for name, wanted in figures.items():
        one = values.get((FIGURES[name], level, subject))
        value = None if one is None else one.value
        if value is None or (value != wanted if isinstance(wanted, int) else round(value, 6) != wanted):
            found[f"{level} {subject} {name}"] = (wanted, value)
    return found


def test_the_whole_centre_is_as_published(expected: dict[str, Any], values: Values) -> None:
    assert differences(values, "site", "all", expected["all"]) == {}
    assert len(expected["all"]) == 8


def test_every_queue_is_as_published(expected: dict[str, Any], values: Values) -> None:
    found: dict[str, Any] = {}
    for queue, figures in expected["queues"].items():
        found |= differences(values, "queue", queue, figures)
    assert found == {}
    assert len(expected["queues"]) > 4


def test_every_agent_is_as_published(expected: dict[str, Any], values: Values) -> None:
    found: dict[str, Any] = {}
    for agent, figures in expected["agents"].items():
        found |= differences(values, "agent", agent, figures)
    assert found == {}
    assert len(expected["agents"]) > 10


def test_nobody_is_there_whom_nobody_published(expected: dict[str, Any], values: Values) -> None:
    handled = {subject for metric, level, subject in values if metric == "handled" and level == "agent"}
    assert handled == set(expected["agents"])
    queues = {subject for metric, level, subject in values if metric == "offered" and level == "queue"}
    assert queues == set(expected["queues"])


def test_exactly_the_unusable_rows_are_refused(expected: dict[str, Any], replay: Replay) -> None:
    assert [reject.offset for reject in replay.rejects] == expected["rejected_rows"]
