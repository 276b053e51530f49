"""How a command speaks to payroll: it writes a settlement event into the log, and may wait until it was carried out.

Theory of operation. A command never writes into the ledger. It looks whether what it asks for can be done, so that a
mistake is told at once, and produces the event; the payroll process decides, by the order of the log. A request to
settle says how far the log has come: the end of every partition that payroll reads, asked of the broker.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from kafka import KafkaConsumer
from kafka.errors import KafkaError
from sqlalchemy import text

from kaohe.errors import BrokerError, LedgerError, UsageError
from kaohe.events import PAYLOADS, PAYROLL_SUBJECT, Envelope, ReadUpTo, make
from kaohe.payroll import settling
from kaohe.payroll.consumer import read_log_ids
from kaohe.payroll.ends import ends_of, places_of
from kaohe.payroll.ledger import Ledger
from kaohe.payroll.records import DECISIONS_TOPIC, EVENTS_TOPIC, GRADES_TOPIC
from kaohe.payroll.settling import Batch, Outcome

SOURCE = "kaohe/payroll"
BOOTSTRAP_MS = 5_000
LOOK_EVERY_S = 0.1


def settlement_event(tag: str, at: datetime, **fields: Any) -> Envelope:
    """A new settlement event of ``tag`` with these fields. UsageError when a field is out of its bounds."""
    # The constructor of a struct checks nothing, but an event that the engines would reject helps nobody.
    try:
        data = msgspec.convert(msgspec.to_builtins(PAYLOADS[tag](**fields)), PAYLOADS[tag])
    except msgspec.ValidationError as error:
        raise UsageError(f"{tag}: {error}.") from None
    return make(tag, id=uuid.uuid4().hex, source=SOURCE, subject=PAYROLL_SUBJECT, time=at, data=data)


def event_key(event: Envelope) -> str:
    """Under which key the ledger keeps what became of an event."""
    return msgspec.json.encode([event.source, event.id]).decode()


def read_up_to(connection: Mapping[str, Any]) -> ReadUpTo:
    """How far the log has come. ``connection`` is kafka-python's. BrokerError when the broker is away."""
    try:
        bounded = {"bootstrap_timeout_ms": BOOTSTRAP_MS, **connection}
        logs = read_log_ids(bounded)
        consumer = KafkaConsumer(enable_auto_commit=False, **bounded)
        try:
            ends = {topic: _ends(consumer, topic) for topic in (EVENTS_TOPIC, DECISIONS_TOPIC, GRADES_TOPIC)}
        finally:
            consumer.close(autocommit=False)
    except (KafkaError, OSError) as error:
        address = ",".join(connection.get("bootstrap_servers", ()))
        raise BrokerError(
            f"No broker answers at {address} ({type(error).__name__}); start one ('kaohe broker') or set KAOHE_BROKER."
        ) from None
    return ReadUpTo(
        events=ends[EVENTS_TOPIC],
        decisions=ends[DECISIONS_TOPIC],
        grades=ends[GRADES_TOPIC],
        logs={topic: log_id for topic, log_id in logs.items() if log_id and topic in ends},
    )


def _ends(consumer: Any, topic: str) -> list[int]:
    places = places_of(consumer, topic)
    found = ends_of(consumer, places)
    return [found[place] for place in places]


def find_batch(ledger: Ledger, batch_id: str) -> Batch:
    """A batch by its id. UsageError when the ledger has none."""
    with ledger.reading() as connection:
        found = settling.batches(connection, batch=batch_id)
    if not found:
        raise UsageError(f"the ledger has no batch {batch_id!r}; 'kaohe payroll list' shows them")
    return found[0]


def outcome_of(ledger: Ledger, key: str) -> Outcome | None:
    """What became of an event; None when it was not carried out yet."""
    query = text("SELECT outcome, batch, reason FROM settlement_outcomes WHERE event_key = :key")
    with ledger.reading() as connection:
        row = connection.execute(query, {"key": key}).first()
    return Outcome(row.outcome, row.batch, row.reason) if row is not None else None


def wait_for(
    database_url: str,
    event: Envelope,
    wait_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome | None:
    """What became of an event, at most ``wait_s`` seconds from now; None when nothing did by then."""
    until_s = clock() + wait_s
    while True:
        try:
            with Ledger(database_url) as ledger:
                while True:
                    found = outcome_of(ledger, event_key(event))
                    if found is not None or clock() >= until_s:
                        return found
                    sleep(LOOK_EVERY_S)
        except LedgerError:
            if clock() >= until_s:
                return None
            sleep(LOOK_EVERY_S)  # payroll may be about to make it
