"""The reconciliation with the log: each kind of difference is found and named, by a consumer that reads from memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kafka import TopicPartition

from kaohe.payroll import reconcile
from kaohe.payroll.ledger import Ledger, upgrade
from kaohe.payroll.reconcile import Check
from kaohe.payroll.records import DECISIONS_TOPIC, READ_TOPICS, SETTLEMENTS_TOPIC
from tests.support.settling import PARTITIONS, Log, Reader, batches


class Record(NamedTuple):
    offset: int
    value: bytes


class Consumer:
    """What the reconciliation asks a consumer for, over records in memory."""

    def __init__(self, records: dict[tuple[str, int], list[bytes]]) -> None:
        self.records = records
        self.at: defaultdict[TopicPartition, int] = defaultdict(int)
        self.assigned: list[TopicPartition] = []
        self.paused: set[TopicPartition] = set()

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {number for name, number in self.records if name == topic} or None

    def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self.records[tuple(place)]) for place in places}

    def unsubscribe(self) -> None:
        self.assigned = []

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned = list(places)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.at[place] = offset

    def pause(self, place: TopicPartition) -> None:
        self.paused.add(place)

    def resume(self, place: TopicPartition) -> None:
        self.paused.discard(place)

    def position(self, place: TopicPartition) -> int:
        return self.at[place]

    def highwater(self, place: TopicPartition) -> int:
        return len(self.records[tuple(place)])

    def poll(self, timeout_ms: int, max_records: int = 500) -> dict[TopicPartition, list[Record]]:
        assert timeout_ms > 0
        found: dict[TopicPartition, list[Record]] = {}
        for place in self.assigned:
            if place not in self.paused:
                values = self.records[tuple(place)][self.at[place] :][:max_records]
                if values:
                    found[place] = [Record(self.at[place] + number, one) for number, one in enumerate(values)]
                self.at[place] += len(values)
        return found


class Books(NamedTuple):
    ledger: Ledger
    log: Log
    records: dict[tuple[str, int], list[bytes]]


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """An approved month that was read and sent as a whole."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    log = Log()
    log.roster("a-1", pay_base_minor=800_000)
    log.grade("a-1", "B")
    log.decide("a-1", "-4")
    log.ask()
    with Ledger(url) as ledger:
        reader = Reader(log, ledger)
        reader.read()
        log.move("approved", batches(ledger)[0].id)
        reader.read()
        records: dict[tuple[str, int], list[bytes]] = {
            (topic, number): list(log.records[topic, number])
            for topic in READ_TOPICS
            for number in range(PARTITIONS)
        }
        sent = [message.value for _, messages in ledger.unpublished() for message in messages]
        records |= {(SETTLEMENTS_TOPIC, number): [] for number in range(PARTITIONS)}
        records[SETTLEMENTS_TOPIC, 0] = sent
        yield Books(ledger, log, records)


def offsets(books: Books) -> Check:
    consumer: Any = Consumer(books.records)
    return reconcile._offsets(consumer, books.ledger)


def decisions(books: Books) -> Check:
    consumer: Any = Consumer(books.records)
    return reconcile._decisions(consumer, books.ledger, lambda _done: None)


def settlements(books: Books) -> Check:
    consumer: Any = Consumer(books.records)
    return reconcile._settlements(consumer, books.ledger)


def place_of(books: Books, topic: str) -> tuple[str, int]:
    return next(place for place, records in books.records.items() if place[0] == topic and records)


def test_what_was_read_and_sent_as_a_whole_holds(books: Books) -> None:
    assert [one(books).state for one in (offsets, decisions, settlements)] == ["holds"] * 3


def test_records_that_are_not_read_yet_are_open(books: Books) -> None:
    place = place_of(books, DECISIONS_TOPIC)
    books.records[place].append(books.records[place][-1])
    found = offsets(books)
    assert (found.state, found.details) == ("open", (f"{place[0]}[{place[1]}]: 1 records are not read yet",))


def test_a_log_that_is_shorter_than_what_was_read_differs(books: Books) -> None:
    place = place_of(books, DECISIONS_TOPIC)
    books.records[place].pop()
    found = offsets(books)
    assert found.state == "differs"
    assert "ends at 0, but the ledger has read up to 1" in found.details[0]


def test_a_topic_that_is_gone_differs(books: Books) -> None:
    for place in [one for one in books.records if one[0] == DECISIONS_TOPIC]:
        del books.records[place]
    found = offsets(books)
    assert (found.state, found.details) == ("differs", (f"the broker has no topic {DECISIONS_TOPIC}",))


def test_a_decision_with_another_content_differs(books: Books) -> None:
    place = place_of(books, DECISIONS_TOPIC)
    books.records[place] = [one.replace(b'"-4"', b'"-5"') for one in books.records[place]]
    assert decisions(books).state == "differs"


def test_a_statement_that_is_not_in_the_topic_differs_unless_it_was_not_sent_yet(books: Books) -> None:
    books.records[SETTLEMENTS_TOPIC, 0].pop()
    assert settlements(books).state == "holds", "it waits to be sent"
    books.ledger.note_published([state for state, _ in books.ledger.unpublished()])
    found = settlements(books)
    assert found.state == "differs"
    assert "not in the topic: " in found.details[0]


def test_a_record_that_nobody_booked_differs(books: Books) -> None:
    books.records[SETTLEMENTS_TOPIC, 1].append(b'{"id": "s-strange"}')
    found = settlements(books)
    assert (found.state, found.details) == (
        "differs", (f"1 records of {SETTLEMENTS_TOPIC} are not in the ledger",),
    )  # fmt: skip
