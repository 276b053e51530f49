"""Checkpoints: an engine's state in a Faust table, taken atomically although it is many records.

Theory of operation. A checkpoint is the state of one partition's engine as of one source offset. It consists of many
keys, and a worker can be killed between any two of them. So every key has two slots, ``A`` and ``B``, in the table's
changelog topic:

1. Each changed key is written to the slot that does *not* hold its committed version, with the source offset as its
   sequence number. The broker acknowledges all of them (acks=all).
2. The marker is written: one record that says "committed up to this source offset". The broker acknowledges it. This
   single record is the commit.
3. Only then may the source offset be committed, and only then are deleted keys erased: tombstones go to both slots,
   the older slot first, so that no crash between them brings a deleted key back.

On restore each key takes the newest of its two versions that is not beyond the marker; the source is read on from the
offset in the marker, whatever the group's committed offset says. A crash at any moment therefore leaves exactly the
state as of one offset. Compaction keeps the newest record of each slot, which is all that is ever needed.

Who may write. A worker that was suspended for long may wake up without its partition and finish what it had begun.
Each owner therefore begins with a *claim*: the marker it restored, written again with the next epoch. In the order of
the log, everything with an older epoch after a claim is ignored. Compaction, though, could let such a stray record
replace a good one for good; so an owner watches the offsets its writes get. They are consecutive as long as it writes
alone. When they are not, it writes its whole state again with its next checkpoint, long before compaction may remove
anything (``STATE_COMPACTION_LAG_MS`` in topics.py).

``Slots`` is that logic alone, free of Kafka; ``CheckpointTable`` is the Faust table around it, one ``Slots`` for each
partition, written to through batches to an explicit partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP, EventT
from mode import get_logger

from kaohe.errors import BrokerError
from kaohe.stream.topics import STATE_RECORD_BYTES_MAX
from kaohe.stream.transport import Batch, BatchSchema

logger = get_logger(__name__)

MARKER_KEY = b"commit"
SLOT_PREFIXES = (b"A:", b"B:")
CLAIMS_MAX = 5
READ_TIMEOUT_MS = 10_000

# Of every changelog value: epoch, source offset, and whether the key is deleted.
_HEADER = struct.Struct(">IQ?")

# Without any key to change, the marker is still moved on so that a restart does not read everything again.
ChangelogRecord = tuple[bytes, bytes | None]


class Version(NamedTuple):
    """One version of one key, in one slot. ``payload`` is None when the key was deleted."""

    epoch: int
    seq: int
    payload: bytes | None


class Plan(NamedTuple):
    """What one checkpoint writes: first ``states``, then ``marker``; ``versions`` is what then becomes true."""

    seq: int
    states: list[ChangelogRecord]
    marker: ChangelogRecord
    versions: dict[str, tuple[int, Version]]


class Slots:
    """The checkpoints of one partition: folds the changelog, plans writes. Knows nothing of Kafka.

    ``committed`` is the source offset of the last commit, None before the first; ``epoch`` counts the owners.
    """

    def __init__(self) -> None:
        self.committed: int | None = None
        self.epoch = 0
        self.strays = 0
        self._slots: dict[str, list[Version | None]] = {}
        # Slots with versions that no commit ever covered, left by an owner that was killed.
        self._leftovers: set[tuple[str, int]] = set()

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Apply one changelog record, in the order of the log. What cannot be read is an error of ``restored``."""
        if key == MARKER_KEY:
            if value is not None:
                self._replay_marker(value)
            return
        prefix, name = key[:2], key[2:].decode("utf-8")
        if prefix not in SLOT_PREFIXES:
            raise BrokerError(
                f"The changelog holds a key that is none of Kaohe's ({key!r}); is the topic shared?"
            )
        slot = SLOT_PREFIXES.index(prefix)
        if value is None:
            self._erase(name, slot)
            return
        epoch, seq, deleted = _HEADER.unpack_from(value)
        if self._is_current(epoch):
            payload = None if deleted else value[_HEADER.size :]
            self._slots.setdefault(name, [None, None])[slot] = Version(epoch, seq, payload)
            self._leftovers.discard((name, slot))

    def _replay_marker(self, value: bytes) -> None:
        epoch, seq, _ = _HEADER.unpack_from(value)
        claims = epoch > self.epoch
        if not self._is_current(epoch):
            return
        # Never back: a claim may have been made before its owner had read the last commit before it.
        self.committed = seq if self.committed is None else max(self.committed, seq)
        if claims:
            self._forget_beyond(self.committed)

    def _is_current(self, epoch: int) -> bool:
        if epoch < self.epoch:
            self.strays += 1
            return False
        self.epoch = epoch
        return True

    def _forget_beyond(self, seq: int) -> None:
        """A new owner starts from ``seq``: what its predecessor wrote beyond it was never committed."""
        for name, versions in list(self._slots.items()):
            for slot, version in enumerate(versions):
                if version is not None and version.seq > seq:
                    self._leftovers.add((name, slot))
                    self._drop(name, slot)

    def _erase(self, name: str, slot: int) -> None:
        self._leftovers.discard((name, slot))
        self._drop(name, slot)

    def _drop(self, name: str, slot: int) -> None:
        versions = self._slots.get(name)
        if versions is not None:
            versions[slot] = None
            if versions[1 - slot] is None:
                del self._slots[name]

    def items(self) -> dict[str, bytes]:
        """The state as of the last commit: every live key with its bytes."""
        found: dict[str, bytes] = {}
        for name in self._slots:
            slot = self._committed_slot(name)
            version = None if slot is None else self._slots[name][slot]
            if version is not None and version.payload is not None:
                found[name] = version.payload
        return found

    def _committed_slot(self, name: str) -> int | None:
        """The slot with the newest version not beyond the commit; None when the key has no committed version.

        The epoch counts first: a later owner may have begun at an earlier offset than its predecessor reached.
        """
        best: int | None = None
        best_age = (-1, -1)
        versions = self._slots.get(name)
        if versions is None or self.committed is None:
            return None
        for slot, version in enumerate(versions):
            if version is not None and version.seq <= self.committed and version[:2] > best_age:
                best, best_age = slot, version[:2]
        return best

    def next_claim(self, start: int) -> ChangelogRecord:
        """The record that claims the partition: the marker with the next epoch, at the last commit or at ``start``.

        It takes effect when it is replayed, after everything that the log holds before it.
        """
        seq = start if self.committed is None else self.committed
        return MARKER_KEY, _HEADER.pack(self.epoch + 1, seq, False)

    def plan(self, changes: Mapping[str, bytes | None], seq: int) -> Plan:
        """What to write so that ``changes`` are committed as of source offset ``seq``."""
        assert self.committed is not None, "claimed before the first checkpoint"
        assert seq >= self.committed, "a checkpoint never goes back"
        states: list[ChangelogRecord] = []
        versions: dict[str, tuple[int, Version]] = {}
        for name, payload in changes.items():
            held = self._committed_slot(name)
            if payload is None and held is None:
                continue
            slot = 0 if held is None else 1 - held
            value = _HEADER.pack(self.epoch, seq, payload is None) + (payload or b"")
            states.append((SLOT_PREFIXES[slot] + name.encode("utf-8"), value))
            versions[name] = (slot, Version(self.epoch, seq, payload))
        marker = (MARKER_KEY, _HEADER.pack(self.epoch, seq, False))
        return Plan(seq, states, marker, versions)

    def commit(self, plan: Plan) -> list[ChangelogRecord]:
        """The plan's records are all in the log. Returns the tombstones to write, in this order."""
        assert self.committed is not None
        assert plan.seq >= self.committed
        tombstones: list[ChangelogRecord] = []
        for name, (slot, version) in plan.versions.items():
            if version.payload is None:
                tombstones += self._bury(name, slot)
            else:
                self._slots.setdefault(name, [None, None])[slot] = version
        self.committed = plan.seq
        return tombstones

    def bury(self) -> list[ChangelogRecord]:
        """Tombstones for what a killed owner left behind: versions never committed, and deletions not erased yet.

        Written by the next owner before it begins, so that no later commit can seem to cover them.
        """
        found: list[ChangelogRecord] = [
            (SLOT_PREFIXES[slot] + name.encode("utf-8"), None) for name, slot in sorted(self._leftovers)
        ]
        self._leftovers.clear()
        for name in list(self._slots):
            slot = self._committed_slot(name)
            version = None if slot is None else self._slots[name][slot]
            if slot is not None and version is not None and version.payload is None:
                found += self._bury(name, slot)
        return found

    def _bury(self, name: str, slot: int) -> list[ChangelogRecord]:
        """``slot`` says that the key is deleted; it goes last, so that the other one never speaks alone."""
        self._slots.pop(name, None)
        encoded = name.encode("utf-8")
        return [(SLOT_PREFIXES[1 - slot] + encoded, None), (SLOT_PREFIXES[slot] + encoded, None)]


class Writer:
    """Writes the changelog of one partition, alone, and notices when somebody else does too."""

    def __init__(self, producer: Any, topic: str, partition: int, next_offset: int) -> None:
        self._producer = producer
        self._topic = topic
        self._partition = partition
        self.next_offset = next_offset
        self.disturbed = False

    async def write(self, records: Iterable[ChangelogRecord]) -> None:
        """Write records in order and return when the broker has acknowledged every one of them.

        Sets ``disturbed`` when the offsets show that another writer came in between. Raises BrokerError when a
        record is too large, and what the client raises when the broker does not acknowledge.
        """
        sent: list[tuple[int, asyncio.Future[Any]]] = []
        builder, count = self._producer.create_batch(), 0
        for key, value in records:
            if len(value or b"") > STATE_RECORD_BYTES_MAX:
                raise BrokerError(
                    f"One key of the state ({key!r}) takes {len(value or b'')} bytes; "
                    f"at most {STATE_RECORD_BYTES_MAX} fit in one record."
                )
            if builder.append(timestamp=None, key=key, value=value) is None:
                sent.append((count, await self._send(builder)))
                builder, count = self._producer.create_batch(), 0
                assert builder.append(timestamp=None, key=key, value=value) is not None, (
                    "a first record always fits"
                )
            count += 1
        if count:
            sent.append((count, await self._send(builder)))
        for length, future in sent:
            metadata = await future
            if metadata.offset != self.next_offset:
                self.disturbed = True
            self.next_offset = metadata.offset + length

    async def _send(self, builder: Any) -> asyncio.Future[Any]:
        builder.close()
        future: asyncio.Future[Any] = await self._producer.send_batch(
            builder, self._topic, partition=self._partition
        )
        return future


class PartitionCheckpoints:
    """The checkpoints of a partition that this worker owns."""

    def __init__(self, slots: Slots, writer: Writer) -> None:
        self._slots = slots
        self._writer = writer

    @property
    def committed(self) -> int:
        """The source offset of the last commit."""
        assert self._slots.committed is not None
        return self._slots.committed

    async def commit(self, changes: Mapping[str, bytes | None], seq: int) -> None:
        """Commit ``changes`` as the state as of source offset ``seq``. On return it is safe."""
        if self._writer.disturbed:
            logger.warning(
                "another worker wrote to this partition's changelog; writing the whole state again"
            )
            self._writer.disturbed = False
            changes = {**self._slots.items(), **changes}
        plan = self._slots.plan(changes, seq)
        await self._writer.write(plan.states)
        await self._writer.write([plan.marker])
        tombstones = self._slots.commit(plan)
        if tombstones:
            await self._writer.write(tombstones)


def aiokafka_producer(app: Any) -> Any:
    """The aiokafka producer inside Faust's; it takes whole batches for an explicit partition."""
    return app.producer._ensure_producer()  # noqa: SLF001 - Faust offers no other way to it


OnRestored = Callable[[int, dict[str, bytes], PartitionCheckpoints], Awaitable[None]]


class CheckpointTable(faust.Table[Any, Any]):
    """A Faust table whose changelog holds checkpoints.

    Faust assigns its partitions together with the source's, and reads the changelog back when they are assigned.
    Nothing is written through the table's mapping interface: a checkpoint writes to the changelog itself, because it
    must know that the broker has it.
    """

    def __init__(
        self,
        app: Any,
        *,
        name: str,
        topic: str,
        source: str,
        partitions: int,
        client: Mapping[str, Any],
        on_restored: OnRestored,
        on_dropped: Callable[[], None],
        **kwargs: Any,
    ) -> None:
        # Buffered batches, not records; not 1, which means something else to Faust: to keep reading after recovery.
        kwargs.setdefault("recovery_buffer_size", 2)
        super().__init__(
            app,
            name=name,
            partitions=partitions,
            store="memory://",
            changelog_topic=app.topic(
                topic, schema=BatchSchema(), internal=True, acks=False, allow_empty=True
            ),
            **kwargs,
        )
        self.source = source
        self.on_restored = on_restored
        self.on_dropped = on_dropped
        self._client = client
        self._slots: dict[int, Slots] = {}
        self._read_to: dict[int, int] = {}
        self._broken: Exception | None = None
        # Rises whenever the assignment changes, so that a take-over begun for an older one is given up.
        self._turn = 0
        self._lock = asyncio.Lock()

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Take in what recovery has read. Faust swallows errors here, so they are kept for later."""
        for event in batch:
            value = event.value
            assert isinstance(value, Batch)
            if value.topic != self.changelog_topic_name:
                continue
            slots = self._slots.setdefault(value.partition, Slots())
            try:
                # Faust begins with the last record it has read before.
                read_to = self._read_to.get(value.partition, 0)
                for record in value.records:
                    if record.offset >= read_to:
                        slots.replay(record.key or b"", record.value)
            except (BrokerError, struct.error, UnicodeDecodeError) as exc:
                self._broken = exc
            self._read_to[value.partition] = value.next_offset

    async def on_rebalance(
        self,
        assigned: set[TP],  # noqa: ARG002 - Faust's signature
        revoked: set[TP],
        newly_assigned: set[TP],  # noqa: ARG002
        generation_id: int = 0,  # noqa: ARG002
    ) -> None:
        """Drop what belongs to partitions that went elsewhere: their changelog is read anew if they come back."""
        self.interrupt()
        self.on_dropped()
        for tp in revoked:
            if tp.topic == self.changelog_topic_name:
                self._slots.pop(tp.partition, None)
                self._read_to.pop(tp.partition, None)

    def interrupt(self) -> None:
        """The assignment is changing: give up what is being taken over."""
        self._turn += 1

    async def on_recovery_completed(
        self,
        active_tps: set[TP],
        standby_tps: set[TP],  # noqa: ARG002 - Faust's signature
    ) -> None:
        """Claim each partition and hand its state over. A failure ends the worker: half a state is none.

        Faust does not stop this when the next rebalance begins, so two may overlap: the older one is given up.
        """
        turn = self._turn
        try:
            async with self._lock:
                for tp in sorted(active_tps):
                    if tp.topic == self.changelog_topic_name and turn == self._turn:
                        await self._take_over(tp, turn)
        except Exception as exc:  # noqa: BLE001 - whatever it is, Faust would swallow it
            if turn == self._turn:
                await self.app.crash(exc)
            else:
                logger.info("gave up taking over %s: %r", self.changelog_topic_name, exc)

    async def _take_over(self, tp: TP, turn: int) -> None:
        if self._broken is not None:
            raise BrokerError(f"{tp.topic} cannot be read back: {self._broken}")
        slots = self._slots.setdefault(tp.partition, Slots())
        start = await self._checked_start(tp, slots)
        app: Any = self.app
        await app.maybe_start_producer()
        writer = Writer(aiokafka_producer(app), tp.topic, tp.partition, self._read_to.get(tp.partition, 0))
        if not await self._claim(tp, slots, writer, start, turn):
            return
        self._read_to[tp.partition] = writer.next_offset
        await writer.write(slots.bury())
        if slots.strays:
            logger.warning("%s partition %s: ignored %s stray records", tp.topic, tp.partition, slots.strays)
            slots.strays, writer.disturbed = 0, True
        if turn == self._turn:
            await self.on_restored(tp.partition, slots.items(), PartitionCheckpoints(slots, writer))

    async def _claim(self, tp: TP, slots: Slots, writer: Writer, start: int, turn: int) -> bool:
        """Claim a partition once everything before the claim was read. False when the assignment changed meanwhile."""
        for _ in range(CLAIMS_MAX):
            if turn != self._turn:
                return False
            read_to, writer.disturbed = writer.next_offset, False
            claim = slots.next_claim(start)
            await writer.write([claim])
            if not writer.disturbed:
                slots.replay(*claim)
                return True
            # There was more in the log than recovery had read. It comes before the claim, so it counts.
            await self._read_up_to(tp, slots, read_to, writer.next_offset)
        raise BrokerError(
            f"Other workers kept writing to {tp.topic} partition {tp.partition} while it was taken over; stop the one "
            "that does not belong to this group, and start this one again."
        )

    async def _checked_start(self, tp: TP, slots: Slots) -> int:
        """The source's first offset. Raises BrokerError when the checkpoint lies outside of what the source holds."""
        source = TP(self.source, tp.partition)
        consumer = self.app.consumer
        start = (await consumer.earliest_offsets(source)).get(source) or 0
        if slots.committed is None:
            return start
        end = (await consumer.highwaters(source)).get(source) or 0
        if slots.committed > end:
            # The embedded broker answers with the start of the last batch; only a fetch tells the end.
            async with self._own_reader(source, max(0, end - 1)) as reader:
                await reader.getmany(timeout_ms=READ_TIMEOUT_MS)
                end = max(end, reader.highwater(_plain(source)) or 0)
        if not start <= slots.committed <= end:
            raise BrokerError(
                f"The checkpoint in {tp.topic} partition {tp.partition} stands at offset {slots.committed} of "
                f"{self.source}, which holds offsets {start} to {end}; the two topics do not belong together, so "
                "delete and create both anew."
            )
        return start

    async def _read_up_to(self, tp: TP, slots: Slots, offset: int, end: int) -> None:
        """Replay the changelog from ``offset`` up to ``end``. It is there: a record before ``end`` was acknowledged."""
        async with self._own_reader(tp, offset) as reader:
            while offset < end:
                fetched = await reader.getmany(_plain(tp), timeout_ms=READ_TIMEOUT_MS)
                if not fetched:
                    raise BrokerError(
                        f"{tp.topic} partition {tp.partition} cannot be read from {offset} to {end}."
                    )
                for record in fetched[_plain(tp)]:
                    if record.offset < end:
                        slots.replay(record.key or b"", record.value)
                    offset = record.offset + 1

    @contextlib.asynccontextmanager
    async def _own_reader(self, tp: TP, offset: int) -> AsyncIterator[Any]:
        """A consumer outside of the group, standing at an offset of one partition."""
        reader = AIOKafkaConsumer(enable_auto_commit=False, auto_offset_reset="earliest", **self._client)
        await reader.start()
        try:
            reader.assign([_plain(tp)])
            reader.seek(_plain(tp), offset)
            yield reader
        finally:
            await reader.stop()


def _plain(tp: TP) -> TopicPartition:
    return TopicPartition(tp.topic, tp.partition)
