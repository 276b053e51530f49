"""Logs for tests of the core, and ways to drive engines through them: in batches, with restarts, in any order."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import Protocol, TypeVar
from zlib import crc32

from kaohe.adapters.base import SourceItem
from kaohe.adapters.log_clock import log_ticks
from kaohe.adapters.simulator import SOME_FAULTS, Faults, simulate
from kaohe.core.calendars import to_ms
from kaohe.core.engine import PartitionEngine, Zones
from kaohe.core.group import GroupEngine
from kaohe.core.model import Pack
from kaohe.core.records import Output, Record
from kaohe.core.replay import Replay
from kaohe.events import ClockTick, Envelope, encode, make, type_of
from tests.support.packs import moment

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
Timed = tuple[str, int | Envelope]
"""``("tick", ms)`` or ``("event", event)``."""


def seed() -> int:
    """The seed of a random test: that of ``KAOHE_TEST_SEED``, else a new one; it is printed for a repetition.

    In CI it is the same in every run, as the examples of the property tests are.
    """
    given = os.environ.get("KAOHE_TEST_SEED") or ("20260803" if os.environ.get("CI") else "")
    chosen = int(given or random.SystemRandom().randrange(1 << 32))
    print(f"KAOHE_TEST_SEED={chosen}")
    return chosen


def simulated(
    chosen: int, agents: int, days: int, start: date, faults: Faults = SOME_FAULTS, tail_days: int = 0
) -> list[Timed]:
    """A simulated log with the ticks of its clock, and hourly ticks for ``tail_days`` after it."""
    events = simulate(chosen, agents, days, start=start, faults=faults)
    log: list[Timed] = []
    last_ms = 0
    for kind, found in log_ticks(SourceItem(line=i, event=one, raw=b"") for i, one in enumerate(events)):
        if isinstance(found, SourceItem):
            assert found.event is not None
            log.append(("event", found.event))
        else:
            assert kind == "tick"
            last_ms = to_ms(found)
            log.append(("tick", last_ms))
    first_ms = (last_ms // HOUR_MS + 1) * HOUR_MS
    log += [("tick", time_ms) for time_ms in range(first_ms, last_ms + tail_days * DAY_MS, HOUR_MS)]
    return log


def run_replay(packs: tuple[Pack, ...], log: Iterable[Timed]) -> Replay:
    """The whole core over a log."""
    replay = Replay(packs)
    tell(replay, log)
    return replay


def tell(replay: Replay, log: Iterable[Timed]) -> None:
    """A whole log to a replay, up to its end."""
    for _, what in log:
        if isinstance(what, int):
            replay.tick(what)
        else:
            replay.feed(what)
    replay.finish()


def tick_record(time_ms: int) -> bytes:
    """A tick as it stands in a topic."""
    event = make(
        "clock.tick",
        id=f"tick-{time_ms}",
        source="clock",
        subject="clock",
        time=moment(time_ms),
        data=ClockTick(),
    )
    return encode(event)


def records_of(log: Iterable[Timed], partitions: int = 1) -> list[list[Record]]:
    """The records of each partition: every tick, and the events whose subject belongs there."""
    found: list[list[Record]] = [[] for _ in range(partitions)]
    for _, what in log:
        if isinstance(what, int):
            raw, targets = tick_record(what), range(partitions)
        elif type_of(what) == "pack.activated":
            raw, targets = encode(what), range(partitions)
        else:
            raw, own = encode(what), crc32(what.subject.encode()) % partitions
            targets = range(own, own + 1)
        for target in targets:
            found[target].append(Record(len(found[target]), raw, None, 0))
    return found


Stored = dict[str, bytes]
Engine = TypeVar("Engine", PartitionEngine, GroupEngine)


class Storing(Protocol):
    """Anything whose state is stored in checkpoints."""

    def checkpoint(self) -> dict[str, bytes | None]: ...


def save(engine: Storing, stored: Stored) -> dict[str, bytes | None]:
    """Take a checkpoint into ``stored``, as the table of a worker would; what was written."""
    changed = engine.checkpoint()
    for key, raw in changed.items():
        if raw is None:
            stored.pop(key, None)
        else:
            stored[key] = raw
    return changed


def batches(records: Sequence[Record], sizes: Callable[[], int]) -> Iterator[Sequence[Record]]:
    """The records in batches."""
    start = 0
    while start < len(records):
        size = sizes()
        yield records[start : start + size]
        start += size


def run_engine(
    fresh: Callable[[], Engine],
    records: Sequence[Record],
    sizes: Callable[[], int] = lambda: 1000,
    restart: Callable[[], bool] = lambda: False,
    save_often: Callable[[], bool] = lambda: False,
) -> tuple[list[Output], Engine]:
    """Drive an engine through records; at ``restart`` a successor takes over from the checkpoints."""
    engine, stored, out = fresh(), Stored(), []
    for batch in batches(records, sizes):
        out += engine.apply(batch)
        again = restart()
        if again or save_often():
            save(engine, stored)
        if again:
            engine = fresh()
            engine.restore(dict(stored))
    return out, engine


def shuffled_sources(reports: Sequence[Sequence[Output]], rng: random.Random) -> list[Record]:
    """Reports of several partitions in a random order that keeps the order of each partition."""
    left = [list(reversed(one)) for one in reports]
    found: list[Record] = []
    while any(left):
        source = rng.choice([one for one in left if one])
        found.append(Record(len(found), source.pop().value, None, 0))
    return found


def run_all(
    packs: Sequence[Pack],
    log: Iterable[Timed],
    partitions: int,
    rng: random.Random,
    sizes: Callable[[], int] = lambda: 1000,
    restart: Callable[[], bool] = lambda: False,
    own_zones: Zones | None = None,
) -> dict[str, list[bytes]]:
    """Partitions and their group stage; everything that came out, by topic, partitions first."""
    zones = own_zones or Zones(default=packs[0].zone)
    out: list[Output] = []
    reports: list[list[Output]] = []
    for index, records in enumerate(records_of(log, partitions)):
        got, _ = run_engine(
            lambda index=index: PartitionEngine(packs, zones=zones, partition=index),  # type: ignore[misc]
            records, sizes, restart,
        )  # fmt: skip
        reports.append([one for one in got if one.topic == "partials"])
        out += [one for one in got if one.topic != "partials"]
    group, _ = run_engine(
        lambda: GroupEngine(packs, zones=zones, source_partitions=partitions),
        shuffled_sources(reports, rng), sizes, restart,
    )  # fmt: skip
    topics: dict[str, list[bytes]] = {}
    for one in [*out, *group]:
        topics.setdefault(one.topic, []).append(one.value)
    return topics
