"""Workers on a broker: exact results through stops, kills, rebalances and recoveries."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaAdminClient, TopicPartition
from kafka.structs import OffsetAndMetadata

from kaohe.settings import Settings
from kaohe.stream.checkpoints import MARKER_KEY
from kaohe.stream.produce import Entry, produce
from kaohe.stream.sender import partition_of
from kaohe.stream.topics import EVENTS, STATE_RECORD_BYTES_MAX
from tests.support.fake_worker import FORGET
from tests.support.workers import (
    Expected,
    Reader,
    WorkerProcess,
    check_decisions,
    expected,
    reading,
    wait_until,
    with_group,
    workers,
)

START = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)
SUBJECTS = [f"a-{number}" for number in range(40)]
DONE_TIMEOUT_S = 60.0

StartWorker = Callable[[Settings], WorkerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartWorker]:
    with workers(tmp_path) as starter:
        yield starter


def write(settings: Settings, values: list[tuple[str, bytes]]) -> None:
    produce(settings, [Entry(value, subject, START) for subject, value in values])


def some_events(count: int, seed: int = 1) -> list[tuple[str, bytes]]:
    chooser = random.Random(seed)
    return [(chooser.choice(SUBJECTS), b"x") for _ in range(count)]


def decided(reader: Reader) -> int:
    return len({json.loads(found.value or b"")["id"] for found in reader.poll()})


def wait_for_decisions(reader: Reader, count: int, *running: WorkerProcess) -> None:
    def all_there() -> bool:
        for worker in running:
            assert worker.running, worker.said()
        return decided(reader) >= count

    wait_until(all_there, DONE_TIMEOUT_S, f"{count} decisions")


def wait_for_total(settings: Settings, total: int) -> None:
    """The group stage has added up what every partition reported."""
    with reading(settings, "kaohe.grades") as reader:
        wait_until(
            lambda: max((int(found.value or b"0") for found in reader.poll()), default=0) == total,
            DONE_TIMEOUT_S,
            f"the groups' total of {total}",
        )


def wait_for_commit(settings: Settings, wanted: Expected) -> None:
    """Every event is inside a checkpoint."""
    with reading(settings, EVENTS) as reader:
        ends = {found.partition: found.offset + 1 for found in sorted(reader.poll_to_end())}
    assert sum(ends.values()) >= len(wanted.decisions)
    with reading(settings, settings.state_topic) as reader:
        wait_until(
            lambda: {partition: markers(reader.poll()).get(partition) for partition in ends} == ends,
            DONE_TIMEOUT_S,
            "the last checkpoint",
        )


def markers(found: list[Any]) -> dict[int, int]:
    """The last committed source offset of each partition."""
    return {
        record.partition: int.from_bytes(record.value[4:12], "big")
        for record in sorted(found)
        if record.key == MARKER_KEY
    }


def committed_offsets(settings: Settings) -> dict[int, int]:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=settings.broker)) as admin:
        listed = admin.list_group_offsets(settings.group_id)[settings.group_id]
    return {tp.partition: found.offset for tp, found in listed.items() if tp.topic == EVENTS}


def test_a_worker_stopped_and_started_again_goes_on_without_doubling(
    settings: Settings, start: StartWorker
) -> None:
    write(settings, some_events(3_000, seed=1))
    with reading(settings, "kaohe.decisions") as reader:
        first = start(settings)
        wait_for_decisions(reader, 3_000, first)
        assert first.stop() == 0
        wait_for_commit(settings, expected(settings))
        with reading(settings, settings.state_topic) as states:
            assert committed_offsets(settings) == markers(states.poll_to_end())
        write(settings, some_events(2_000, seed=2))
        second = start(settings)
        wait_for_decisions(reader, 5_000, second)
        wanted = expected(settings)
        assert check_decisions(reader.poll_to_end(), wanted) == 0
        wait_for_total(settings, wanted.total)
        assert second.stop() == 0


@pytest.mark.kafka
def test_the_checkpoint_decides_where_to_go_on_and_not_the_groups_offsets(
    kafka_settings: Settings, start: StartWorker
) -> None:
    settings = kafka_settings
    write(settings, some_events(1_000))
    with reading(settings, "kaohe.decisions") as reader:
        worker = start(settings)
        wait_for_decisions(reader, 1_000, worker)
        assert worker.stop() == 0
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=settings.broker)) as admin:
            back = {TopicPartition(EVENTS, p): OffsetAndMetadata(0, "", -1) for p in range(4)}
            admin.alter_group_offsets(settings.group_id, back)
        write(settings, some_events(500, seed=3))
        again = start(settings)
        wait_for_decisions(reader, 1_500, again)
        assert check_decisions(reader.poll_to_end(), expected(settings)) == 0


@pytest.mark.kafka
def test_deleted_state_stays_deleted_and_its_space_is_given_back(
    kafka_settings: Settings, start: StartWorker
) -> None:
    settings = kafka_settings
    write(settings, some_events(500))
    with reading(settings, "kaohe.decisions") as reader, reading(settings, settings.state_topic) as states:
        first = start(settings)
        wait_for_decisions(reader, 500, first)
        # A key that goes before any checkpoint held it leaves no tombstone.
        wait_for_commit(settings, expected(settings))
        write(settings, [(subject, FORGET) for subject in SUBJECTS[:20]])

        def erased() -> bool:
            last = {(found.partition, found.key): found.value for found in sorted(states.poll())}
            gone = {key[2:].decode() for (_, key), value in last.items() if value is None and key is not None}
            return gone == set(SUBJECTS[:20])

        wait_until(erased, DONE_TIMEOUT_S, "tombstones for twenty subjects")
        first.kill()
        write(settings, [(subject, b"x") for subject in SUBJECTS])
        second = start(settings)
        wait_for_decisions(reader, 540, second)
        wanted = expected(settings)
        check_decisions(reader.poll_to_end(), wanted)
        reborn = [json.loads(value) for value in wanted.decisions.values()]
        assert {d["subject"] for d in reborn if d["count"] == 1} == set(SUBJECTS)


def test_two_workers_killed_at_random_moments_lose_and_double_nothing(
    settings: Settings, start: StartWorker
) -> None:
    seed = int(os.environ.get("KAOHE_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"KAOHE_TEST_SEED={seed}")
    chooser = random.Random(seed)
    events = some_events(24_000, seed)
    stop = threading.Event()

    def feed() -> None:
        for begin in range(0, len(events), 300):
            write(settings, events[begin : begin + 300])
            if stop.wait(0.1):
                return

    feeder = threading.Thread(target=feed)
    with reading(settings, "kaohe.decisions") as reader:
        pair = [start(settings), start(settings)]
        feeder.start()
        try:
            wait_for_decisions(reader, 1, *pair)
            for _ in range(3):
                time.sleep(chooser.uniform(0.1, 2.5))
                victim = chooser.randrange(2)
                pair[victim].kill()
                pair[victim] = start(settings)
                before = decided(reader)
                wait_for_decisions(reader, min(before + 200, len(events)), *pair)
            feeder.join(DONE_TIMEOUT_S)
            wait_for_decisions(reader, len(events), *pair)
        finally:
            stop.set()
            feeder.join(10)
        wanted = expected(settings)
        assert len(wanted.decisions) == len(events)
        check_decisions(reader.poll_to_end(), wanted)
        wait_for_total(settings, wanted.total)
        wait_for_commit(settings, wanted)
        assert [worker.stop() for worker in pair] == [0, 0]


def test_a_worker_that_joins_takes_partitions_and_one_that_leaves_gives_them_back(
    settings: Settings, start: StartWorker
) -> None:
    settings = with_group(settings, checkpoint_interval_s=0.5)
    with reading(settings, "kaohe.decisions") as reader, reading(settings, settings.state_topic) as states:
        write(settings, some_events(400, seed=1))
        first = start(settings)
        wait_for_decisions(reader, 400, first)
        claims = owners(states)
        second = start(settings)
        wait_until(lambda: owners(states) > claims, DONE_TIMEOUT_S, "every partition is claimed anew")
        write(settings, some_events(400, seed=2))
        wait_for_decisions(reader, 800, first, second)
        assert first.stop() == 0
        write(settings, some_events(400, seed=3))
        wait_for_decisions(reader, 1_200, second)
        assert second.stop() == 0
        assert check_decisions(reader.poll_to_end(), expected(settings)) == 0


def owners(states: Reader) -> int:
    """The lowest number of owners that any partition has had."""
    epochs = dict.fromkeys(range(4), 0)
    for found in states.poll():
        if found.key == MARKER_KEY and found.value is not None:
            epochs[found.partition] = max(epochs[found.partition], int.from_bytes(found.value[:4], "big"))
    return min(epochs.values())


@pytest.mark.kafka
def test_what_a_former_owner_writes_late_is_ignored_and_repaired(
    kafka_settings: Settings, start: StartWorker
) -> None:
    settings = kafka_settings
    subject = SUBJECTS[0]
    partition = partition_of(subject.encode(), 4)
    with reading(settings, "kaohe.decisions") as reader, reading(settings, settings.state_topic) as states:
        write(settings, [(subject, b"x")] * 30)
        first = start(settings)
        wait_for_decisions(reader, 30, first)
        wait_until(
            lambda: markers(states.poll()).get(partition) == 30, DONE_TIMEOUT_S, "the checkpoint at 30"
        )
        assert first.stop() == 0
        second = start(settings)
        wait_until(lambda: owners(states) >= 2, DONE_TIMEOUT_S, "the second owner's claim")
        stray = (1).to_bytes(4, "big") + (30).to_bytes(8, "big") + b"\0" + b"999"
        asyncio.run(
            _write_raw(
                settings, partition, [(b"A:" + subject.encode(), stray), (b"B:" + subject.encode(), stray)]
            )
        )
        write(settings, [(subject, b"x")] * 5)
        wait_for_decisions(reader, 35, second)
        write(settings, [(subject, b"x")] * 5)
        wait_for_decisions(reader, 40, second)

        def repaired() -> bool:
            last = {found.key: found.value for found in sorted(states.poll()) if found.partition == partition}
            slots = [last.get(prefix + subject.encode()) or b"" for prefix in (b"A:", b"B:")]
            return any(value[13:] == b"40" for value in slots)

        wait_until(repaired, DONE_TIMEOUT_S, "the state written again")
        second.kill()
        third = start(settings)
        write(settings, [(subject, b"x")] * 5)
        wait_for_decisions(reader, 45, third)
        check_decisions(reader.poll_to_end(), expected(settings))


async def _write_raw(settings: Settings, partition: int, records: list[tuple[bytes, bytes]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.broker, acks="all")
    await producer.start()
    try:
        for key, value in records:
            await producer.send_and_wait(settings.state_topic, key=key, value=value, partition=partition)
    finally:
        await producer.stop()


@pytest.mark.kafka
def test_a_suspended_worker_that_wakes_up_without_its_partitions_does_no_harm(
    kafka_settings: Settings, start: StartWorker
) -> None:
    settings = kafka_settings
    with reading(settings, "kaohe.decisions") as reader:
        write(settings, some_events(500, seed=1))
        first = start(settings)
        wait_for_decisions(reader, 500, first)
        write(settings, some_events(2_000, seed=2))
        first.suspend()
        second = start(settings)
        wait_for_decisions(reader, 2_500, second)
        first.resume()
        write(settings, some_events(500, seed=3))
        wait_for_decisions(reader, 3_000, second)
        check_decisions(reader.poll_to_end(), expected(settings))


@pytest.mark.kafka
def test_a_checkpoint_of_another_log_is_refused(kafka_settings: Settings, start: StartWorker) -> None:
    settings = kafka_settings
    marker = (1).to_bytes(4, "big") + (5_000_000).to_bytes(8, "big") + b"\0"
    asyncio.run(_write_raw(settings, 2, [(MARKER_KEY, marker)]))
    worker = start(settings)
    assert worker.wait(DONE_TIMEOUT_S) == 1
    assert f"The checkpoint in {settings.state_topic} partition 2 stands at offset 5000000" in worker.said()


@pytest.mark.kafka
def test_state_is_recovered_from_a_changelog_that_was_really_compacted(
    kafka_settings: Settings, start: StartWorker
) -> None:
    settings = with_group(kafka_settings, checkpoint_interval_s=0.05)
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=settings.broker)) as admin:
        _compact_eagerly(admin, settings)
    with reading(settings, "kaohe.decisions") as reader:
        worker = start(settings)
        total = 0
        for burst in range(8):
            write(settings, some_events(250, seed=burst))
            total += 250
            wait_for_decisions(reader, total, worker)
            time.sleep(0.3)
        write(settings, [(subject, FORGET) for subject in SUBJECTS[:5]])
        wait_until(lambda: _is_compacted(settings), DONE_TIMEOUT_S, "the broker compacts the changelog")
        worker.kill()
        write(settings, some_events(250, seed=99))
        again = start(settings)
        wait_for_decisions(reader, total + 250, again)
        check_decisions(reader.poll_to_end(), expected(settings))
        assert again.stop() == 0


def _compact_eagerly(admin: Any, settings: Settings) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType

    eager = {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": "0",
        "delete.retention.ms": "0",
        "min.cleanable.dirty.ratio": "0.01",
        "segment.ms": "500",
        "max.message.bytes": str(STATE_RECORD_BYTES_MAX),
    }
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.state_topic, eager)])


def _is_compacted(settings: Settings) -> bool:
    """Whether offsets are missing in every partition, so that records were really removed."""
    with reading(settings, settings.state_topic) as reader:
        found = reader.poll_to_end()
    holes = 0
    for partition in range(settings.partitions):
        offsets = [record.offset for record in found if record.partition == partition]
        holes += bool(offsets) and len(offsets) < max(offsets) + 1
    return holes == settings.partitions
