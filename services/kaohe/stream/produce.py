"""Writes recorded or simulated events into ``kaohe.events``, as a live source would.

Theory of operation. The order of a recording is kept within each partition: there is one producer, with one request in
flight for each partition. A request repeated because its answer was lost may double events; the engines ignore an event
they have seen, by its source and id (the embedded broker knows no idempotent producers).

An event goes to the partition of its subject, by the same hash as every Kafka client uses; a tick goes to every
partition, between the same events as in the recording, so that each engine sees the time pass as ``replay`` does. With
``speed`` the log's own time paces the writing; without it the broker does. Records carry the time of their arrival, not
the event's, for retention counts from it. How much is in flight is bounded (sender.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from kaohe.errors import BrokerError, UsageError
from kaohe.settings import Settings
from kaohe.stream.clock import CLOCK_KEY, tick
from kaohe.stream.sender import PRODUCER_BATCH_BYTES, OutputSender, aiokafka_config, partition_of
from kaohe.stream.topics import EVENTS, broker_away, verify_topics

# After so many entries the writer looks whether the broker keeps up.
STEP = 500
SETTLE_TIMEOUT_S = 120.0
# Shorter waits than this are saved up: a sleep costs more than it is worth.
SHORTEST_WAIT_S = 0.01


class Entry(NamedTuple):
    """One thing to write. ``at`` is its time in the log, and paces the writing.

    An event has its ``subject`` as key, and goes to the partition of that or, as an activation does, ``everywhere``. A
    tick has an empty ``subject`` and goes to every partition. ``topic`` is another one than ``kaohe.events`` for what
    an adapter rejected.
    """

    value: bytes
    subject: str
    at: datetime | None = None
    topic: str = EVENTS
    everywhere: bool = False


class Produced(NamedTuple):
    """What was written: events (and rejects) once each, ticks as records, over all partitions."""

    events: int
    tick_records: int


def tick_entry(at: datetime) -> Entry:
    """The tick of a second of the log, for every partition."""
    return Entry(tick(at), "", at)


def produce(
    settings: Settings,
    entries: Iterable[Entry],
    speed: float | None = None,
    on_progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Produced:
    """Write all entries, and return when the broker has acknowledged every one of them.

    ``speed`` 1 is as fast as it happened, 60 a minute a second, None as fast as it goes. ``on_progress`` is called
    with the number of events written so far, now and then. When ``stop`` says so, what was written so far is all.
    Raises BrokerError when the broker is away, a topic is missing, or a record is not taken; UsageError for a speed
    that is not positive.
    """
    if speed is not None and not speed > 0:
        raise UsageError(f"The speed {speed} is not possible; give a number above 0, for instance 60.")
    counts = verify_topics(settings)
    return asyncio.run(_produce(settings, counts, entries, _Pace(speed), on_progress, stop or _never))


def _never() -> bool:
    return False


async def _produce(
    settings: Settings,
    counts: dict[str, int],
    entries: Iterable[Entry],
    pace: _Pace,
    on_progress: Callable[[int], None] | None,
    stop: Callable[[], bool],
) -> Produced:
    writing = _Writing(settings, counts)
    await writing.start()
    try:
        for number, entry in enumerate(entries):
            if number % STEP == 0:
                if stop():
                    break
                await writing.breathe()
                if on_progress is not None:
                    on_progress(writing.events)
            if entry.at is not None and (wait_s := pace.wait_s(entry.at)) >= SHORTEST_WAIT_S:
                await _sleep(wait_s, stop)
            writing.write(entry)
        await writing.settle()
    finally:
        await writing.end()
    if on_progress is not None:
        on_progress(writing.events)
    return Produced(writing.events, writing.tick_records)


async def _sleep(wait_s: float, stop: Callable[[], bool]) -> None:
    """Sleep in short pieces, so that a stop is not overslept."""
    until_s = time.monotonic() + wait_s
    while not stop() and (left_s := until_s - time.monotonic()) > 0:  # noqa: ASYNC110 - a stop may come from a signal
        await asyncio.sleep(min(left_s, 0.2))


class _Writing:
    """Writes entries, and turns what goes wrong into one sentence."""

    def __init__(self, settings: Settings, counts: dict[str, int]) -> None:
        self.events = 0
        self.tick_records = 0
        self._settings = settings
        self._counts = counts
        self._failure: BaseException | None = None
        self._sender = OutputSender(counts, self._keep)
        self._producer: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._producer = AIOKafkaProducer(
            acks="all",
            max_batch_size=PRODUCER_BATCH_BYTES,
            **aiokafka_config(self._settings),
        )
        try:
            await self._producer.start()
        except (KafkaError, OSError) as exc:
            await self._producer.stop()
            raise broker_away(self._settings, exc) from None
        self._sender.connect(self._producer)
        self._task = asyncio.create_task(self._sender.run())

    def write(self, entry: Entry) -> None:
        partitions = self._counts[entry.topic]
        if entry.subject:
            key = entry.subject.encode("utf-8")
            targets = range(partitions) if entry.everywhere else (partition_of(key, partitions),)
            for partition in targets:
                self._sender.add_record(entry.topic, partition, key, entry.value)
            self.events += 1
        else:
            for partition in range(partitions):
                self._sender.add_record(entry.topic, partition, CLOCK_KEY, entry.value)
            self.tick_records += partitions

    async def breathe(self) -> None:
        """Let the sender work, and wait while it is behind."""
        await asyncio.sleep(0)
        await self._sender.ebb()
        self._raise_failure()

    async def settle(self) -> None:
        """Wait until everything written is acknowledged."""
        try:
            await asyncio.wait_for(self._sender.acknowledged(), SETTLE_TIMEOUT_S)
        except (KafkaError, TimeoutError) as exc:
            self._keep(exc)
        self._raise_failure()

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._producer.stop()

    def _keep(self, exc: BaseException) -> None:
        if self._failure is None:
            self._failure = exc

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise BrokerError(
                f"The broker at {self._settings.broker} did not take every event "
                f"({type(self._failure).__name__}: {self._failure}); about {self.events} were written."
            ) from None


class _Pace:
    """How long to wait so that the log's time passes ``speed`` times as fast as the wall's."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._log_start: datetime | None = None
        self._wall_start_s = 0.0

    def wait_s(self, at: datetime) -> float:
        """Seconds until an entry of this time is due; not positive when it is late already."""
        if self._speed is None:
            return 0.0
        if self._log_start is None:
            self._log_start, self._wall_start_s = at, time.monotonic()
        due_s = self._wall_start_s + (at - self._log_start).total_seconds() / self._speed
        return due_s - time.monotonic()
