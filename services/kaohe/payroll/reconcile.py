"""Reconciliation: do the log, the ledger, the settlements and the acknowledgements agree?

Theory of operation. Each check compares two things that must be equal and says whether they *hold*, whether something
is merely on its way (*open*: not read, not approved, not acknowledged yet), or whether they *differ*. The checks of the
database need nothing but the ledger. The checks of the log read the topics back to where the ledger has read them, and
compare record by record.

=================  =====================================================================================================
``chain``          every row is as it was written (``kaohe.payroll.chain``)
``conflicts``      no record contradicts the ledger, none could not be read
``entries``        entries = statements = control totals, for every batch
``statements``     every booked batch, worked out again from the ledger, comes to the same
``acknowledged``   what was approved was exported and acknowledged with the same totals
``published``      every state of every batch was sent
``requests``       every settlement event was carried out
``offsets``        the ledger has read what is in the topics
``decisions``      every decision, alert and grade of the topics is in the ledger with the same content, and no other is
``settlements``    what is in ``kaohe.settlements`` is what the ledger holds
=================  =====================================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, cast

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from sqlalchemy import Connection, Table, func, select

from kaohe.errors import BrokerError
from kaohe.payroll import chain, settling
from kaohe.payroll.ends import ends_of, places_of
from kaohe.payroll.ledger import Ledger
from kaohe.payroll.records import (
    READ_TOPICS,
    SETTLEMENTS_TOPIC,
    TOPICS,
    Delivery,
    read_record,
)
from kaohe.payroll.settling import Batch
from kaohe.payroll.tables import (
    PayEntryRow,
    PayStatementRow,
    RejectedRow,
    SettlementEventRow,
    SettlementOutcomeRow,
)

State = Literal["holds", "open", "differs"]
POLL_MS = 2_000
BOOTSTRAP_MS = 5_000
SILENT_POLLS_MAX = 10
BATCH_RECORDS = 500
DETAILS_MAX = 20


class Check(msgspec.Struct, frozen=True):
    """One comparison. ``count`` is how many things differ or are open, ``details`` the first of them, in sentences."""

    name: str
    state: State
    count: int
    compared: int
    details: tuple[str, ...] = ()


def _check(name: str, compared: int, differing: Sequence[str], waiting: Sequence[str] = ()) -> Check:
    state: State = "differs" if differing else "open" if waiting else "holds"
    found = [*differing, *waiting]
    return Check(name, state, len(found), compared, tuple(found[:DETAILS_MAX]))


def holds(checks: Sequence[Check]) -> bool:
    """Whether nothing differs. What is on its way does not."""
    return all(check.state != "differs" for check in checks)


def _table(row: Any) -> Table:
    return cast(Table, row.__table__)


# --- the database -----------------------------------------------------------------------------------------------------


def check_database(connection: Connection, *, thoroughly: bool = True) -> list[Check]:
    """The checks that need nothing but the ledger; ``thoroughly`` also walks the chain and works statements out."""
    known = settling.batches(connection)
    checks = [
        _conflicts(connection),
        _entries(connection, known),
        _acknowledged(connection, known),
        _published(connection),
        _requests(connection),
    ]
    if thoroughly:
        checks = [_chain(connection), *checks, _statements(connection, known)]
    return checks


def _chain(connection: Connection) -> Check:
    found = chain.verify(connection)
    broken = found.broken
    told = [f"{broken.table} {broken.key}: {broken.reason}"] if broken is not None else []
    return _check("chain", found.links, told)


def _conflicts(connection: Connection) -> Check:
    conflicts = connection.exec_driver_sql("SELECT entity, id, reason FROM conflicts ORDER BY id").all()
    rejected = connection.execute(
        select(_table(RejectedRow)).order_by("topic", "partition", "record_offset")
    ).all()
    entries = connection.exec_driver_sql("SELECT count(*) FROM ledger_entries").scalar_one()
    return _check(
        "conflicts",
        entries,
        [f"{row.entity} {row.id}: {row.reason}" for row in conflicts],
        [f"{row.topic}[{row.partition}] offset {row.record_offset}: {row.reason}" for row in rejected],
    )


def _entries(connection: Connection, known: Sequence[Batch]) -> Check:
    entries, statements = _table(PayEntryRow), _table(PayStatementRow)
    booked = {
        row.batch: (row.number, int(row.total or 0))
        for row in connection.execute(
            select(
                entries.c.batch, func.count().label("number"), func.sum(entries.c.amount_minor).label("total")
            ).group_by(entries.c.batch)
        )
    }
    stated = {
        row.batch: (row.number, int(row.total or 0))
        for row in connection.execute(
            select(
                statements.c.batch,
                func.count().label("number"),
                func.sum(statements.c.total_minor).label("total"),
            ).group_by(statements.c.batch)
        )
    }
    differing = []
    for batch in known:
        row = batch.row
        control = (row["entries"], row["total_minor"])
        if booked.get(batch.id, (0, 0)) != control:
            differing.append(
                f"{batch.id}: entries and sum are {booked.get(batch.id)}, the control totals {control}"
            )
        if stated.get(batch.id, (0, 0)) != (row["statements"], row["total_minor"]):
            differing.append(f"{batch.id}: statements and sum are {stated.get(batch.id)}, control {control}")
        lines = [line for one in settling.statements(connection, batch.id) for line in one.lines]
        if sum(line.amount_minor for line in lines) != row["total_minor"]:
            differing.append(f"{batch.id}: the lines of its statements do not sum up to {row['total_minor']}")
    strangers = sorted((booked.keys() | stated.keys()) - {batch.id for batch in known})
    differing += [f"{batch} has entries and is no batch" for batch in strangers]
    return _check("entries", sum(count for count, _ in booked.values()), differing)


def _statements(connection: Connection, known: Sequence[Batch]) -> Check:
    booked = [batch for batch in known if batch.booked]
    differing = [
        f"{batch.id}: worked out again, it comes to something else"
        for batch in booked
        if settling.worked_out_again(connection, batch) != batch.row["digest"]
    ]
    return _check("statements", sum(batch.row["statements"] for batch in booked), differing)


def _acknowledged(connection: Connection, known: Sequence[Batch]) -> Check:
    differing, waiting = [], []
    events, outcomes = _table(SettlementEventRow), _table(SettlementOutcomeRow)
    refused = connection.execute(
        select(outcomes.c.batch, outcomes.c.reason)
        .join(events, events.c.event_key == outcomes.c.event_key)
        .where(
            outcomes.c.outcome == "refused",
            events.c.type.in_(("settlement.exported", "settlement.acknowledged")),
        )
        .order_by(events.c.record_offset)
    ).all()
    for batch in known:
        row = batch.row
        for state in ("exported", "acknowledged"):
            entered = batch.entered(state)
            details = msgspec.json.decode(entered["details"]) if entered is not None else None
            if details and (details["entries"], details["total_minor"]) != (
                row["entries"],
                row["total_minor"],
            ):
                differing.append(f"{batch.id}: {state} with other totals than its own")
        if batch.state in ("draft", "approved", "exported"):
            waiting.append(f"{batch.id} ({row['period']}) is {batch.state}")
        if batch.state != "acknowledged":
            differing += [one.reason for one in refused if one.batch == batch.id]
    return _check("acknowledged", len(known), differing, waiting)


def _published(connection: Connection) -> Check:
    waiting = [f"{batch}: {state} was not sent yet" for batch, state in settling.unpublished(connection)]
    count = connection.exec_driver_sql("SELECT count(*) FROM pay_states").scalar_one()
    return _check("published", count, [], waiting)


def _requests(connection: Connection) -> Check:
    events, outcomes = _table(SettlementEventRow), _table(SettlementOutcomeRow)
    query = (
        select(events.c.type, events.c.at)
        .outerjoin(outcomes, events.c.event_key == outcomes.c.event_key)
        .where(outcomes.c.event_key.is_(None))
        .order_by(events.c.record_offset)
    )
    waiting = [f"{row.type} of {row.at} waits for the ledger to read on" for row in connection.execute(query)]
    count = connection.execute(select(func.count()).select_from(events)).scalar_one()
    return _check("requests", count, [], waiting)


# --- the log ----------------------------------------------------------------------------------------------------------


def check_log(
    connection: Mapping[str, Any], ledger: Ledger, on_progress: Callable[[int], None] = lambda _done: None
) -> list[Check]:
    """The checks that read the topics back. ``connection`` is kafka-python's. BrokerError when the broker is away."""
    try:
        consumer = KafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            bootstrap_timeout_ms=BOOTSTRAP_MS,
            **connection,
        )
    except (KafkaError, OSError) as error:
        raise BrokerError(
            f"No broker answers ({type(error).__name__}); start one, or use --offline to look at the ledger alone."
        ) from None
    try:
        return [
            _offsets(consumer, ledger),
            _decisions(consumer, ledger, on_progress),
            _settlements(consumer, ledger),
        ]
    except KafkaError as error:
        raise BrokerError(f"The broker stopped answering ({error}); try again.") from None
    finally:
        consumer.close(autocommit=False)


def _offsets(consumer: Any, ledger: Ledger) -> Check:
    known = ledger.offsets()
    differing, waiting, count = [], [], 0
    for topic in READ_TOPICS:
        places = places_of(consumer, topic)
        if not places:
            differing.append(f"the broker has no topic {topic}")
            continue
        for place, end in sorted(ends_of(consumer, places).items()):
            at = known.get(tuple(place))
            read = at.next_offset if at is not None else 0
            count += read
            if read > end:
                differing.append(
                    f"{topic}[{place.partition}] ends at {end}, but the ledger has read up to {read}"
                )
            elif read < end:
                waiting.append(f"{topic}[{place.partition}]: {end - read} records are not read yet")
    return _check("offsets", count, differing, waiting)


def _read_back(
    consumer: Any, topic: str, ends: Mapping[TopicPartition, int]
) -> Iterator[tuple[TopicPartition, list[Any]]]:
    """The records of a topic from its beginning up to ``ends``, in batches."""
    first = consumer.beginning_offsets(list(ends))
    wanted = {place: end for place, end in ends.items() if end > first[place]}
    if not wanted:
        return
    consumer.unsubscribe()
    consumer.assign(list(wanted))
    for place in wanted:
        consumer.resume(place)
        consumer.seek(place, first[place])
    silent = 0
    while wanted:
        polled = consumer.poll(timeout_ms=POLL_MS, max_records=BATCH_RECORDS)
        silent = 0 if polled else silent + 1
        if silent >= SILENT_POLLS_MAX:
            raise BrokerError(f"The broker does not give the records of {topic}; try again.")
        for place, records in polled.items():
            if place in wanted:
                yield place, [one for one in records if one.offset < wanted[place]]
        for place in [one for one in wanted if consumer.position(one) >= wanted[one]]:
            del wanted[place]
            consumer.pause(place)


def _decisions(consumer: Any, ledger: Ledger, on_progress: Callable[[int], None]) -> Check:
    known = ledger.offsets()
    differing: list[str] = []
    matched: Counter[str] = Counter()
    done = 0
    complete = True
    for topic in TOPICS:
        places = places_of(consumer, topic)
        ends = {place: known[tuple(place)].next_offset for place in places if tuple(place) in known}
        complete = complete and not any(consumer.beginning_offsets(list(ends)).values()) if ends else complete
        for place, records in _read_back(consumer, topic, ends):
            read = [read_record(topic, place.partition, one.offset, one.value) for one in records]
            deliveries = [one for one in read if isinstance(one, Delivery)]
            compared = ledger.compare(deliveries)
            differing += compared.differing
            matched.update(compared.origins)
            done += len(records)
            on_progress(done)
    if complete:
        counts = ledger.counts()
        for table in ("ledger_entries", "alerts", "grades"):
            if counts[table] != matched[table]:
                differing.append(
                    f"{table} has {counts[table]} rows, but {matched[table]} of them are in the log"
                )
    return _check("decisions", done, differing)


def _settlements(consumer: Any, ledger: Ledger) -> Check:
    places = places_of(consumer, SETTLEMENTS_TOPIC)
    found: set[str] = set()
    ends = ends_of(consumer, places)
    for _, records in _read_back(consumer, SETTLEMENTS_TOPIC, ends):
        found.update(sha256(one.value or b"").hexdigest() for one in records)
    wanted: dict[str, str] = {}
    with ledger.reading() as connection:
        waiting = set(settling.unpublished(connection))
        for batch in settling.batches(connection):
            for entered in batch.states:
                state = entered["state"]
                for message in settling.messages_of(connection, batch.id, state):
                    wanted[sha256(message.value).hexdigest()] = f"{batch.id} {state} ({message.key})"
        unsent = {f"{batch} {state}" for batch, state in waiting}
    lacking = [what for digest, what in wanted.items() if digest not in found]
    differing = [f"not in the topic: {what}" for what in lacking if what.rpartition(" (")[0] not in unsent]
    strange = len(found - wanted.keys())
    if strange:
        differing.append(f"{strange} records of {SETTLEMENTS_TOPIC} are not in the ledger")
    return _check("settlements", len(wanted), differing)
