"""The payroll consumer's loop against a log in memory: crashes, rebalances, logs made anew, what is away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    KafkaTimeoutError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from kaohe.errors import BrokerError, LedgerError
from kaohe.payroll.consumer import Assignments, Payroll, Retry, _StoppedError, run_payroll
from kaohe.payroll.ledger import Ledger, LedgerAwayError, NextOffset, Written, upgrade
from kaohe.payroll.records import ALERTS_TOPIC, DECISIONS_TOPIC, TOPICS
from tests.support.ledger_entries import alert, decision, wire

P0 = TopicPartition(DECISIONS_TOPIC, 0)
P1 = TopicPartition(DECISIONS_TOPIC, 1)
A0 = TopicPartition(ALERTS_TOPIC, 0)


class Crash(BaseException):
    """The process dies here; nothing catches it."""


class Stored(msgspec.Struct):
    offset: int
    value: bytes | None


class MemoryLog:
    """The broker's side: records, the ids of the logs, and what the group committed."""

    def __init__(self) -> None:
        self.records: dict[TopicPartition, list[Stored]] = defaultdict(list)
        self.first: dict[TopicPartition, int] = defaultdict(int)
        self.committed: dict[TopicPartition, int] = {}
        self.ids = dict.fromkeys(TOPICS, "log-1")

    def put(self, partition: TopicPartition, *values: bytes | None) -> None:
        log = self.records[partition]
        for value in values:
            log.append(Stored(self.end(partition), value))

    def end(self, partition: TopicPartition) -> int:
        log = self.records[partition]
        return log[-1].offset + 1 if log else self.first[partition]

    def expire(self, partition: TopicPartition, before: int) -> None:
        self.first[partition] = before
        self.records[partition] = [record for record in self.records[partition] if record.offset >= before]

    def remake(self, partition: TopicPartition, log_id: str) -> None:
        self.records[partition] = []
        self.ids[partition.topic] = log_id


class MemoryConsumer:
    """A consumer over a MemoryLog with kafka-python's manners and no default position."""

    def __init__(self, log: MemoryLog, *partitions: TopicPartition) -> None:
        self.log = log
        self.positions: dict[TopicPartition, int | None] = {}
        self.assignments = Assignments()
        self.assign(*partitions)
        self.seeks: list[tuple[TopicPartition, int]] = []
        self.crash_at: str = ""
        self.fail_next: list[Exception] = []

    def assign(self, *partitions: TopicPartition) -> None:
        self.assignments.on_partitions_revoked(list(self.positions))
        self.positions = {partition: self.log.committed.get(partition) for partition in partitions}
        self.assignments.on_partitions_assigned(partitions)

    def poll(self, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, list[Any]]:
        if self.fail_next:
            raise self.fail_next.pop(0)
        if unknown := {partition for partition, at in self.positions.items() if at is None}:
            raise NoOffsetForPartitionError(unknown)
        fetched: dict[TopicPartition, list[Any]] = {}
        left = max_records
        for partition, at in self.positions.items():
            assert at is not None
            if not self.log.first[partition] <= at <= self.log.end(partition):
                raise OffsetOutOfRangeError({partition: at})
            came = [record for record in self.log.records[partition] if record.offset >= at][:left]
            if came:
                fetched[partition] = list(came)
                self.positions[partition] = came[-1].offset + 1
                left -= len(came)
            if not left:
                break
        return fetched

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.seeks.append((partition, offset))
        self.positions[partition] = offset

    def assignment(self) -> set[TopicPartition]:
        return set(self.positions)

    def beginning_offsets(
        self, partitions: list[TopicPartition], timeout_ms: int
    ) -> Mapping[TopicPartition, int]:
        return {partition: self.log.first[partition] for partition in partitions}

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout_ms: int) -> None:
        if self.crash_at == "before the commit":
            raise Crash
        if self.fail_next:
            raise self.fail_next.pop(0)
        self.log.committed.update({partition: at.offset for partition, at in offsets.items()})
        if self.crash_at == "after the commit":
            raise Crash


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    with Ledger(url) as opened:
        yield opened


def never() -> bool:
    return False


def payroll(consumer: MemoryConsumer, ledger: Ledger, batch_records: int = 500) -> Payroll:
    retry = Retry("broker:9092", never, waits_s=(0.0, 0.0), sleep=lambda _wait: None)
    return Payroll(consumer, consumer.assignments, ledger, lambda: consumer.log.ids, retry, batch_records)


def drain(loop: Payroll) -> Payroll:
    """Step until two steps in a row bring nothing (the first of them may only have placed the partitions)."""
    quiet = 0
    while quiet < 2:
        quiet = 0 if loop.step(0) else quiet + 1
    return loop


def revisions(count: int, first: int = 1) -> list[bytes]:
    return [wire(decision(revision=number)) for number in range(first, first + count)]


# --- the ordinary way -------------------------------------------------------------------------------------------------


def test_records_and_offsets_reach_the_database_and_then_kafka(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(3))
    log.put(A0, wire(alert()))
    progress = drain(payroll(MemoryConsumer(log, P0, A0), ledger)).progress
    assert progress.written == Written(entries=3, alerts=1)
    assert (progress.records, progress.placed) == (4, True)
    assert ledger.offsets() == {
        (DECISIONS_TOPIC, 0): NextOffset(DECISIONS_TOPIC, 0, 3, "log-1"),
        (ALERTS_TOPIC, 0): NextOffset(ALERTS_TOPIC, 0, 1, "log-1"),
    }
    assert log.committed == {P0: 3, A0: 1}


def test_an_unreadable_record_is_kept_aside_and_the_rest_goes_on(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, b"{broken", *revisions(1), None, wire(decision(revision=2, points="many")))
    progress = drain(payroll(MemoryConsumer(log, P0), ledger)).progress
    assert progress.written == Written(entries=1, rejected=3)
    assert [(bad.offset, bad.code) for bad in ledger.rejected()] == [
        (0, "malformed"),
        (2, "malformed"),
        (3, "unfit"),
    ]
    assert ledger.offsets()[P0.topic, 0].next_offset == 4


def test_what_a_shadow_says_never_reaches_the_ledger(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, wire(decision(shadow=True)), *revisions(1), wire(decision(id="d-2", shadow=True)))
    log.put(A0, wire(alert(shadow=True)))
    progress = drain(payroll(MemoryConsumer(log, P0, A0), ledger)).progress
    assert progress.written == Written(entries=1)
    assert progress.records == 4
    counts = ledger.counts()
    assert (counts["ledger_entries"], counts["current_entries"], counts["alerts"]) == (1, 1, 0)
    assert counts["conflicts"] == counts["rejected"] == 0
    assert ledger.offsets()[P0.topic, 0].next_offset == 3
    assert ledger.offsets()[A0.topic, 0].next_offset == 1


# --- crashes and rebalances -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_a_crash_around_the_commit_to_kafka_changes_nothing(ledger: Ledger, moment: str) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(10))
    consumer = MemoryConsumer(log, P0)
    loop = payroll(consumer, ledger, batch_records=4)
    assert loop.step(0) == 0
    consumer.crash_at = moment
    with pytest.raises(Crash):
        loop.step(0)
    assert ledger.offsets()[P0.topic, 0].next_offset == 4
    assert log.committed.get(P0, 0) == (0 if moment == "before the commit" else 4)

    second = MemoryConsumer(log, P0)
    progress = drain(payroll(second, ledger, batch_records=4)).progress
    assert second.seeks == [(P0, 4)], "the database decides where to read on"
    assert progress.written == Written(entries=6)
    assert ledger.counts()["ledger_entries"] == 10


def test_a_crash_inside_the_database_transaction_keeps_nothing_and_repeats_all(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(3))
    loop = payroll(MemoryConsumer(log, P0), ledger)
    loop.step(0)

    def die(*_arguments: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_write_offsets", die)
        with pytest.raises(Crash):
            loop.step(0)
    assert (ledger.counts()["ledger_entries"], ledger.offsets(), log.committed) == (0, {}, {})
    assert drain(payroll(MemoryConsumer(log, P0), ledger)).progress.written == Written(entries=3)


def test_the_database_wins_over_what_the_group_committed(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(6))
    log.committed[P0] = 5
    assert drain(payroll(MemoryConsumer(log, P0), ledger)).progress.written == Written(entries=6)


def test_a_partition_that_comes_back_is_read_on_from_the_database(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(2))
    log.put(P1, *[wire(decision(id="d-other"))])
    consumer = MemoryConsumer(log, P0)
    loop = drain(payroll(consumer, ledger))
    consumer.assign(P1)
    drain(loop)
    log.committed[P0] = 0
    log.put(P0, *revisions(1, first=3))
    consumer.assign(P0, P1)
    assert drain(loop).progress.written == Written(entries=4)
    assert (P0, 2) in consumer.seeks


def test_a_commit_that_kafka_refuses_loses_nothing(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(2))
    consumer = MemoryConsumer(log, P0)
    loop = payroll(consumer, ledger)
    loop.step(0)
    refuse = consumer.commit

    def refused(offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout_ms: int) -> None:
        raise CommitFailedError

    consumer.commit = refused  # type: ignore[method-assign]
    loop.step(0)
    consumer.commit = refuse  # type: ignore[method-assign]
    log.put(P0, *revisions(1, first=3))
    assert drain(loop).progress.written == Written(entries=3)
    assert log.committed[P0] == 3


# --- logs that are not what they were ---------------------------------------------------------------------------------


def test_a_topic_made_anew_is_read_from_its_beginning(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(3))
    drain(payroll(MemoryConsumer(log, P0), ledger))
    log.remake(P0, "log-2")
    log.put(P0, *revisions(5))
    assert drain(payroll(MemoryConsumer(log, P0), ledger)).progress.written == Written(entries=2, repeated=3)
    assert ledger.offsets()[P0.topic, 0] == NextOffset(P0.topic, 0, 5, "log-2")


def test_a_log_that_became_shorter_is_read_again(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(5))
    drain(payroll(MemoryConsumer(log, P0), ledger))
    log.remake(P0, "log-1")
    log.put(P0, *revisions(2), wire(decision(revision=9)))
    assert drain(payroll(MemoryConsumer(log, P0), ledger)).progress.written == Written(entries=1, repeated=2)
    assert ledger.offsets()[P0.topic, 0].next_offset == 3


def test_records_deleted_before_they_were_read_are_reported(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(3))
    drain(payroll(MemoryConsumer(log, P0), ledger))
    log.put(P0, *revisions(6, first=4))
    log.expire(P0, before=7)
    assert drain(payroll(MemoryConsumer(log, P0), ledger)).progress.written == Written(entries=2)
    (gap,) = ledger.rejected()
    assert (gap.code, gap.offset) == ("gap", 3)
    assert "records 3 to 6 were deleted" in gap.reason


# --- what is away -----------------------------------------------------------------------------------------------------


def test_a_broker_that_comes_back_is_read_on(ledger: Ledger) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(2))
    consumer = MemoryConsumer(log, P0)
    consumer.fail_next = [KafkaTimeoutError("silence"), KafkaTimeoutError("silence")]
    assert drain(payroll(consumer, ledger)).progress.written == Written(entries=2)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KafkaTimeoutError("silence"), "No broker answers at broker:9092 .*silence.*; start one"),
        (TopicAuthorizationFailedError("no right"), "The broker at broker:9092 refused: .*no right"),
    ],
)
def test_a_broker_that_stays_away_is_one_sentence(ledger: Ledger, error: Exception, sentence: str) -> None:
    consumer = MemoryConsumer(MemoryLog(), P0)
    consumer.fail_next = [error] * 3
    with pytest.raises(BrokerError, match=sentence) as raised:
        payroll(consumer, ledger).step(0)
    assert raised.value.exit_code == 1
    assert "\n" not in str(raised.value)


def test_a_database_that_comes_back_gets_the_batch_in_hand(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(2))
    loop = payroll(MemoryConsumer(log, P0), ledger)
    loop.step(0)
    write, away = ledger.write, [LedgerAwayError("away."), LedgerAwayError("away.")]

    def failing(*arguments: Any, **named: Any) -> Written:
        if away:
            raise away.pop()
        return write(*arguments, **named)

    monkeypatch.setattr(ledger, "write", failing)
    assert drain(loop).progress.written == Written(entries=2)


def test_a_database_that_stays_away_is_one_sentence(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    log.put(P0, *revisions(2))
    loop = payroll(MemoryConsumer(log, P0), ledger)
    loop.step(0)

    def away(*_arguments: object, **_named: object) -> None:
        raise LedgerAwayError("The ledger's database does not answer.")

    monkeypatch.setattr(ledger, "write", away)
    with pytest.raises(LedgerError, match=r"does not answer\. Gave up after 3 tries; start the database"):
        loop.step(0)
    assert log.committed == {}


def test_the_waits_grow_and_a_stop_ends_them() -> None:
    waited: list[float] = []
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        raise LedgerAwayError("away.")

    with pytest.raises(LedgerError):
        Retry("b", never, waits_s=(0.1, 0.3), sleep=waited.append)(work)
    assert len(tries) == 3
    assert sum(waited) == pytest.approx(0.4)
    with pytest.raises(_StoppedError):
        Retry("b", lambda: True, waits_s=(0.1, 0.3), sleep=waited.append)(work)
    assert len(tries) == 4


@pytest.mark.parametrize("error", [LedgerAwayError("The database is away."), KafkaTimeoutError("silence")])
def test_a_wait_is_told_in_one_line_however_many_tries_it_takes(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        raise error

    with pytest.raises((LedgerError, BrokerError), match="Gave up after 7 tries; start"):
        Retry("b", never, sleep=lambda _wait: None)(work)
    what = str(error).rstrip(".")
    assert caplog.messages == [f"{what}; trying again up to 6 times, with waits of 15.75 s in all"]


def test_the_end_of_a_wait_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    errors = [LedgerAwayError("The database is away.")] * 3

    def work() -> str:
        if errors:
            raise errors.pop()
        return "written"

    assert Retry("b", never, sleep=lambda _wait: None)(work) == "written"
    assert caplog.messages == [
        "The database is away; trying again up to 6 times, with waits of 15.75 s in all",
        "there again after 3 tries; going on",
    ]
    caplog.clear()
    assert Retry("b", never, sleep=lambda _wait: None)(work) == "written"
    assert caplog.messages == []


def test_no_broker_at_all_is_one_sentence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with pytest.raises(BrokerError, match=r"No broker answers at 127\.0\.0\.1:1 "):
        run_payroll(
            "127.0.0.1:1",
            {"bootstrap_timeout_ms": 300},
            url,
            stop=never,
            until_idle_s=1,
            retry_waits_s=(0.01,),
        )
