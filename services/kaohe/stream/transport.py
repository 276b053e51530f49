"""Faust at speed: one Faust message carries a whole fetched batch of a partition.

Theory of operation: Faust spends about a tenth of a millisecond on every message it hands to an agent, whatever the
message is. So the consumer here makes one message of everything a fetch brought for one partition. Faust keeps doing
what it is good at (group membership, assignment, tables, recovery) and pays its price once a batch.

Five things follow from that, and this module is where they are kept right:

* Offsets. Faust derives the offset to commit from acknowledged single offsets and from gaps between them. Here an
  offset becomes committable only through ``BatchConsumer.acknowledge``, which the checkpoint calls when state and
  outputs are safe; that an agent has finished with a message says nothing.
* Gaps. Faust drops messages that were fetched before a rebalance or while the flow was stopped. So each batch says
  at which offset it starts; an engine that stands before that offset has missed something and seeks back, and so does
  one that stands still behind what was fetched: it has missed the last batch, after which none came. What a batch
  says is written down in the consumer's own thread, in the moment in which the records are taken, for only there is
  it certain which seek came before which fetch: a batch that was on its way while a seek was made must not pass for
  the first one after it.
* Positions. After each recovery Faust would seek every source partition to its committed offset. The truth is the
  offset in the checkpoint's marker, so ``perform_seek`` asks the application for it and seeks there. Nor does Faust
  keep account of what was read before: what came again after a seek, it would take for a repetition and drop.
* Records. The client makes an object of eleven fields of each record, of which four are wanted: a tenth of what a
  worker does in catch-up. What was fetched is therefore told to make ``Record`` of it (``_PlainRecords``), and where it
  was not told in time, it is made here.
* A commit that fails, for instance because the group is rebalancing, is no reason to end: the marker already holds
  the position. It is logged and tried again with the next checkpoint.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, cast

import faust
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage, EventT, Message
from mode import get_logger

from kaohe.core.records import Record

logger = get_logger(__name__)

# A broker holds a fetch back so long when none of its partitions has anything new. The client asks each broker for one
# fetch at a time, so for so long no other partition can be fetched either; Faust would let it be 1.5 seconds.
FETCH_WAIT_MAX_MS = 100


class Batch:
    """What one fetch brought for one partition, in offset order. Never empty.

    The value of every event that reaches an agent or a table. ``start`` is where the consumer stood: where the batch
    before it ended, or where the partition was sought to; below the first record's offset where the log has holes,
    never above it. ``seek`` is how many seeks the consumer had made when it took the records.
    """

    __slots__ = ("partition", "records", "seek", "start", "topic")

    def __init__(self, topic: str, partition: int, start: int, seek: int, fetched: Iterable[Any]) -> None:
        self.topic = topic
        self.partition = partition
        self.start = start
        self.seek = seek
        self.records = [one if type(one) is Record else plain(one) for one in fetched]
        assert self.records, "a batch is never empty"

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.records[-1].offset + 1


def plain(record: Any) -> Record:
    """What an engine takes of a record of the client."""
    return Record(record.offset, record.value, record.key, record.timestamp or 0)


class _PlainRecords(PartitionRecords):
    """A fetch of one partition that makes plain records. Compressing and checking stay the client's.

    Nobody takes part in transactions here, so what was written in one that was given up counts like the rest.
    """

    next_fetch_offset: int

    @classmethod
    def tell(cls, records: Any) -> None:
        """Let what was fetched make plain records. What was begun goes on where it is, the longer way."""
        if type(records) is PartitionRecords and records._isolation_level == READ_UNCOMMITTED:  # noqa: SLF001
            records.__class__ = cls
            if inspect.getgeneratorstate(records._records_iterator) == inspect.GEN_CREATED:  # noqa: SLF001 - as above
                records._records_iterator = records._unpack_records()  # noqa: SLF001 - as above

    def __iter__(self) -> Iterator[Record]:
        taken: Iterator[Record] = self._records_iterator
        return taken

    def _consumer_record(self, _tp: Any, record: Any) -> Record:
        return plain(record)

    def _unpack_records(self) -> Iterator[Record]:
        fetched = self._records
        while fetched.has_next():
            batch = fetched.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if not batch.is_control_batch:
                wanted = self.next_fetch_offset
                for one in batch:
                    offset = one.offset
                    if offset >= wanted:  # a batch may begin before what was asked for
                        self.next_fetch_offset = offset + 1
                        yield Record(offset, one.value, one.key, one.timestamp or 0)
            self.next_fetch_offset = batch.next_offset


class BatchSchema(faust.Schema[Any, Any]):
    """Hands a batch on as it is: Faust decodes nothing, an engine does it in one pass."""

    def compile(self, app: AppT, **_options: Any) -> Callable[..., Awaitable[EventT[Any]]]:
        create_event = app.create_event

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:  # noqa: ARG001 - as it is called
            return create_event(None, message.value, message.headers, message)

        return decode


class Fetched(NamedTuple):
    """What a fetch brought for one partition, with ``start`` and ``seek`` as in ``Batch``."""

    start: int
    seek: int
    records: list[Any]


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread: it knows where each partition stands. A failed commit does not end the worker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._seeks = 0
        self._stands: dict[TP, int] = {}
        super().__init__(*args, **kwargs)

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MAX_MS  # noqa: SLF001 - Faust has no setting for it
        return consumer

    async def seek_to(self, positions: Mapping[TP, int]) -> int:
        """Seek partitions, wait until they stand there, and return the number of this seek.

        Raises IllegalStateError when one of them is not assigned.
        """
        sought: int = await self.call_thread(self._seek_wait, self._ensure_consumer(), positions)
        return sought

    def stands(self, tp: TP) -> int | None:
        """Where a partition stands. Another thread may ask: it gets what held a moment ago."""
        return self._stands.get(tp)

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> int:  # type: ignore[override]
        self._seeks += 1
        sought = self._seeks
        for tp, offset in partitions.items():
            consumer.seek(tp, offset)
            self._stands[ensure_TP(tp)] = offset
        positions = asyncio.gather(*(consumer.position(tp) for tp in partitions))
        await asyncio.wait_for(positions, self.app.conf.broker_request_timeout)
        return sought

    async def _fetch_records(self, *args: Any, **kwargs: Any) -> dict[TP, Fetched]:  # type: ignore[override]
        fetched = self._ensure_consumer()._fetcher._records  # noqa: SLF001 - the client has no name for it
        for result in fetched.values():
            _PlainRecords.tell(getattr(result, "_partition_records", None))
        found = await super()._fetch_records(*args, **kwargs)
        # No seek can come between the taking of the records and this: nothing is awaited.
        return {
            tp: self._fetched(tp, records)
            for raw, records in found.items()
            if records and (tp := ensure_TP(raw))
        }

    def _fetched(self, tp: TP, records: list[Any]) -> Fetched:
        first = records[0].offset
        start = min(self._stands.get(tp, first), first)
        self._stands[tp] = records[-1].offset + 1
        return Fetched(start, self._seeks, records)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """With each assignment every partition stands somewhere else."""
        self._stands.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        try:
            assigned = self.assignment()
            offsets = {
                driver.ensure_aiokafka_TP(tp): offset for tp, offset in offsets.items() if tp in assigned
            }
            if offsets:
                await self._ensure_consumer().commit(offsets)
        except KafkaError as exc:
            logger.warning("offsets not committed, the next checkpoint tries again: %r", exc)
            return False
        return True


class BatchConsumer(driver.Consumer):
    """A Faust consumer that yields one message a partition and fetch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._safe: dict[TP, int] = {}
        super().__init__(*args, **kwargs)
        self._read_offset = _NoAccount()

    def _new_consumer_thread(self) -> BatchConsumerThread:
        self._batch_thread = BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)
        return self._batch_thread

    async def create_topic(self, topic: str, partitions: int, replication: int, **_options: Any) -> None:
        """Creates nothing: every topic exists and was checked before the worker started."""

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's
        """Fetch from every active partition; at most one message for each."""
        fetched_of, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if fetched_of is None or self.should_stop:
            return
        if not self.flow_active:
            await self._seek_back()
            return
        for tp, fetched in fetched_of.items():
            # Both may have changed while this generator was suspended.
            if not self.flow_active or self.app.consumer_generation_id != generation:  # type: ignore[redundant-expr]
                break
            if active is None or tp in active or tp in self._buffered_partitions:
                yield tp, self._batch_message(tp, cast("Fetched", fetched))

    async def _seek_back(self) -> None:
        """What was fetched while the flow was stopped is thrown away, so read it again from the safe position."""
        try:
            await self.perform_seek()
        except Exception as exc:  # noqa: BLE001 - the partitions may be gone meanwhile; the next assignment seeks again
            logger.warning("could not seek while the flow was stopped: %r", exc)

    def _batch_message(self, tp: TP, fetched: Fetched) -> Message:
        batch = Batch(tp.topic, tp.partition, *fetched)
        last = batch.records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp_ms / 1000.0,
            0,
            {},
            None,
            cast("Any", batch),
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    def acknowledge(self, tp: TP, next_offset: int) -> None:
        """Everything below ``next_offset`` is safe in a checkpoint: the offset may be committed."""
        assert next_offset >= 0
        self._safe[tp] = next_offset

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self._safe) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        # Faust's streams note every message they are done with here; nobody else ever takes those notes away.
        self._acked.pop(tp, None)
        self._acked_index.pop(tp, None)
        return self._safe.pop(tp, None)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what belongs to partitions that are given back, once Faust and the application are done with them."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._safe.pop(tp, None)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """A batch is not a gap."""

    async def perform_seek(self) -> None:
        """Seek every source partition to the position of its checkpoint; the group's offsets have no say."""
        positions: Mapping[TP, int] = cast("Any", self.app).checkpoint_positions()
        assigned = self.assignment()
        positions = {tp: offset for tp, offset in positions.items() if tp in assigned}
        if positions:
            await self.seek_to(positions)

    def stands(self, tp: TP) -> int | None:
        """Up to which offset a partition was fetched, or where it was sought to; None before either."""
        return self._batch_thread.stands(tp)

    async def seek_to(self, positions: Mapping[TP, int]) -> int:
        """Seek partitions, wait until they stand there, and return the number of this seek: a batch with a lower
        ``seek`` was fetched before it. Raises IllegalStateError when one of them is not assigned."""
        return await self._batch_thread.seek_to(positions)


class _NoAccount(dict[TP, "int | None"]):
    """In place of Faust's account of the last offset read from each partition: it knows of none."""

    def __missing__(self, tp: TP) -> None:
        return None

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        """Nothing is noted."""


class BatchProducer(driver.Producer):
    """Creates no topic, for the same reason as the consumer."""

    async def create_topic(self, topic: str, partitions: int, replication: int, **_options: Any) -> None:
        """Creates nothing."""


class BatchTransport(driver.Transport):
    """What ``App._new_transport`` returns."""

    Consumer: ClassVar[type[BatchConsumer]] = BatchConsumer
    Producer: ClassVar[type[BatchProducer]] = BatchProducer
