"""The topics: made once, checked before a worker starts."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from kaohe.errors import BrokerError
from kaohe.settings import Settings
from kaohe.stream.broker import free_port
from kaohe.stream.topics import create_topics, topic_specs, verify_topics
from tests.support.workers import with_group, workers


def test_creating_again_changes_nothing_and_says_what_exists(settings: Settings) -> None:
    states = create_topics(settings)
    assert [state.name for state in states] == [spec.name for spec in topic_specs(settings)]
    assert not any(state.created for state in states)
    assert all(state.partitions == 4 for state in states)


def test_every_topic_has_its_partitions(settings: Settings) -> None:
    assert verify_topics(settings) == {spec.name: 4 for spec in topic_specs(settings)}


def test_a_missing_topic_is_named_with_what_to_do(settings: Settings) -> None:
    stranger = with_group(settings, group_id="kaohe-stranger")
    with pytest.raises(BrokerError) as caught:
        verify_topics(stranger)
    assert str(caught.value) == (
        f"The broker at {settings.broker} lacks the topics kaohe-stranger.state, kaohe-stranger.group-state; "
        "run 'kaohe topics create' first."
    )


def test_other_partition_counts_than_configured_are_refused(settings: Settings) -> None:
    with pytest.raises(BrokerError, match=re.escape("kaohe.events has 4 partitions but 'partitions' is 8")):
        verify_topics(with_group(settings, partitions=8))


def test_a_changelog_must_have_as_many_partitions_as_its_source(settings: Settings) -> None:
    odd = with_group(settings, group_id="kaohe-odd")
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=settings.broker)) as admin:
        names = {odd.state_topic: 3, odd.group_state_topic: 4}
        for name, partitions in names.items():
            admin.create_topics({name: {"num_partitions": partitions, "replication_factor": 1}})
        admin.wait_for_topics(list(names))
        try:
            with pytest.raises(BrokerError) as caught:
                verify_topics(odd)
        finally:
            admin.delete_topics(list(names))
    assert "kaohe.events has 4 partitions but its changelog kaohe-odd.state has 3" in str(caught.value)


def test_a_worker_refuses_to_start_without_its_topics(settings: Settings, tmp_path: Path) -> None:
    with workers(tmp_path) as start:
        worker = start(with_group(settings, group_id="kaohe-stranger"))
        assert worker.wait(30) == 1
        said = worker.said().strip().splitlines()
    assert len(said) == 1
    assert said[0].endswith("run 'kaohe topics create' first.")


def test_a_broker_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    away = Settings(broker=f"127.0.0.1:{free_port()}")
    with workers(tmp_path) as start:
        worker = start(away)
        assert worker.wait(30) == 1
        said = worker.said().strip().splitlines()
    assert said[-1].startswith(f"No broker answers at {away.broker} (")
    assert "Traceback" not in worker.said()
