"""A shadow in earnest: beside two workers of which some die, and never in the ledger."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from kaohe.core.shadow import ShadowReplay
from kaohe.decisions import ALERT_DECODER, DECISION_DECODER, GRADE_DECODER
from kaohe.events import ClockTick, decode
from kaohe.packs.load import load_pack, load_packs, rules_dir
from kaohe.settings import Settings
from kaohe.stream.topics import EVENTS
from tests.support.e2e import PACKS, Feeder, Outcome, Story, check_ledger, make_story, outcome, running_system
from tests.support.workers import reading, wait_until, with_group

PACK = "logistics-service"


@pytest.fixture(scope="module")
def story() -> Story:
    return make_story(2, 8)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version in which some things cost more."""
    folder = tmp_path_factory.mktemp("drafts") / PACK
    shutil.copytree(rules_dir() / PACK, folder)
    for file, old, new in (
        ("pack.yaml", 'version: "1.0"', 'version: "1.1"'),
        ("parameters.yaml", "{A: 95, B: 85, C: 70, D: 0}", "{A: 99, B: 90, C: 80, D: 0}"),
        ("parameters.yaml", "{excellent: 3, good: 1, fair: 0, poor: -2}", "{excellent: 2, good: 0, fair: 0, poor: -4}"),
    ):  # fmt: skip
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text, old
        (folder / file).write_text(
            text.replace(old, new, 1), encoding="utf-8"
        )  # the month's bands come first
    return folder


def shadow_of(story: Story, draft: Path) -> Outcome:
    """What a replay of the story says as the shadow."""
    replay = ShadowReplay(load_packs(list(PACKS), rules_dir()), [load_pack(draft)])
    for entry in story.entries:
        if entry.topic == EVENTS:
            event = decode(entry.value)
            if isinstance(event.data, ClockTick):
                replay.tick(event.time)
            else:
                replay.feed(event)
    replay.finish()
    return outcome(replay.decisions, replay.alerts, replay.grades, [])


def in_topics(settings: Settings, *, shadow: bool) -> Outcome:
    """Everything that was said by shadows, or by the packs in force; what was sent again counts once."""
    found: list[dict[bytes, None]] = []
    for topic, decoder in (
        ("kaohe.decisions", DECISION_DECODER), ("kaohe.alerts", ALERT_DECODER), ("kaohe.grades", GRADE_DECODER),
    ):  # fmt: skip
        with reading(settings, topic) as reader:
            values = [one.value or b"" for one in reader.poll_to_end()]
        found.append({raw: None for raw in values if decoder.decode(raw).shadow is shadow})
    decisions, alerts, grades = (list(one) for one in found)
    return outcome(decisions, alerts, grades, [])


@pytest.mark.slow
def test_a_shadow_says_the_same_through_crashes_and_the_ledger_knows_nothing_of_it(
    settings: Settings, story: Story, draft: Path, tmp_path: Path
) -> None:
    ready = with_group(
        settings, database_url=f"sqlite:///{tmp_path / 'ledger.db'}", shadow_packs=(str(draft),),
        fetch_records_max=500, checkpoint_interval_s=1.0,
    )  # fmt: skip
    with running_system(ready, tmp_path) as system:
        feeder = Feeder(ready, story)
        try:
            feeder.allow(Fraction(1, 2))
            wait_until(lambda: system.safe_events() > 500, 60.0, "something in a checkpoint")
            system.kill_worker(0)
            feeder.allow(Fraction(1))
            feeder.join(120.0)
        finally:
            feeder.stop()
        system.settled()
        assert system.stop() == [0, 0, 0]
        assert "logistics-service@1.1 as a shadow" in system.pair[1].said()
    check_ledger(ready.database_url, story.wanted)
    wanted = shadow_of(story, draft)
    assert len(wanted.decisions) > 20
    assert {one.pack_version for one in wanted.decisions.values()} == {"1.1"}
    found = in_topics(ready, shadow=True)
    assert found.decisions == wanted.decisions
    assert found.grades == wanted.grades
    assert found.alerts == wanted.alerts
    assert in_topics(ready, shadow=False).decisions == story.wanted.decisions
