"""``kaohe payroll``: from decisions, alerts, grades and the events of pay into the SQL ledger, and settlements out.

Theory of operation: one kafka-python consumer in a group of its own reads batches. A batch goes into the database in
one transaction together with the offsets behind it; only then are the offsets committed to Kafka, for the eyes of
operators. Where to read on is decided by the database alone: whenever partitions are assigned, the consumer seeks to
the offsets that the database holds, so a crash between the two commits changes nothing, and a database restored from a
backup reads again what it lacks. Writing again what is there changes nothing either (see ``ledger``).

Offsets count inside one log. The database therefore remembers the topic's id beside the offset: a topic that was
deleted and made anew (an embedded broker that restarted) is read from its beginning. Records that the broker deleted
before they were read are reported in the table ``rejected`` with the code ``gap``.

Of ``kaohe.events`` only what is about pay is kept; where nothing else came, offsets are written for many records at
once. Settlements are worked out by the ledger in the transaction that makes them possible. What they come to is sent to
``kaohe.settlements`` afterwards, and noted once the broker has it: after a crash in between it is sent again, the same
bytes under the same keys.

When the broker or the database is away, the consumer tries again with growing waits, a bounded number of times, and
then ends with one sentence. The batch in hand is kept meanwhile. A record that cannot be read is kept in ``rejected``
with its reason, and the rest goes on.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol, TypeVar

import msgspec
from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RetriableError,
)

from kaohe.errors import BrokerError, LedgerError
from kaohe.payroll.ledger import Ledger, LedgerAwayError, NextOffset, Written, shown, upgrade
from kaohe.payroll.records import (
    READ_TOPICS,
    SETTLEMENTS_TOPIC,
    Delivery,
    PayDelivery,
    Unreadable,
    read_record,
)
from kaohe.payroll.settling import Message

GROUP_ID = "kaohe-payroll"
BATCH_RECORDS = 500
SKIPPED_RECORDS_MAX = 20_000
"""So many events that are not about pay are passed before their offsets are written, unless the log falls silent."""
POLL_MS = 200
RETRY_WAITS_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The waits between tries when the broker or the database is away; after the last one the consumer gives up."""
REQUEST_MS = 5_000
PROBE_EVERY_S = 5.0
"""A silent broker and a broker that is away look the same to a consumer; after this long it is asked."""
PUBLISH_S = 30.0
JOIN_MAX_S = 60.0
"""How long ``until_idle_s`` waits for partitions before silence counts."""
SESSION_MS = 6_000
MAX_POLL_INTERVAL_MS = 180_000
STOP_CHECK_S = 0.1

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Progress(msgspec.Struct, frozen=True):
    """How far the consumer has come since it started. ``placed`` once it has partitions and reads."""

    records: int = 0
    batches: int = 0
    written: Written = Written()
    placed: bool = False


class Consumer(Protocol):
    """What the payroll consumer needs of a Kafka consumer; kafka-python's ``KafkaConsumer`` has it."""

    def poll(self, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, Sequence[Any]]: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    def assignment(self) -> set[TopicPartition]: ...
    def beginning_offsets(
        self, partitions: list[TopicPartition], timeout_ms: int
    ) -> Mapping[TopicPartition, int]: ...
    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout_ms: int) -> None: ...


Publish = Callable[[Sequence[Message]], None]
"""Sends records to ``kaohe.settlements`` and returns when the broker has acknowledged all of them."""


class Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Remembers which partitions came in and have no position yet. Called from the client's own thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unplaced: set[TopicPartition] = set()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """The group gave us partitions."""
        with self._lock:
            self._unplaced.update(assigned)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """The group took partitions away. Every batch is complete before the next poll, so nothing is pending."""
        with self._lock:
            self._unplaced.difference_update(revoked)

    def unplaced(self) -> set[TopicPartition]:
        """The partitions without a position."""
        with self._lock:
            return set(self._unplaced)

    def placed(self, partitions: Iterable[TopicPartition]) -> None:
        """These have a position now."""
        with self._lock:
            self._unplaced.difference_update(partitions)


class _StoppedError(Exception):
    """The user asked to stop while we waited for something that is away."""


class Retry:
    """Does something again while its other side is away: bounded, with growing waits, and never after a stop.

    It says once that it waits, for what and how long at most, and once when that is over.
    """

    def __init__(
        self,
        bootstrap: str,
        stop: Callable[[], bool],
        waits_s: Sequence[float] = RETRY_WAITS_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bootstrap = bootstrap
        self._stop = stop
        self._waits_s = tuple(waits_s)
        self._sleep = sleep

    def __call__(self, work: Callable[[], _T]) -> _T:
        """The result of ``work``. Raises LedgerError or BrokerError, in one sentence, after the last try."""
        for tried, wait_s in enumerate(self._waits_s):
            try:
                return self._over(work(), tried)
            except (LedgerAwayError, RetriableError, OSError) as error:
                if tried == 0:
                    self._say_waiting(error)
            except KafkaError as error:
                raise self._broker_refused(error) from error
            self._wait(wait_s)
        try:
            return self._over(work(), len(self._waits_s))
        except LedgerAwayError as error:
            text = f"{error} {self._gave_up()}; start the database or correct KAOHE_DATABASE_URL."
            raise LedgerError(text) from error
        except (RetriableError, OSError) as error:
            raise BrokerError(
                f"No broker answers at {self._bootstrap} ({_one_line(error)}). {self._gave_up()}; "
                "start one ('kaohe broker') or set KAOHE_BROKER."
            ) from error
        except KafkaError as error:
            raise self._broker_refused(error) from error

    def _over(self, result: _T, tried: int) -> _T:
        if tried:
            _log.warning("there again after %d tries; going on", tried)
        return result

    def _say_waiting(self, error: Exception) -> None:
        _log.warning(
            "%s; trying again up to %d times, with waits of %g s in all",
            _one_line(error),
            len(self._waits_s),
            sum(self._waits_s),
        )

    def _gave_up(self) -> str:
        return f"Gave up after {len(self._waits_s) + 1} tries"

    def _broker_refused(self, error: KafkaError) -> BrokerError:
        return BrokerError(f"The broker at {self._bootstrap} refused: {_one_line(error)}.")

    def _wait(self, wait_s: float) -> None:
        left_s = wait_s
        while left_s > 0:
            if self._stop():
                raise _StoppedError
            self._sleep(min(STOP_CHECK_S, left_s))
            left_s -= STOP_CHECK_S


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines and lines[0] else type(error).__name__


class Payroll:
    """The consumer's loop, one ``step`` at a time. It neither opens nor closes what it is given.

    ``log_ids`` tells the id of each topic's log (an empty text where the broker has none). ``publish`` sends
    settlements; without it they stay in the ledger.
    """

    def __init__(
        self,
        consumer: Consumer,
        assignments: Assignments,
        ledger: Ledger,
        log_ids: Callable[[], Mapping[str, str]],
        retry: Retry,
        batch_records: int = BATCH_RECORDS,
        publish: Publish | None = None,
    ) -> None:
        assert batch_records > 0
        self._consumer = consumer
        self._assignments = assignments
        self._ledger = ledger
        self._read_log_ids = log_ids
        self._retry = retry
        self._batch_records = batch_records
        self._logs: Mapping[str, str] = {}
        self._lost: set[TopicPartition] = set()
        self._publish = publish
        self._skipped: dict[TopicPartition, NextOffset] = {}
        self._skipped_records = 0
        self.progress = Progress()

    def step(self, timeout_ms: int = POLL_MS) -> int:
        """Wait at most ``timeout_ms`` for records, keep them, and return how many came."""
        polled = self._retry(lambda: self._poll(timeout_ms))
        fresh = self._assignments.unplaced() | self._lost
        if fresh:
            # What was fetched for these came from a position that the database did not choose.
            polled = {partition: records for partition, records in polled.items() if partition not in fresh}
            self._retry(lambda: self._place(fresh & self._consumer.assignment()))
            self._assignments.placed(fresh)
            for partition in fresh:
                self._skipped.pop(partition, None)
            self._lost.clear()
            self.progress = msgspec.structs.replace(self.progress, placed=True)
            self._send_settlements()
        if polled:
            return self._keep(polled)
        if self._skipped:
            self._write([], [], [])
        return 0

    def probe(self) -> None:
        """Ask the broker something. Raises BrokerError when it is away for good."""
        somewhere = TopicPartition(READ_TOPICS[0], 0)
        self._retry(lambda: self._consumer.beginning_offsets([somewhere], timeout_ms=REQUEST_MS))

    def _poll(self, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Any]]:
        try:
            return self._consumer.poll(timeout_ms=timeout_ms, max_records=self._batch_records)
        except NoOffsetForPartitionError as error:
            self._assignments.on_partitions_assigned(error.args[0])  # ``step`` gives them their positions
            return {}
        except OffsetOutOfRangeError as error:
            self._lost.update(error.args[0])
            return {}
        except LogTruncationError as error:
            self._lost.update(error.divergent_offsets)
            return {}

    def _keep(self, polled: Mapping[TopicPartition, Sequence[Any]]) -> int:
        deliveries: list[Delivery] = []
        pay: list[PayDelivery] = []
        rejected: list[Unreadable] = []
        records_count = 0
        for (topic, partition), records in polled.items():
            for record in records:
                read = read_record(topic, partition, record.offset, record.value)
                if isinstance(read, Delivery):
                    deliveries.append(read)
                elif isinstance(read, PayDelivery):
                    pay.append(read)
                elif read is not None:
                    rejected.append(read)
            place = TopicPartition(topic, partition)
            self._skipped[place] = NextOffset(
                topic, partition, records[-1].offset + 1, self._logs.get(topic, "")
            )
            records_count += len(records)
        self._skipped_records += records_count
        if deliveries or pay or rejected or self._skipped_records >= SKIPPED_RECORDS_MAX:
            self._write(deliveries, rejected, pay)
        self.progress = msgspec.structs.replace(
            self.progress, records=self.progress.records + records_count, batches=self.progress.batches + 1
        )
        return records_count

    def _write(
        self, deliveries: Sequence[Delivery], rejected: Sequence[Unreadable], pay: Sequence[PayDelivery]
    ) -> None:
        """Keep what came, and the offsets of everything that was read up to now."""
        offsets = list(self._skipped.values())
        written = self._retry(
            lambda: self._ledger.write(deliveries, rejected=rejected, offsets=offsets, pay=pay)
        )
        self._skipped.clear()
        self._skipped_records = 0
        if written.conflicts:
            _log.error("%d records contradict the ledger; see its table conflicts", written.conflicts)
        self.progress = msgspec.structs.replace(self.progress, written=self.progress.written + written)
        self._commit(offsets)
        if written.settled:
            self._send_settlements()

    def _send_settlements(self) -> None:
        """Send what settlements came to and the broker does not have yet."""
        publish = self._publish
        if publish is None:
            return
        for state, messages in self._retry(self._ledger.unpublished):
            self._retry(lambda messages=messages: publish(messages))  # type: ignore[misc]
            self._retry(lambda state=state: self._ledger.note_published([state]))  # type: ignore[misc]

    def _commit(self, offsets: Sequence[NextOffset]) -> None:
        positions = {
            TopicPartition(at.topic, at.partition): OffsetAndMetadata(at.next_offset, "", -1)
            for at in offsets
        }
        try:
            self._consumer.commit(positions, timeout_ms=REQUEST_MS)
        except KafkaError as error:
            # The database has it already, and the database decides. The next poll tells whether the broker is away.
            _log.warning("the offsets were kept in the database but not in Kafka: %s", _one_line(error))

    def _place(self, partitions: set[TopicPartition]) -> None:
        """Seek each partition to where the database says that reading stopped."""
        if not partitions:
            return
        self._logs = self._read_log_ids()
        known = self._ledger.offsets()
        first = self._consumer.beginning_offsets(sorted(partitions), timeout_ms=REQUEST_MS)
        for partition in sorted(partitions):
            self._consumer.seek(
                partition, self._position(partition, known.get(tuple(partition)), first[partition])
            )

    def _position(self, partition: TopicPartition, known: NextOffset | None, first: int) -> int:
        if known is None:
            return first
        topic, number = partition
        log_id = self._logs.get(topic, "")
        remade = bool(known.log_id and log_id and known.log_id != log_id)
        shorter = partition in self._lost and known.next_offset > first
        if remade or shorter:
            why = "was made anew" if remade else f"ends before offset {known.next_offset}"
            _log.warning("%s[%d] %s; it is read again from its beginning", topic, number, why)
            self._ledger.forget_offset(topic, number)
            return first
        if known.next_offset < first:
            reason = f"records {known.next_offset} to {first - 1} were deleted from the topic before they were read"
            _log.error("%s[%d]: %s", topic, number, reason)
            gap = Unreadable(topic, number, known.next_offset, "gap", reason, "")
            self._ledger.write([], rejected=[gap], offsets=[NextOffset(topic, number, first, log_id)])
            return first
        return known.next_offset


# --- the command ------------------------------------------------------------------------------------------------------


def run_payroll(
    bootstrap: str | Sequence[str],
    security: Mapping[str, Any],
    database_url: str,
    *,
    stop: Callable[[], bool],
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    until_idle_s: float | None = None,
    group_id: str = GROUP_ID,
    batch_records: int = BATCH_RECORDS,
    retry_waits_s: Sequence[float] = RETRY_WAITS_S,
) -> Progress:
    """Fill the ledger until ``stop()`` says so, or until nothing came for ``until_idle_s`` seconds.

    ``security`` holds kafka-python's connection settings (``security_protocol``, ``sasl_…``, ``ssl_…``). The schema is
    created or upgraded first. ``on_progress`` is called after each batch and once when the partitions are there.
    Raises SettingsError for a bad URL, BrokerError when the broker is away or a topic is missing, LedgerError when
    the database is away; each in one sentence, after bounded retries.
    """
    addresses = bootstrap.split(",") if isinstance(bootstrap, str) else list(bootstrap)
    shown(database_url)  # a wrong URL is told before anything is waited for
    retry = Retry(",".join(addresses), stop, retry_waits_s)
    connection = {"bootstrap_servers": addresses, "bootstrap_timeout_ms": REQUEST_MS, **security}
    progress = Progress()
    try:
        retry(lambda: upgrade(database_url))
        with (
            retry(lambda: Ledger(database_url)) as ledger,
            _reading(connection, group_id, retry) as reading,
            _publishing(connection) as publish,
        ):
            consumer, assignments = reading
            payroll = Payroll(
                consumer, assignments, ledger, lambda: read_log_ids(connection), retry, batch_records, publish
            )
            try:
                _run(payroll, stop, on_progress, until_idle_s)
            finally:
                progress = payroll.progress
    except _StoppedError:
        pass
    return progress


def _run(
    payroll: Payroll,
    stop: Callable[[], bool],
    on_progress: Callable[[Progress], None],
    until_idle_s: float | None,
) -> None:
    started_s = quiet_since_s = probed_s = time.monotonic()
    placed = False
    while not stop():
        came = payroll.step()
        now_s = time.monotonic()
        if came or payroll.progress.placed != placed:
            placed = payroll.progress.placed
            quiet_since_s = probed_s = now_s
            on_progress(payroll.progress)
        if now_s - probed_s >= PROBE_EVERY_S:
            payroll.probe()
            probed_s = time.monotonic()
        listening = placed or now_s - started_s >= JOIN_MAX_S
        if until_idle_s is not None and listening and now_s - quiet_since_s >= until_idle_s:
            return


@contextmanager
def _reading(
    connection: Mapping[str, Any], group_id: str, retry: Retry
) -> Iterator[tuple[Consumer, Assignments]]:
    """A subscribed consumer. Raises BrokerError when the broker is away or a topic is missing."""
    retry(lambda: read_log_ids(connection))
    consumer = retry(
        lambda: KafkaConsumer(
            client_id=GROUP_ID,
            group_id=group_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=SESSION_MS // 3,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            **connection,
        )
    )
    assignments = Assignments()
    try:
        retry(lambda: _know_partitions(consumer))
        consumer.subscribe(list(READ_TOPICS), listener=assignments)
        yield consumer, assignments
    finally:
        with suppress(KafkaError):
            consumer.close(autocommit=False, timeout_ms=REQUEST_MS)


@contextmanager
def _publishing(connection: Mapping[str, Any]) -> Iterator[Publish]:
    """Sends settlements. The producer is made when there is something to send: most of the time there is not."""
    producers: list[KafkaProducer] = []

    def publish(messages: Sequence[Message]) -> None:
        if not producers:
            producers.append(KafkaProducer(client_id=GROUP_ID, acks="all", **connection))
        futures = [
            producers[0].send(SETTLEMENTS_TOPIC, key=message.key.encode(), value=message.value)
            for message in messages
        ]
        producers[0].flush(timeout=PUBLISH_S)
        for future in futures:
            future.get(timeout=PUBLISH_S)

    try:
        yield publish
    finally:
        for producer in producers:
            with suppress(KafkaError):
                producer.close(timeout=REQUEST_MS / 1000)


def _know_partitions(consumer: Any) -> None:
    # A leader that shares out partitions before it knows of any gives nobody anything, and kafka-python may then wait
    # for the next change of the group before it shares out again.
    known = consumer.topics()
    if not known.issuperset(READ_TOPICS):
        raise KafkaTimeoutError(
            f"it does not tell the partitions of {', '.join(sorted(set(READ_TOPICS) - known))}"
        )


def read_log_ids(connection: Mapping[str, Any]) -> dict[str, str]:
    """The id of each topic's log. BrokerError when a topic is missing; kafka-python's errors when it cannot ask."""
    admin = KafkaAdminClient(client_id=GROUP_ID, request_timeout_ms=REQUEST_MS * 2, **connection)
    try:
        described = {
            topic["name"]: topic for topic in admin.describe_topics([*READ_TOPICS, SETTLEMENTS_TOPIC])
        }
    finally:
        admin.close()
    missing = [
        name
        for name in (*READ_TOPICS, SETTLEMENTS_TOPIC)
        if described.get(name, {}).get("error_code", 1) != 0
    ]
    if missing:
        raise BrokerError(f"The broker has no topic {' or '.join(missing)}; run 'kaohe topics create'.")
    return {name: str(described[name].get("topic_id") or "") for name in READ_TOPICS}


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a ``stop`` that turns true on SIGTERM or SIGINT. For the main thread; the old handlers come back."""
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
