"""The worker: a Faust app in which each assigned partition has one engine.

Theory of operation. There are two stages of the same shape. Stage ``events`` reads ``kaohe.events`` with a
``PartitionEngine`` for each partition, stage ``groups`` reads ``kaohe.partials`` with a ``GroupEngine`` for each.
An engine is synchronous and pure: a batch goes in, outputs come out. Everything around it is here:

* Outputs are sent at once, in batches to explicit partitions (the key's murmur2 hash, as in every Kafka client), so
  that an alert does not wait for a checkpoint.
* A checkpoint is taken each ``checkpoint_interval_s``, earlier when ``checkpoint_records_max`` records were applied,
  and later while much is caught up with, so that taking the state out stays a small part of the work: (1) the changed
  state is taken out of the engines, in one step together with the list of outputs that belong to it; (2) the broker
  acknowledges those outputs; (3) the state, (4) the marker (checkpoints.py); (5) the source offset may be committed.
  The engines go on meanwhile. A crash repeats work, never loses or doubles it.
* On revocation a last checkpoint is tried for as long as the group can wait, then the engines go. On assignment
  they are made anew and restored from the table.

Anything unexpected ends the worker (``App.crash``): a worker that goes on after it failed to apply or to write would
skip events. Whoever supervises the process starts it again, and it goes on from the last checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import faust
from aiokafka.errors import IllegalStateError
from faust.types import TP
from yarl import URL

from kaohe.collecting import collecting_rarely
from kaohe.core.records import Output, Record
from kaohe.errors import BrokerError, KaoheError
from kaohe.settings import KafkaSecurity, Settings
from kaohe.stream.checkpoints import CheckpointTable, PartitionCheckpoints, aiokafka_producer
from kaohe.stream.sender import PRODUCER_BATCH_BYTES, OutputSender, aiokafka_config, tls_context
from kaohe.stream.topics import EVENTS, PARTIALS, STATE_RECORD_BYTES_MAX, verify_topics
from kaohe.stream.transport import Batch, BatchConsumer, BatchSchema, BatchTransport

logger = logging.getLogger(__name__)

STAGE_EVENTS = "events"
STAGE_GROUPS = "groups"

# Batches (not records) that wait between the fetcher and an agent, over all partitions.
BUFFERED_BATCHES_MAX = 16
FETCH_BYTES_MAX = 4 * 1024 * 1024
# How often in a row a partition is sought back to what its engine still lacks. Once is usual, twice is rare.
SEEKS_MAX = 10
# So long an engine may stand behind what the consumer has fetched before this is taken for dropped, and read again.
DROPPED_AFTER_S = 10.0
# Of the session time-out, the part that a last checkpoint may take while the group waits for this worker.
REVOCATION_SHARE = 0.6
STOP_TIMEOUT_S = 20.0
# Of the time, the part that may go into taking changed state out of the engines (writing it down takes as much again):
# in catch-up nearly all of it changes again and again. But the next checkpoint waits for at most so many intervals, and
# for one when all is caught up with.
CHECKPOINT_SHARE = 0.02
CHECKPOINT_INTERVALS_MAX = 10
# So often in an interval it is looked whether all is caught up with, so that what was applied last is soon safe.
CHECKPOINT_LOOKS = 4


class Engine(Protocol):
    """What both engines of the core look like from here."""

    def apply(self, records: list[Record]) -> list[Output]:
        """Apply a batch in partition order."""
        ...

    def checkpoint(self) -> dict[str, bytes | None]:
        """The keys changed since the last call; None for a deleted one."""
        ...

    def restore(self, items: Mapping[str, bytes]) -> None:
        """Take in a whole state, on a fresh engine."""
        ...


EngineFactory = Callable[[int], Engine]


class Observer(Protocol):
    """What the exporter wants to be told. Called from the worker's event loop; must return at once."""

    def on_assigned(self, stage: str, partition: int, engine: Engine) -> None:
        """A partition is ours, and its engine restored."""
        ...

    def on_revoked(self, stage: str, partition: int) -> None:
        """A partition is no longer ours: its series must go."""
        ...

    def on_batch(self, stage: str, partition: int, records: list[Record], lag: int) -> None:
        """A batch was applied. ``lag`` is how many records of the partition are still to come."""
        ...

    def on_checkpoint(self, stage: str, partition: int, seconds: float, outputs: int) -> None:
        """A checkpoint was committed, with the outputs sent since the one before."""
        ...


class NoObserver:
    """Watches nothing."""

    def on_assigned(self, stage: str, partition: int, engine: Engine) -> None:
        """Nothing."""

    def on_revoked(self, stage: str, partition: int) -> None:
        """Nothing."""

    def on_batch(self, stage: str, partition: int, records: list[Record], lag: int) -> None:
        """Nothing."""

    def on_checkpoint(self, stage: str, partition: int, seconds: float, outputs: int) -> None:
        """Nothing."""


class Runner:
    """One engine at work on one partition.

    ``next_offset`` is the first source offset it has not applied. While something before it is missing, ``seeks`` is
    how often the consumer was sent back in a row, and ``seek`` the number of the last time. ``behind`` is where it
    stood when it was first seen behind what was fetched, and the moment of that (monotonic seconds).
    """

    __slots__ = ("behind", "checkpoints", "engine", "next_offset", "outputs", "partition", "seek", "seeks")

    def __init__(self, partition: int, engine: Engine, checkpoints: PartitionCheckpoints) -> None:
        self.partition = partition
        self.engine = engine
        self.checkpoints = checkpoints
        self.next_offset = checkpoints.committed
        self.outputs = 0
        self.seek = 0
        self.seeks = 0
        self.behind: tuple[int, float] | None = None


class Stage:
    """All the runners of one source topic, and their checkpoints."""

    def __init__(
        self,
        name: str,
        source: str,
        app: KaoheApp,
        settings: Settings,
        make: EngineFactory,
        observer: Observer,
    ) -> None:
        self.name = name
        self.source = source
        self.runners: dict[int, Runner] = {}
        self._app = app
        self._settings = settings
        self._make = make
        self._observer = observer
        self._lock = asyncio.Lock()
        self._since_checkpoint = 0
        self._taken_at_s = time.monotonic()
        self._taking_s = 0.0

    async def consume(self, stream: Any) -> None:
        """The Faust agent: one whole batch at a time."""
        async for event in stream.events():
            try:
                await self._on_batch(event.value)
            except asyncio.CancelledError:
                raise
            except Exception as exc:
                # Faust would skip the event and go on; that would lose it.
                await self._app.crash(exc)
                raise

    async def _on_batch(self, batch: Batch) -> None:
        runner = self.runners.get(batch.partition)
        if runner is None:
            return
        if batch.start > runner.next_offset:
            await self._seek_back(runner, batch)
            return
        runner.seeks = 0
        records = batch.records
        if records[0].offset < runner.next_offset:
            records = [record for record in records if record.offset >= runner.next_offset]
        if not records:
            return
        outputs = runner.engine.apply(records)
        runner.next_offset = batch.next_offset
        runner.outputs += self._app.sender.add(outputs)
        self._since_checkpoint += len(records)
        self._observer.on_batch(self.name, runner.partition, records, self._lag(runner))
        await self._app.sender.ebb()
        if self._since_checkpoint >= self._settings.checkpoint_records_max:
            await self.checkpoint()

    async def _seek_back(self, runner: Runner, batch: Batch) -> None:
        """A batch before this one was dropped on the way: read again from where the engine stands.

        This one is dropped as well, and so are those that were fetched before the seek. One that was fetched after it
        and still begins too far ahead says that the seek had no effect, or that its first batch was dropped in turn:
        then it is asked for again. Raises BrokerError after ``SEEKS_MAX`` times in a row.
        """
        if batch.seek < runner.seek:
            return
        place = f"{self.source} partition {runner.partition}"
        if runner.seeks >= SEEKS_MAX:
            raise BrokerError(
                f"{place} cannot be read from offset {runner.next_offset}: after {runner.seeks} seeks the consumer "
                f"still goes on from {batch.start}."
            )
        if not await self._read_again(runner):
            return
        runner.seeks += 1
        logger.log(
            logging.INFO if runner.seeks == 1 else logging.WARNING,
            "%s: reading again from %s instead of %s (seek %s of at most %s in a row)",
            place,
            runner.next_offset,
            batch.start,
            runner.seeks,
            SEEKS_MAX,
        )

    async def _read_again(self, runner: Runner) -> bool:
        """Send the consumer to where an engine stands; False when the partition, and so the engine, is gone."""
        try:
            runner.seek = await self._app.reader.seek_to(
                {TP(self.source, runner.partition): runner.next_offset}
            )
        except IllegalStateError:
            return False
        return True

    async def look_for_dropped(self, now_s: float) -> None:
        """Read again what was dropped on the way when no batch after it shows that it is missing.

        An engine that stands still for ``DROPPED_AFTER_S`` (by ``now_s``, monotonic seconds) behind what the consumer
        has fetched has lost the end of its partition. Where it is slow only, what comes twice is dropped.
        """
        for runner in list(self.runners.values()):
            fetched = self._app.reader.stands(TP(self.source, runner.partition))
            if fetched is None or fetched <= runner.next_offset:
                runner.behind = None
            elif runner.behind is None or runner.behind[0] != runner.next_offset:
                runner.behind = runner.next_offset, now_s
            elif now_s - runner.behind[1] >= DROPPED_AFTER_S:
                runner.behind = None
                if await self._read_again(runner):
                    logger.warning(
                        "%s partition %s: reading again from %s, since nothing came of what was fetched up to %s",
                        self.source,
                        runner.partition,
                        runner.next_offset,
                        fetched,
                    )

    def _lag(self, runner: Runner) -> int:
        end = self._app.consumer.highwater(TP(self.source, runner.partition))
        return max(0, end - runner.next_offset) if end else 0

    async def on_restored(
        self, partition: int, items: dict[str, bytes], checkpoints: PartitionCheckpoints
    ) -> None:
        """A partition was assigned and its changelog read: make its engine."""
        engine = self._make(partition)
        engine.restore(items)
        self.runners[partition] = Runner(partition, engine, checkpoints)
        self._observer.on_assigned(self.name, partition, engine)

    async def revoke(self, timeout_s: float) -> None:
        """Every partition is being taken back: checkpoint if there is time, then drop the engines."""
        if not self.runners:
            return
        try:
            await asyncio.wait_for(self.checkpoint(), timeout_s)
        except TimeoutError:
            logger.warning(
                "no time for a last checkpoint of %s; its records will be applied again", self.source
            )
        self.drop()

    def drop(self) -> None:
        """The engines go; whoever owns the partitions next makes them anew from the last checkpoint."""
        for partition in list(self.runners):
            del self.runners[partition]
            self._observer.on_revoked(self.name, partition)

    async def checkpoint(self) -> None:
        """Make everything applied so far safe. Raises what the broker or the client raises."""
        async with self._lock:
            started_s = time.monotonic()
            taken = [
                (runner, runner.next_offset, runner.engine.checkpoint(), self._take_outputs(runner))
                for runner in self.runners.values()
                if runner.next_offset != runner.checkpoints.committed
            ]
            self._taken_at_s = time.monotonic()
            self._taking_s = self._taken_at_s - started_s
            self._since_checkpoint = 0
            if not taken:
                return
            await self._app.sender.acknowledged()
            await asyncio.gather(
                *(runner.checkpoints.commit(changes, seq) for runner, seq, changes, _ in taken)
            )
            seconds = time.monotonic() - started_s
            for runner, seq, _, outputs in taken:
                if self.runners.get(runner.partition) is runner:
                    self._app.reader.acknowledge(TP(self.source, runner.partition), seq)
                    self._observer.on_checkpoint(self.name, runner.partition, seconds, outputs)

    @staticmethod
    def _take_outputs(runner: Runner) -> int:
        outputs, runner.outputs = runner.outputs, 0
        return outputs

    async def checkpoint_forever(self) -> None:
        """Checkpoint at the interval, and look whether anything was lost; a failure ends the worker."""
        interval_s = self._settings.checkpoint_interval_s
        applied = 0
        while True:
            await asyncio.sleep(interval_s / CHECKPOINT_LOOKS)
            busy = self._since_checkpoint != applied or any(self._lag(one) for one in self.runners.values())
            applied = self._since_checkpoint
            now_s = time.monotonic()
            try:
                if not checkpoint_waits(now_s - self._taken_at_s, interval_s, self._taking_s, busy=busy):
                    await self.checkpoint()
                await self.look_for_dropped(now_s)
            except asyncio.CancelledError:
                raise
            except Exception as exc:  # noqa: BLE001 - without checkpoints the worker must not go on
                await self._app.crash(exc)
                return


def checkpoint_waits(waited_s: float, interval_s: float, taking_s: float, *, busy: bool) -> bool:
    """Whether the next checkpoint waits longer, ``waited_s`` after the state was last taken out.

    ``taking_s`` is how long that took, ``busy`` whether anything is behind or came since the last look.
    """
    if waited_s < interval_s:
        return True
    return busy and waited_s < min(taking_s / CHECKPOINT_SHARE, CHECKPOINT_INTERVALS_MAX * interval_s)


class KaoheApp(faust.App):
    """The Faust app: the batch transport, the output sender, the stages."""

    sender: OutputSender
    stages: tuple[Stage, ...] = ()

    def _new_transport(self) -> Any:
        return BatchTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Any:
        return BatchTransport(self.conf.broker_producer, self)

    def _create_directories(self) -> None:
        """No files of its own: the state lives in the changelogs."""

    def checkpoint_positions(self) -> dict[TP, int]:
        """Where each source partition with an engine is to be read from."""
        return {
            TP(stage.source, runner.partition): runner.next_offset
            for stage in self.stages
            for runner in stage.runners.values()
        }

    async def crash_awaited(self) -> None:
        """Wait until something made the app crash."""
        await self._crashed.wait()

    @property
    def reason(self) -> BaseException | None:
        """What made the app crash."""
        return self.crash_reason

    @property
    def reader(self) -> BatchConsumer:
        """The consumer, as what it is."""
        assert isinstance(self.consumer, BatchConsumer)
        return self.consumer

    async def revoke(self) -> None:
        """All partitions are being taken back, or the worker stops."""
        for table in self.tables.values():
            assert isinstance(table, CheckpointTable)
            table.interrupt()
        timeout_s = self.conf.broker_session_timeout * REVOCATION_SHARE
        await asyncio.gather(*(stage.revoke(timeout_s) for stage in self.stages))


def build_app(
    settings: Settings,
    partition_counts: Mapping[str, int],
    make_partition_engine: EngineFactory,
    make_group_engine: EngineFactory,
    observer: Observer,
) -> KaoheApp:
    """Wire the whole worker. ``partition_counts`` is what ``verify_topics`` returned.

    Must be called inside a running event loop; ``serve`` then runs it.
    """
    app = KaoheApp(
        settings.group_id, broker=[URL(f"kafka://{a}") for a in settings.bootstrap], **_options(settings)
    )
    loop = asyncio.get_running_loop()
    app.sender = OutputSender(partition_counts, lambda exc: _crash_later(app, loop, exc))
    events = Stage(STAGE_EVENTS, EVENTS, app, settings, make_partition_engine, observer)
    groups = Stage(STAGE_GROUPS, PARTIALS, app, settings, make_group_engine, observer)
    app.stages = (events, groups)
    for stage, topic in ((events, settings.state_topic), (groups, settings.group_state_topic)):
        table = CheckpointTable(
            app,
            name=stage.name,
            topic=topic,
            source=stage.source,
            partitions=partition_counts[topic],
            client=aiokafka_config(settings),
            on_restored=stage.on_restored,
            on_dropped=stage.drop,
        )
        app.tables.add(table)
        channel = app.topic(stage.source, schema=BatchSchema(), allow_empty=True)
        app.agent(channel, name=f"kaohe.{stage.name}")(stage.consume)

    @app.on_partitions_revoked.connect(weak=False)
    async def on_revoked(_app: Any, _revoked: Any, **_kwargs: Any) -> None:
        await app.revoke()

    return app


async def serve(app: KaoheApp, stop: asyncio.Event) -> None:
    """Run the app until ``stop`` is set; then a last checkpoint, and a clean end.

    Raises KaoheError when the worker cannot go on.
    """
    tasks: list[asyncio.Task[Any]] = []
    try:
        await app.maybe_start_producer()
        app.sender.connect(aiokafka_producer(app))
        tasks = [asyncio.create_task(app.sender.run())]
        tasks += [asyncio.create_task(stage.checkpoint_forever()) for stage in app.stages]
        starting = asyncio.create_task(app.start())
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(app.crash_awaited())]
        tasks += [starting, *ends]
        done, _ = await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
        if starting in done and not starting.exception():
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and starting.exception() is not None:
            raise _as_kaohe_error(starting.exception())
        if app.crashed:
            raise _as_kaohe_error(app.reason)
        await _last_checkpoint(app)
    finally:
        await _end(app, tasks)


async def _last_checkpoint(app: KaoheApp) -> None:
    """Let nothing more in, checkpoint what is in; without a broker that ends after a while, and nothing is lost."""
    app.consumer.stop_flow()
    app.flow_control.suspend()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await app.revoke()
            await app.consumer.commit()
    except TimeoutError:
        logger.warning("no broker for a last checkpoint; what came after the one before is applied again")


async def _end(app: KaoheApp, tasks: list[asyncio.Task[Any]]) -> None:
    try:
        await asyncio.wait_for(app.stop(), STOP_TIMEOUT_S)
    except Exception as exc:  # noqa: BLE001 - the process ends anyway, and what was safe stays safe
        logger.warning("the worker did not end cleanly: %r", exc)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run_worker(
    settings: Settings,
    make_partition_engine: EngineFactory,
    make_group_engine: EngineFactory,
    observer: Observer | None = None,
    ready: Callable[[], None] | None = None,
) -> int:
    """Run a worker in the foreground until SIGINT or SIGTERM; the exit code for the command.

    Raises BrokerError, in one sentence, when the broker is away or its topics are not as they must be, and
    KaoheError when the worker cannot go on.
    """
    counts = verify_topics(settings)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        app = build_app(settings, counts, make_partition_engine, make_group_engine, observer or NoObserver())
        if ready is not None:
            ready()
        with collecting_rarely():
            await serve(app, stop)

    asyncio.run(main())
    return 0


def _options(settings: Settings) -> dict[str, Any]:
    """Faust's settings, each of them for a reason."""
    return {
        "broker_credentials": credentials(settings.security),
        # The embedded broker lets a join wait for the whole rebalance time-out, so it is short.
        "broker_session_timeout": settings.session_timeout_s,
        "broker_rebalance_timeout": settings.session_timeout_s,
        "broker_heartbeat_interval": settings.session_timeout_s / 4,
        "broker_request_timeout": max(30.0, settings.session_timeout_s + 10),
        "broker_commit_interval": settings.checkpoint_interval_s,
        "broker_max_poll_records": settings.fetch_records_max,
        "consumer_max_fetch_size": FETCH_BYTES_MAX,
        "consumer_auto_offset_reset": "earliest",
        "producer_acks": -1,
        "producer_max_batch_size": PRODUCER_BATCH_BYTES,
        "producer_max_request_size": STATE_RECORD_BYTES_MAX + 1024 * 1024,
        "stream_buffer_maxsize": BUFFERED_BATCHES_MAX,
        # What an agent has in hand at a rebalance is safe by its offsets; nobody has to wait for it.
        "stream_wait_empty": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "store": "memory://",
        "table_standby_replicas": 0,
        # The embedded broker may say that a changelog ends before what was read of it already, and a worker that keeps
        # a partition over a rebalance would end. Whether a changelog goes on where it was left is seen by the claim.
        "recovery_consistency_check": False,
        "web_enabled": False,
        "autodiscover": False,
    }


def credentials(security: KafkaSecurity) -> Any:
    """TLS and SASL in the words of Faust; None for a plain connection."""
    context = tls_context(security)
    if security.uses_sasl:
        return faust.SASLCredentials(
            username=security.username,
            password=security.password,
            mechanism=security.sasl_mechanism,
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def _crash_later(app: KaoheApp, loop: asyncio.AbstractEventLoop, exc: BaseException) -> None:
    """From a callback, which cannot wait."""
    if loop.is_running():
        app.add_future(app.crash(exc))


def _as_kaohe_error(reason: BaseException | None) -> KaoheError:
    if isinstance(reason, KaoheError):
        return reason
    error = BrokerError(f"The worker cannot go on: {type(reason).__name__}: {reason}.")
    error.__cause__ = reason
    return error
