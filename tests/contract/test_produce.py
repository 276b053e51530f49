"""What goes into the log: order, partitions, ticks; and plain consumer groups on it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from kaohe.errors import BrokerError, UsageError
from kaohe.events import decode
from kaohe.settings import Settings
from kaohe.stream.broker import free_port
from kaohe.stream.clock import run_clock, tick
from kaohe.stream.produce import Entry, Produced, produce, tick_entry
from kaohe.stream.sender import partition_of
from kaohe.stream.topics import EVENTS
from tests.support.workers import reading, wait_until

START = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)


def test_order_is_kept_within_each_partition_and_ticks_stand_between_the_same_events(
    settings: Settings,
) -> None:
    entries = []
    for number in range(5_000):
        at = START + timedelta(seconds=number // 50)
        if number % 50 == 0:
            entries.append(tick_entry(at))
        entries.append(Entry(b"%d" % number, f"a-{number % 97}", at))
    assert produce(settings, entries) == Produced(5_000, 100 * 4)
    with reading(settings, EVENTS) as reader:
        found = reader.poll_to_end()
    by_partition: dict[int, list[bytes]] = defaultdict(list)
    for record in found:
        assert record.value is not None
        by_partition[record.partition].append(record.value)
    for partition in range(4):
        wanted = [
            entry.value
            for entry in entries
            if not entry.subject or partition_of(entry.subject.encode(), 4) == partition
        ]
        assert by_partition[partition] == wanted


def test_subjects_go_where_every_kafka_client_sends_them(settings: Settings) -> None:
    keys = [b"a-1", "坐席-17".encode(), b"queue:sales", b"x", b"abcdefgh" * 9]
    producer: Any = KafkaProducer(bootstrap_servers=settings.broker)
    try:
        for key in keys:
            sent = producer.send(EVENTS, key=key, value=b"-").get(timeout=20)
            assert sent.partition == partition_of(key, 4)
    finally:
        producer.close(timeout=5)


def test_speed_paces_by_the_time_of_the_log(settings: Settings) -> None:
    entries = [Entry(b"-", "a-1", START + timedelta(seconds=second)) for second in range(11)]
    began = time.monotonic()
    produce(settings, entries, speed=10.0)
    assert time.monotonic() - began >= 1.0


def test_a_speed_of_nothing_is_refused(settings: Settings) -> None:
    with pytest.raises(UsageError, match="give a number above 0"):
        produce(settings, [], speed=0.0)


def test_producing_to_a_broker_that_is_away_is_one_sentence() -> None:
    with pytest.raises(BrokerError, match="No broker answers at"):
        produce(Settings(broker=f"127.0.0.1:{free_port()}"), [])


def test_the_clock_ticks_every_partition_with_the_same_bytes(settings: Settings) -> None:
    stop = threading.Event()
    seconds = iter([1785747600.2, 1785747600.9, 1785747601.1, 1785747600.4, 1785747604.0])

    def now() -> float:
        try:
            return next(seconds)
        except StopIteration:
            stop.set()
            return 1785747604.0

    ticked = run_clock(settings, stop, now)
    wanted = [tick(datetime.fromtimestamp(second, UTC)) for second in (1785747600, 1785747601, 1785747604)]
    assert ticked in (2, 3)
    with reading(settings, EVENTS) as reader:
        found = reader.poll_to_end()
    for partition in range(4):
        values = [record.value for record in found if record.partition == partition]
        assert values == [value for value in wanted if value in values]
        assert len(values) == ticked
    first = decode(wanted[0])
    assert first.time == datetime.fromtimestamp(1785747600, UTC)


def test_a_plain_group_shares_the_partitions_and_goes_on_from_its_commit(settings: Settings) -> None:
    produce(settings, [Entry(b"%d" % number, f"a-{number}", START) for number in range(200)])
    group = f"{settings.group_id}-plain"

    def consumer() -> Any:
        return KafkaConsumer(
            EVENTS,
            bootstrap_servers=settings.broker,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=6_000,
            max_poll_interval_ms=6_000,
            heartbeat_interval_ms=1_500,
        )

    seen: list[bytes] = []
    first = consumer()
    try:

        def took_all() -> bool:
            for fetched in first.poll(timeout_ms=200, max_records=50).values():
                seen.extend(record.value for record in fetched)
                first.commit()
            return len(seen) >= 200

        wait_until(took_all, 40, "the first member reads everything")
    finally:
        first.close()
    assert sorted(seen, key=int) == [b"%d" % number for number in range(200)]
    produce(settings, [Entry(b"later", "a-1", START)])
    second = consumer()
    later: list[bytes] = []
    try:

        def took_later() -> bool:
            for fetched in second.poll(timeout_ms=200).values():
                later.extend(record.value for record in fetched)
            return bool(later)

        wait_until(took_later, 40, "the second member reads what came later")
        assert second.assignment() == {TopicPartition(EVENTS, p) for p in range(4)}
    finally:
        second.close()
    assert later == [b"later"]
