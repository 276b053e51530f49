"""The real system gives what a replay of the same log gives: two workers, four partitions, the ledger in SQL."""

from __future__ import annotations

import random
import time
from fractions import Fraction
from pathlib import Path

import pytest

from kaohe.settings import Settings
from kaohe.stream.produce import produce
from kaohe.stream.topics import create_topics
from tests.support.e2e import (
    Feeder,
    Story,
    System,
    check_ledger,
    in_shares,
    make_story,
    rejects_in,
    running_system,
    sent_again,
    wall_clock_seed,
)
from tests.support.kafka import running_embedded
from tests.support.postgres import running_postgres
from tests.support.workers import wait_until, with_group

SEED = 1
AGENTS = 12
KILLS = 3
COARSE = Settings(group_id="kaohe-test-postgres", checkpoint_interval_s=2.0, fetch_records_max=500)
"""Small batches and rare checkpoints, so that a kill leaves something to do again."""
WRITE_TIMEOUT_S = 120.0
PROGRESS_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def story() -> Story:
    return make_story(SEED, AGENTS)


@pytest.fixture
def ready(settings: Settings, tmp_path: Path) -> Settings:
    """The test's own topics, and a ledger of its own."""
    changes = {field: getattr(COARSE, field) for field in ("checkpoint_interval_s", "fetch_records_max")}
    return with_group(settings, database_url=f"sqlite:///{tmp_path / 'ledger.db'}", **changes)


def test_the_story_has_everything_in_it(story: Story) -> None:
    wanted = story.wanted
    newest = {one.id: one for _, one in sorted(wanted.decisions.items())}
    assert {one.level for one in newest.values()} >= {"agent", "team"}
    assert {one.kind for one in newest.values()} >= {"deduct", "award", "task", "adjust"}
    assert {one.status for one in newest.values()} == {"provisional", "final"}
    assert max(one.revision for one in newest.values()) > 3
    assert {one.level for one in wanted.alerts.values()} == {"agent", "queue", "team", "site"}
    assert len(wanted.final_grades()) >= AGENTS
    assert {code for code, _, _ in wanted.rejects} >= {"future", "agent_not_subject"}


def test_engines_that_share_the_log_give_what_one_gives(story: Story) -> None:
    assert in_shares(story, partitions=4, group_partitions=4) == story.wanted


@pytest.mark.slow
def test_two_workers_give_what_a_replay_gives(ready: Settings, story: Story, tmp_path: Path) -> None:
    work(ready, story, tmp_path)


@pytest.mark.slow
@pytest.mark.postgres
def test_the_ledger_in_postgresql_is_the_same(story: Story, tmp_path: Path) -> None:
    with running_postgres() as url, running_embedded() as broker:
        settings = with_group(COARSE, broker=broker, database_url=url)
        create_topics(settings)
        work(settings, story, tmp_path)


def work(settings: Settings, story: Story, folder: Path) -> None:
    """Let two workers catch up with the whole story, and compare what the ledger holds then."""
    written = produce(settings, story.entries)
    assert written.events == story.events
    with running_system(settings, folder) as system:
        system.settled()
        assert system.stop() == [0, 0, 0]
    compare(settings, story)


def compare(settings: Settings, story: Story) -> None:
    """The ledger and the rejects are what the replay gives."""
    check_ledger(settings.database_url, story.wanted)
    assert rejects_in(settings) == story.wanted.rejects
    print(f"{sent_again(settings, story.wanted)} outputs were sent again")


@pytest.mark.slow
def test_two_workers_killed_at_random_moments_give_what_a_replay_gives(
    ready: Settings, story: Story, tmp_path: Path
) -> None:
    chooser = random.Random(wall_clock_seed())
    with running_system(ready, tmp_path) as system:
        feeder = Feeder(ready, story)
        try:
            for kill in range(KILLS):
                # The story goes on while workers die, and is not over before the last of them has.
                feeder.allow(Fraction(kill + 1, KILLS + 1))
                if kill == 0 or chooser.random() < 0.7:  # otherwise the kill falls into a take-over
                    wait_for_more(system)
                time.sleep(chooser.uniform(0.0, 3.0))
                for victim in chooser.choice(((0,), (1,), (0, 1))):
                    system.kill_worker(victim)
                if kill == 1:
                    system.kill_payroll()
            feeder.allow(Fraction(1))
            feeder.join(WRITE_TIMEOUT_S)
        finally:
            feeder.stop()
        system.settled()
        assert system.stop() == [0, 0, 0]
    compare(ready, story)


def wait_for_more(system: System) -> None:
    """The workers have come further than they are now."""
    safe = system.safe_events()
    wait_until(
        lambda: system.safe_events() > safe, PROGRESS_TIMEOUT_S, f"more than {safe} records in a checkpoint"
    )
