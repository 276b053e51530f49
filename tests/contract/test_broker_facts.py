"""What the brokers and their clients really do, where the stream layer depends on it.

When an upgrade changes one of these facts, the test says which part of the stream layer was built on it.
"""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from kaohe.settings import Settings
from kaohe.stream.topics import EVENTS
from tests.support.kafka import running_embedded


def test_a_batch_is_acknowledged_with_the_offset_of_its_first_record(settings: Settings) -> None:
    """A checkpoint's writer counts on it to notice that somebody else writes too."""
    assert asyncio.run(_acknowledged(settings, [3, 1, 5])) == [0, 3, 4]


def test_a_fetch_tells_the_end_of_the_log(settings: Settings) -> None:
    """Lag and the check of a checkpoint's offset count on it."""
    asyncio.run(_acknowledged(settings, [3, 1, 5]))
    assert asyncio.run(_ends(settings))[1] == 9


def test_the_embedded_broker_tells_the_start_of_the_last_batch_for_the_end(
    settings: Settings, kind: str
) -> None:
    """So nothing but a fetch is trusted for the end of a partition; Apache Kafka tells it right."""
    asyncio.run(_acknowledged(settings, [3, 1, 5]))
    assert asyncio.run(_ends(settings))[0] == {"embedded": 5, "kafka": 9}[kind]


def test_the_embedded_broker_knows_no_idempotent_producer_of_aiokafka() -> None:
    """So a repeated request may double records, and engines ignore what they have seen."""

    async def start(bootstrap: str) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
        try:
            await producer.start()
        finally:
            await producer.stop()

    with running_embedded() as bootstrap, pytest.raises(KafkaError):
        asyncio.run(start(bootstrap))


async def _acknowledged(settings: Settings, sizes: list[int]) -> list[int]:
    producer = AIOKafkaProducer(bootstrap_servers=settings.broker, acks="all")
    await producer.start()
    try:
        offsets = []
        for size in sizes:
            batch = producer.create_batch()
            for _ in range(size):
                batch.append(timestamp=None, key=b"k", value=b"v")
            sent = await producer.send_batch(batch, EVENTS, partition=0)
            offsets.append((await sent).offset)
        return offsets
    finally:
        await producer.stop()


async def _ends(settings: Settings) -> tuple[int, int]:
    """The end as a request for it answers, and as a fetch tells it."""
    place = TopicPartition(EVENTS, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.broker, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign([place])
        asked = (await consumer.end_offsets([place]))[place]
        await consumer.getmany(place, timeout_ms=10_000)
        return asked, consumer.highwater(place)
    finally:
        await consumer.stop()
