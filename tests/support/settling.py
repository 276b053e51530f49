"""A small log of decisions, grades and pay events in memory, and ways to read it into a ledger."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import text

from kaohe.decisions import ENCODER, Decision, Grade, Settlement
from kaohe.events import PAYLOADS, PAYROLL_SUBJECT, PayTermsInForce, ReadUpTo, encode, make
from kaohe.payroll import settling
from kaohe.payroll.ledger import Ledger, NextOffset, Written
from kaohe.payroll.records import (
    DECISIONS_TOPIC,
    EVENTS_TOPIC,
    GRADES_TOPIC,
    Delivery,
    PayDelivery,
    Unreadable,
    read_record,
)
from kaohe.payroll.settling import Batch
from kaohe.stream.sender import partition_of
from tests.support.ledger_entries import decision, grade
from tests.support.pay import PACK, PERIOD, terms

PARTITIONS = 2
LOG_ID = "log-1"
MOMENT = datetime(2026, 9, 8, 9, tzinfo=UTC)

Place = tuple[str, int]


class Log:
    """What stands in the topics."""

    def __init__(self) -> None:
        self.records: defaultdict[Place, list[bytes]] = defaultdict(list)
        self._number = 0

    def put(self, topic: str, key: str, value: bytes) -> None:
        self.records[topic, partition_of(key.encode(), PARTITIONS)].append(value)

    def event(self, tag: str, subject: str, at: datetime = MOMENT, **fields: Any) -> None:
        self._number += 1
        data = PAYLOADS[tag](**fields)
        made = make(tag, id=f"e-{self._number}", source="test", subject=subject, time=at, data=data)
        self.put(EVENTS_TOPIC, subject, encode(made))

    def roster(self, agent: str, at: datetime = datetime(2026, 1, 1, tzinfo=UTC), **fields: Any) -> None:
        self.event("roster.changed", agent, at, agent=agent, **fields)

    def pay(self, agent: str, gross_minor: int, period: str = PERIOD) -> None:
        self.event("pay.stated", agent, agent=agent, period=period, gross_minor=gross_minor)

    def decide(self, agent: str, points: str, **changes: Any) -> Decision:
        self._number += 1
        values: dict[str, Any] = {
            "id": f"d-{self._number:03d}", "pack": PACK, "subject": agent, "points": points, "status": "final",
            "period": PERIOD, "incident": f"i-{self._number}", "kind": "deduct" if points[0] == "-" else "award",
        }  # fmt: skip
        made = decision(**values | changes)
        self.put(DECISIONS_TOPIC, agent, ENCODER.encode(made))
        return made

    def grade(self, agent: str, word: str, **changes: Any) -> Grade:
        period = changes.get("period", PERIOD)
        values: dict[str, Any] = {
            "id": f"g-{agent}-{period}", "pack": PACK, "subject": agent, "grade": word, "status": "final",
            "period": period,
        }  # fmt: skip
        made = grade(**values | changes)
        self.put(GRADES_TOPIC, agent, ENCODER.encode(made))
        return made

    def ends(self, topic: str) -> list[int]:
        return [len(self.records[topic, partition]) for partition in range(PARTITIONS)]

    def ask(
        self,
        period: str = PERIOD,
        by: str = "payroll-clerk",
        in_force: PayTermsInForce | None = None,
        **fields: Any,
    ) -> None:
        read = ReadUpTo(
            events=self.ends(EVENTS_TOPIC), decisions=self.ends(DECISIONS_TOPIC), grades=self.ends(GRADES_TOPIC),
            logs=dict.fromkeys((EVENTS_TOPIC, DECISIONS_TOPIC, GRADES_TOPIC), LOG_ID),
        )  # fmt: skip
        self.event(
            "settlement.requested", PAYROLL_SUBJECT, period=period, by=by, terms=in_force or terms(), read=read,
            **fields,
        )  # fmt: skip

    def move(self, to: str, batch: str, by: str = "finance-head", **fields: Any) -> None:
        self.event(f"settlement.{to}", PAYROLL_SUBJECT, batch=batch, by=by, **fields)


class Reader:
    """Reads a log into a ledger, a few records of some partition at a time; it can be asked again as the log grows."""

    def __init__(self, log: Log, ledger: Ledger, seed: int | None = None) -> None:
        self.log = log
        self.ledger = ledger
        self.at: defaultdict[Place, int] = defaultdict(int)
        self.written = Written()
        self._random = random.Random(seed) if seed is not None else None

    def read(self, *, only: str = "", again: bool = False) -> Written:
        """Read what is new (of one topic, or of all); ``again`` from the beginning. What was written by it."""
        if again:
            self.at.clear()
        before, self.written = self.written, Written()
        while step := self._next(only):
            self._read(*step)
        found, self.written = self.written, before + self.written
        return found

    def _next(self, only: str) -> tuple[Place, int] | None:
        open_places = [
            place
            for place, records in sorted(self.log.records.items())
            if self.at[place] < len(records) and (not only or place[0] == only)
        ]
        if not open_places:
            return None
        if self._random is None:
            return open_places[0], len(self.log.records[open_places[0]])
        return self._random.choice(open_places), self._random.randint(1, 3)

    def _read(self, place: Place, count: int) -> None:
        first = self.at[place]
        records = self.log.records[place][first : first + count]
        read = [read_record(*place, first + number, raw) for number, raw in enumerate(records)]
        self.at[place] = first + len(records)
        self.written += self.ledger.write(
            [one for one in read if isinstance(one, Delivery)],
            rejected=[one for one in read if isinstance(one, Unreadable)],
            pay=[one for one in read if isinstance(one, PayDelivery)],
            offsets=[NextOffset(*place, self.at[place], LOG_ID)],
        )


# --- looking ----------------------------------------------------------------------------------------------------------


def batches(ledger: Ledger, period: str = "") -> list[Batch]:
    with ledger.reading() as connection:
        return settling.batches(connection, period=period)


def statements(ledger: Ledger, batch: str) -> dict[str, Settlement]:
    with ledger.reading() as connection:
        return {one.agent: one for one in settling.statements(connection, batch)}


def outcomes(ledger: Ledger) -> list[tuple[str, str]]:
    """What became of the settlement events, in their order: the outcome and the reason."""
    query = (
        "SELECT outcome, reason FROM settlement_outcomes JOIN settlement_events USING (event_key) "
        "ORDER BY record_offset"
    )
    with ledger.reading() as connection:
        return [(row.outcome, row.reason) for row in connection.execute(text(query))]


def books(ledger: Ledger) -> dict[str, Any]:
    """Everything about pay that the ledger holds and that must not depend on how the log was read."""
    found: dict[str, Any] = {}
    for table in ("pay_batches", "pay_states", "pay_statements", "pay_entries"):
        with ledger.reading() as connection:
            rows = connection.execute(text(f"SELECT * FROM {table}")).mappings()  # noqa: S608
            found[table] = sorted((dict(row) for row in rows), key=msgspec.json.encode)
    return found | {"outcomes": outcomes(ledger)}


def sent(ledger: Ledger) -> Iterator[Any]:
    """What is waiting to be sent to ``kaohe.settlements``, decoded."""
    for _, messages in ledger.unpublished():
        yield from (msgspec.json.decode(message.value) for message in messages)
