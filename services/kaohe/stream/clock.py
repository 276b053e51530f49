"""The clock service: time enters the log here, and nowhere else.

Theory of operation. Rules never read a clock; windows, deadlines and period ends move by ``clock.tick`` events. This
service writes one tick for each whole second of wall time into *every* partition of ``kaohe.events``, so that a
partition without events still sees its deadlines pass. When it was held up it does not write the seconds it missed:
one tick says as much as sixty. A tick's id is its second, so two clocks at once, or a clock that was started again,
write duplicates that the engines ignore.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from kaohe.errors import BrokerError
from kaohe.events import ClockTick, encode, make
from kaohe.settings import Settings
from kaohe.stream.topics import BOOTSTRAP_TIMEOUT_MS, EVENTS, broker_away, client_config, verify_topics

TICK_TYPE = "clock.tick"
CLOCK_SOURCE = "kaohe.clock"
CLOCK_SUBJECT = "clock"
CLOCK_KEY = CLOCK_SUBJECT.encode()

# How long a tick may take to be acknowledged before the clock gives up.
DELIVERY_TIMEOUT_S = 60.0


def tick(at: datetime) -> bytes:
    """The encoded tick of the whole second ``at`` lies in. Equal seconds give equal bytes."""
    assert at.tzinfo is not None, "a tick is a moment, not a wall reading"
    second = int(at.timestamp())
    moment = datetime.fromtimestamp(second, UTC)
    return encode(
        make(
            TICK_TYPE,
            id=f"tick-{second}",
            source=CLOCK_SOURCE,
            subject=CLOCK_SUBJECT,
            time=moment,
            data=ClockTick(),
        )
    )


def make_producer(settings: Settings, **options: Any) -> Any:
    """A kafka-python producer that waits for all replicas. Raises BrokerError when no broker answers."""
    try:
        return KafkaProducer(
            acks="all", bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS, **options, **client_config(settings)
        )
    except (KafkaError, OSError) as exc:
        raise broker_away(settings, exc) from None


def run_clock(
    settings: Settings,
    stop: threading.Event,
    now: Callable[[], float] = time.time,
    on_tick: Callable[[], None] | None = None,
) -> int:
    """Write ticks until ``stop`` is set; how many seconds were ticked. ``now`` gives Unix seconds.

    Raises BrokerError when the broker is away, a topic is missing, or a tick cannot be written.
    """
    partitions = verify_topics(settings)[EVENTS]
    producer = make_producer(settings, linger_ms=0)
    ticked = 0
    last_second = -1
    try:
        while not stop.is_set():
            second = int(now())
            if second > last_second:
                _write(settings, producer, partitions, datetime.fromtimestamp(second, UTC))
                last_second = second
                ticked += 1
                if on_tick is not None:
                    on_tick()
            stop.wait(max(0.001, last_second + 1 - now()))
    finally:
        producer.close(timeout=5)
    return ticked


def _write(settings: Settings, producer: Any, partitions: int, at: datetime) -> None:
    value = tick(at)
    try:
        sent = [producer.send(EVENTS, key=CLOCK_KEY, value=value, partition=p) for p in range(partitions)]
        for future in sent:
            future.get(timeout=DELIVERY_TIMEOUT_S)
    except KafkaError as exc:
        raise BrokerError(
            f"The broker at {settings.broker} did not take the tick of {at:%H:%M:%S}: {exc}."
        ) from None
