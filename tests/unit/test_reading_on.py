"""Reading on without a hole: what is dropped on the way is read again, whatever comes between a seek and a fetch.

The consumer, its thread and the stage are the worker's; only the Kafka client under them is written by hand, and each
test decides what is fetched, handed over and dropped, and when.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP

from kaohe.core.records import Output, Record
from kaohe.errors import BrokerError
from kaohe.settings import Settings
from kaohe.stream.app import DROPPED_AFTER_S, SEEKS_MAX, KaoheApp, NoObserver, Runner, Stage, _options
from kaohe.stream.topics import EVENTS
from kaohe.stream.transport import Batch, BatchConsumer, BatchConsumerThread

HERE = TP(EVENTS, 0)
THERE = TP(EVENTS, 1)
FETCH_RECORDS = 10
LOG_RECORDS = 30


class Stored(NamedTuple):
    """One record as the client returns it."""

    offset: int
    value: bytes = b"{}"
    key: bytes = b"a"
    timestamp: int = 0
    timestamp_type: int = 0


class Client:
    """A Kafka client with two partitions; fetches as many records as it is told, from where it stands."""

    _closed = False
    _max_poll_records = FETCH_RECORDS

    def __init__(self, offsets: Mapping[TP, list[int]]) -> None:
        self.logs = {tp: [Stored(offset) for offset in found] for tp, found in offsets.items()}
        self.stands = dict.fromkeys(offsets, 0)
        self.sought: list[tuple[TP, int]] = []
        self._fetcher = self
        self._records: dict[TP, Any] = {}
        self._subscriptions = self

    @contextlib.contextmanager
    def fetch_context(self) -> Iterator[None]:
        yield

    async def fetched_records(
        self, active: set[TP], *, max_records: int, **_: float
    ) -> dict[TP, list[Stored]]:
        found = {}
        for tp, log in self.logs.items():
            records = [stored for stored in log if stored.offset >= self.stands[tp]][:max_records]
            if records and tp in active:
                found[tp] = records
                self.stands[tp] = records[-1].offset + 1
        return found

    def seek(self, tp: TP, offset: int) -> None:
        if tp not in self.logs:
            raise IllegalStateError(f"{tp} is not assigned")
        self.stands[tp] = offset
        self.sought.append((tp, offset))

    async def position(self, tp: TP) -> int:
        return self.stands[tp]

    def highwater(self, tp: TP) -> int:
        return self.logs[tp][-1].offset + 1

    def assignment(self) -> set[TP]:
        return set(self.logs)


class DirectThread(BatchConsumerThread):
    """No thread of its own: what it is asked for, it does at once."""

    async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        return await fun(*args, **kwargs)


class Sender:
    """Takes outputs and sends none."""

    def add(self, outputs: list[Output]) -> int:
        return len(outputs)

    async def ebb(self) -> None:
        return


class Engine:
    """Remembers the offsets it was given."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def apply(self, records: list[Record]) -> list[Output]:
        self.seen += [record.offset for record in records]
        return []

    def checkpoint(self) -> dict[str, bytes | None]:
        return {}

    def restore(self, items: Mapping[str, bytes]) -> None:
        assert not items


class Checkpoints:
    """Nothing was ever committed."""

    committed = 0


class Worker:
    """A stage and a consumer as they are in a worker, on a client of the test's."""

    def __init__(self, offsets: Mapping[TP, list[int]]) -> None:
        settings = Settings()
        self.app = KaoheApp("test", broker=["kafka://127.0.0.1:1"], **_options(settings))
        self.app.sender = cast("Any", Sender())
        self.client = Client(offsets)
        self.consumer: BatchConsumer = self.app.reader
        thread = DirectThread(self.consumer, loop=self.consumer.loop, beacon=self.consumer.beacon)
        thread._consumer = cast("Any", self.client)
        self.consumer._thread = self.consumer._batch_thread = thread
        self.consumer._set_active_tps(set(offsets))
        self.stage = Stage("events", EVENTS, self.app, settings, lambda _: Engine(), NoObserver())
        self.app.stages = (self.stage,)
        self.engines = {tp: Engine() for tp in offsets}
        for tp, engine in self.engines.items():
            self.stage.runners[tp.partition] = Runner(tp.partition, engine, cast("Any", Checkpoints()))

    async def fetch(self) -> dict[TP, Batch]:
        """One whole fetch, not handed to the stage yet."""
        return {tp: cast("Batch", message.value) async for tp, message in self.consumer.getmany(0)}

    async def drop(self, fetches: int = 1) -> None:
        """Fetches that no engine ever gets to see, as when a rebalance comes between."""
        for _ in range(fetches):
            assert await self.fetch()

    async def hand(self, batch: Batch) -> None:
        await self.stage._on_batch(batch)

    async def read_to_end(self) -> None:
        for _ in range(20):
            found = await self.fetch()
            if not found:
                return
            for batch in found.values():
                await self.hand(batch)
        pytest.fail("reading never came to an end")


def one_partition(offsets: list[int] | None = None) -> Worker:
    return Worker({HERE: offsets or list(range(LOG_RECORDS))})


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(cast("Any", scenario()))


def test_what_was_dropped_is_asked_for_once_and_what_was_on_its_way_is_dropped_too() -> None:
    async def scenario() -> None:
        worker = one_partition()
        await worker.drop()
        second, third = [(await worker.fetch())[HERE] for _ in range(2)]
        await worker.hand(second)
        await worker.hand(third)
        assert worker.client.sought == [(HERE, 0)]
        await worker.read_to_end()
        assert worker.engines[HERE].seen == list(range(LOG_RECORDS))
        assert worker.client.sought == [(HERE, 0)]

    run(scenario)


def test_a_seek_whose_first_batch_is_lost_is_made_again_and_said(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        worker = one_partition()
        await worker.drop()
        await worker.hand((await worker.fetch())[HERE])
        await worker.drop()
        await worker.hand((await worker.fetch())[HERE])
        assert worker.client.sought == [(HERE, 0), (HERE, 0)]
        await worker.read_to_end()
        assert worker.engines[HERE].seen == list(range(LOG_RECORDS))
        assert worker.stage.runners[0].seeks == 0

    with caplog.at_level(logging.INFO, "kaohe.stream.app"):
        run(scenario)
    said = [(record.levelname, record.message) for record in caplog.records if "again" in record.message]
    reading = "kaohe.events partition 0: reading again from 0 instead of 10"
    assert said == [
        ("INFO", f"{reading} (seek 1 of at most {SEEKS_MAX} in a row)"),
        ("WARNING", f"{reading} (seek 2 of at most {SEEKS_MAX} in a row)"),
    ]


def test_a_partition_that_can_never_be_read_from_where_its_engine_stands_ends_the_worker() -> None:
    async def scenario() -> None:
        worker = one_partition()

        async def always_too_late() -> AsyncIterator[Any]:
            for _ in range(3 * SEEKS_MAX):
                worker.client.stands[HERE] = 0
                await worker.drop()
                yield Event((await worker.fetch())[HERE])

        with pytest.raises(BrokerError, match="partition 0 cannot be read from offset 0: after 10 seeks"):
            await worker.stage.consume(Stream(always_too_late()))
        assert len(worker.client.sought) == SEEKS_MAX
        assert isinstance(worker.app.reason, BrokerError)

    run(scenario)


class Event(NamedTuple):
    """As a Faust stream yields it."""

    value: Batch


class Stream:
    """A Faust stream of the test's events."""

    def __init__(self, found: AsyncIterator[Event]) -> None:
        self._found = found

    def events(self) -> AsyncIterator[Event]:
        return self._found


def test_a_seek_in_a_partition_that_was_taken_back_is_none() -> None:
    async def scenario() -> None:
        worker = one_partition()
        await worker.drop()
        batches = [(await worker.fetch())[HERE] for _ in range(2)]
        del worker.client.logs[HERE]
        for batch in batches * SEEKS_MAX:
            await worker.hand(batch)
        assert worker.client.sought == []
        assert worker.engines[HERE].seen == []

    run(scenario)


def test_a_batch_on_its_way_while_a_seek_is_made_does_not_pass_for_the_first_one_after_it() -> None:
    async def scenario() -> None:
        worker = Worker({HERE: list(range(LOG_RECORDS)), THERE: list(range(LOG_RECORDS))})
        await worker.drop()
        missed = (await worker.fetch())[THERE]
        handing = worker.consumer.getmany(0)
        tp, _ = await anext(handing)
        assert tp == HERE
        await worker.hand(missed)
        assert worker.client.sought == [(THERE, 0)]
        tp, message = await anext(handing)
        assert (tp, cast("Batch", message.value).start) == (THERE, 20)
        await worker.hand(cast("Batch", message.value))
        await worker.read_to_end()
        assert worker.engines[THERE].seen == list(range(LOG_RECORDS))

    run(scenario)


def test_a_fetch_thrown_away_while_the_flow_is_stopped_leaves_no_hole() -> None:
    async def scenario() -> None:
        worker = one_partition()
        await worker.hand((await worker.fetch())[HERE])
        handing = worker.consumer._wait_next_records(0)
        await handing
        await worker.read_to_end()
        assert worker.engines[HERE].seen == list(range(LOG_RECORDS))
        assert worker.client.sought == [(HERE, 10)]

    run(scenario)


def test_the_last_batch_is_read_again_when_nothing_comes_after_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        worker = Worker({HERE: list(range(FETCH_RECORDS)), THERE: list(range(FETCH_RECORDS))})
        batches = await worker.fetch()
        await worker.hand(batches[THERE])
        await worker.stage.look_for_dropped(100.0)
        await worker.stage.look_for_dropped(100.0 + DROPPED_AFTER_S - 1)
        assert worker.client.sought == []
        await worker.stage.look_for_dropped(100.0 + DROPPED_AFTER_S)
        assert worker.client.sought == [(HERE, 0)]
        await worker.read_to_end()
        assert worker.engines[HERE].seen == worker.engines[THERE].seen == list(range(FETCH_RECORDS))
        for late_s in (200.0, 300.0):
            await worker.stage.look_for_dropped(late_s)
        assert worker.client.sought == [(HERE, 0)]

    run(scenario)
    assert "partition 0: reading again from 0, since nothing came of what was fetched up to 10" in caplog.text


def test_an_engine_that_is_slow_is_left_alone_and_one_mistaken_for_stuck_sees_nothing_twice() -> None:
    async def scenario() -> None:
        worker = one_partition()
        batches = [(await worker.fetch())[HERE] for _ in range(3)]
        await worker.stage.look_for_dropped(0.0)
        await worker.hand(batches[0])
        await worker.stage.look_for_dropped(DROPPED_AFTER_S)
        assert worker.client.sought == [], "it went on meanwhile"
        await worker.stage.look_for_dropped(2 * DROPPED_AFTER_S)
        assert worker.client.sought == [(HERE, 10)]
        await worker.hand(batches[1])
        await worker.hand(batches[2])
        await worker.read_to_end()
        assert worker.engines[HERE].seen == list(range(LOG_RECORDS))

    run(scenario)


def test_holes_in_the_log_are_no_missing_records() -> None:
    async def scenario() -> None:
        worker = one_partition([*range(3, 8), *range(12, 20), 25, 27, 29])
        worker.client._max_poll_records = 4
        await worker.consumer.perform_seek()
        await worker.read_to_end()
        assert worker.engines[HERE].seen == [*range(3, 8), *range(12, 20), 25, 27, 29]
        assert worker.client.sought == [(HERE, 0)]

    run(scenario)


def test_what_comes_again_after_a_seek_is_handed_over_although_faust_has_read_further() -> None:
    async def scenario() -> None:
        worker = one_partition()
        fetcher = cast("Any", Fetcher())
        handed: list[int] = []

        async def callback(message: Any) -> None:
            batch = cast("Batch", message.value)
            handed.append(batch.start)
            if len(handed) == 3:
                await worker.consumer.seek_to({HERE: 0})
            if len(handed) == 6:
                fetcher._stopped.set()

        worker.consumer.callback = callback
        await asyncio.wait_for(worker.consumer._drain_messages(fetcher), 10)
        assert handed == [0, 10, 20, 0, 10, 20]

    run(scenario)


class Fetcher:
    """Faust's fetcher, of which only the end is asked for."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()
