"""Faust at speed: one Faust message carries a whole fetched batch of a partition.

Theory of operation: Faust spends about a tenth of a millisecond on every message it hands to an agent, whatever the
message is. So the consumer here makes one message of everything a fetch brought for one partition. Faust keeps doing
what it is good at (group membership, assignment, tables, recovery) and pays its price once a batch.

Four things follow from that, and this module is where they are kept right:

* Offsets. Faust derives the offset to commit from acknowledged single offsets and from gaps between them. Here an
  offset becomes committable only through ``BatchConsumer.acknowledge``, which the checkpoint calls when state and
  outputs are safe; that an agent has finished with a message says nothing.
* Gaps. Faust drops messages that were fetched before a rebalance or while the flow was stopped. So each batch says
  at which offset it starts; an engine that stands before that offset has missed something and seeks back.
* Positions. After each recovery Faust seeks every source partition to its committed offset. The truth is the offset
  in the checkpoint's marker, so ``perform_seek`` asks the application for it and seeks there.
* A commit that fails, for instance because the group is rebalancing, is no reason to end: the marker already holds
  the position. It is logged and tried again with the next checkpoint.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, cast

import faust
from aiokafka.errors import KafkaError
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage, EventT, Message
from mode import get_logger

from kaohe.core.records import Record

logger = get_logger(__name__)


class Batch:
    """What one fetch brought for one partition, in offset order. Never empty.

    The value of every event that reaches an agent or a table. ``start`` is where the batch before it ended, or where
    the partition was sought to: below the first record's offset where the log has holes, never above it.
    """

    __slots__ = ("partition", "records", "start", "topic")

    def __init__(self, topic: str, partition: int, start: int, fetched: Iterable[Any]) -> None:
        self.topic = topic
        self.partition = partition
        self.start = start
        self.records = [Record(r.offset, r.value, r.key, r.timestamp or 0) for r in fetched]
        assert self.records, "a batch is never empty"

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.records[-1].offset + 1


class BatchSchema(faust.Schema[Any, Any]):
    """Hands a batch on as it is: Faust decodes nothing, an engine does it in one pass."""

    def compile(self, app: AppT, **_options: Any) -> Callable[..., Awaitable[EventT[Any]]]:
        create_event = app.create_event

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:  # noqa: ARG001 - as it is called
            return create_event(None, message.value, message.headers, message)

        return decode


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread; a failed commit does not end the worker."""

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
        self._handed: dict[TP, int] = {}
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

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
        for raw_tp, fetched in fetched_of.items():
            # Both may have changed while this generator was suspended.
            if not self.flow_active or self.app.consumer_generation_id != generation:  # type: ignore[redundant-expr]
                break
            tp = ensure_TP(raw_tp)
            if fetched and (active is None or tp in active or tp in self._buffered_partitions):
                yield tp, self._batch_message(tp, fetched)

    async def _seek_back(self) -> None:
        """What was fetched while the flow was stopped is thrown away, so read it again from the safe position."""
        try:
            await self.perform_seek()
        except Exception as exc:  # noqa: BLE001 - the partitions may be gone meanwhile; the next assignment seeks again
            logger.warning("could not seek while the flow was stopped: %r", exc)

    def _batch_message(self, tp: TP, fetched: list[Any]) -> Message:
        last = fetched[-1]
        start = min(self._handed.get(tp, fetched[0].offset), fetched[0].offset)
        batch = Batch(tp.topic, tp.partition, start, fetched)
        self._handed[tp] = batch.next_offset
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            (last.timestamp or 0) / 1000.0,
            last.timestamp_type,
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
            self._handed.pop(tp, None)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """A batch is not a gap."""

    async def perform_seek(self) -> None:
        """Seek every source partition to the position of its checkpoint."""
        await super().perform_seek()
        positions: Mapping[TP, int] = cast("Any", self.app).checkpoint_positions()
        assigned = self.assignment()
        await self.seek_to({tp: offset for tp, offset in positions.items() if tp in assigned})

    async def seek_to(self, positions: Mapping[TP, int]) -> None:
        """Seek partitions and wait until they stand there."""
        if positions:
            await self.seek_wait(positions)
            self._handed.update(positions)


class BatchProducer(driver.Producer):
    """Creates no topic, for the same reason as the consumer."""

    async def create_topic(self, topic: str, partitions: int, replication: int, **_options: Any) -> None:
        """Creates nothing."""


class BatchTransport(driver.Transport):
    """What ``App._new_transport`` returns."""

    Consumer: ClassVar[type[BatchConsumer]] = BatchConsumer
    Producer: ClassVar[type[BatchProducer]] = BatchProducer
