"""Settlements: the events that ask for them, approve them and report on them, carried out one by one in SQL.

Theory of operation. Settlement events all carry the subject ``payroll``, so they come in one order. They are kept as
they come and carried out in that order, each in the transaction that finds it can be: a request says how far the log
had come when it was made, and waits until the ledger has read that far; it then looks at nothing beyond. What comes out
is therefore a function of the log alone: a ledger that is read anew, by whatever number of consumers, comes to the same
batches, statements, entries and keys. What became of each event is kept beside it: applied, unchanged or refused.

A batch moves draft → approved → exported → acknowledged. A draft can be rejected, or is superseded by another draft of
its month. Batches from approved on are *booked*. Asking again for a month that is booked changes nothing; what has
changed since comes with the next settlement as adjustments that name the month, or, with ``reopen``, at once as a
correction that takes back the entries that no longer hold and enters what does.

Four eyes: who approves a batch neither asked for it nor is paid by it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol, cast

import msgspec
from sqlalchemy import Connection, Table, and_, or_, select

from kaohe.core.calendars import calendar
from kaohe.core.pay import (
    Charge,
    PayFact,
    Person,
    adjustments,
    bonus_packs,
    correction,
    corrections,
    entries_of,
    final_grade,
    labels_of_month,
    monies_of,
    own_lines,
    people_of,
    posted,
    profile_in,
    settle,
    wrong_terms,
)
from kaohe.decisions import ENCODER, Grade, PayLine, Settlement, SettlementBatch, Words, pay_id
from kaohe.errors import UsageError
from kaohe.events import DECODER, PayTermsInForce, ReadUpTo, SettlementRequested
from kaohe.payroll.records import DECISIONS_TOPIC, EVENTS_TOPIC, GRADES_TOPIC, kept_fields
from kaohe.payroll.tables import (
    GradeRow,
    LedgerEntryRow,
    OffsetRow,
    PayBatchRow,
    PayEntryRow,
    PayFactRow,
    PayPublishedRow,
    PayStatementRow,
    PayStateRow,
    SettlementEventRow,
    SettlementOutcomeRow,
)

BOOKED = ("approved", "exported", "acknowledged")
STATES = ("draft", "superseded", "rejected", *BOOKED)
"""From the first state to the last; a batch is in the last one that it entered."""
ADJUST_MONTHS_MAX = 12
"""How many settled months before the one that is settled are looked at for changes."""
EVENTS_AT_ONCE_MAX = 64
AMOUNT_MAX_MINOR = 10**15
"""The largest amount of one line; sums of very many of them fit into the database's integers."""
KEYS_AT_ONCE = 500


class Insert(Protocol):
    """Writes new rows into a table of the ledger, and their links into its chain."""

    def __call__(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None: ...


class Outcome(msgspec.Struct, frozen=True):
    """What became of a settlement event: ``applied``, ``unchanged`` or ``refused``, with the batch and the reason."""

    outcome: str
    batch: str = ""
    reason: str = ""


class Message(msgspec.Struct, frozen=True):
    """One record for ``kaohe.settlements``."""

    key: str
    value: bytes


class Batch(msgspec.Struct, frozen=True):
    """A batch as the ledger holds it: its row, and every state that it entered, in order."""

    row: dict[str, Any]
    states: tuple[dict[str, Any], ...]

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def state(self) -> str:
        """The furthest state."""
        return str(max((one["state"] for one in self.states), key=STATES.index))

    @property
    def booked(self) -> bool:
        """Whether its entries are part of the books."""
        return self.state in BOOKED

    def entered(self, state: str) -> dict[str, Any] | None:
        """The record of having entered ``state``."""
        return next((one for one in self.states if one["state"] == state), None)


def _table(row: Any) -> Table:
    return cast(Table, row.__table__)


# --- reading the books ------------------------------------------------------------------------------------------------


def batches(connection: Connection, *, pack: str = "", period: str = "", batch: str = "") -> list[Batch]:
    """Batches in the order of their making: by period, pack and number."""
    table, states = _table(PayBatchRow), _table(PayStateRow)
    query = select(table).order_by(table.c.period, table.c.pack, table.c.number)
    for column, wanted in ((table.c.pack, pack), (table.c.period, period), (table.c.id, batch)):
        if wanted:
            query = query.where(column == wanted)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    entered: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in connection.execute(select(states)).mappings():
        entered[row["batch"]].append(dict(row))
    return [
        Batch(row, tuple(sorted(entered[row["id"]], key=lambda one: STATES.index(one["state"]))))
        for row in rows
    ]


def statements(connection: Connection, batch: str, agent: str = "") -> list[Settlement]:
    """The statements of a batch, in the order of agents."""
    table = _table(PayStatementRow)
    query = select(table.c.document).where(table.c.batch == batch).order_by(table.c.agent)
    if agent:
        query = query.where(table.c.agent == agent)
    return [msgspec.json.decode(text, type=Settlement) for text in connection.execute(query).scalars()]


def batch_record(batch: Batch, state: str) -> SettlementBatch:
    """What is published of a batch that entered a state."""
    row, entered = batch.row, batch.entered(state)
    assert entered is not None, state
    same = ("id", "kind", "pack", "pack_version", "period", "number", "statements", "entries", "total_minor")
    return SettlementBatch(
        **{name: row[name] for name in same}, state=cast(Any, state), currency=row["currency"],
        requested_by=row["requested_by"], posted_at=row["posted_at"], by=entered["by"], at=entered["at"],
        reason=entered["reason"], replaces=row["replaces"],
    )  # fmt: skip


def unpublished(connection: Connection) -> list[tuple[str, str]]:
    """The states of batches that were not sent yet, with their batches, in the order of batches and states."""
    states, sent = _table(PayStateRow), _table(PayPublishedRow)
    query = (
        select(states.c.batch, states.c.state)
        .outerjoin(sent, and_(states.c.batch == sent.c.batch, states.c.state == sent.c.state))
        .where(sent.c.batch.is_(None))
    )
    found = [(row.batch, row.state) for row in connection.execute(query)]
    return sorted(found, key=lambda one: (one[0], STATES.index(one[1])))


def messages_of(connection: Connection, batch_id: str, state: str) -> list[Message]:
    """What goes to ``kaohe.settlements`` when a batch enters a state: the batch, and once approved its statements."""
    (batch,) = batches(connection, batch=batch_id)
    found = []
    if state == "approved":
        found = [Message(one.agent, ENCODER.encode(one)) for one in statements(connection, batch_id)]
    return [*found, Message(batch_id, ENCODER.encode(batch_record(batch, state)))]


# --- carrying events out ----------------------------------------------------------------------------------------------


def advance(connection: Connection, insert: Insert, recorded_at: str) -> int:
    """Carry out the settlement events whose turn it is; how many. Bounded: what is left has its turn next time."""
    events, outcomes = _table(SettlementEventRow), _table(SettlementOutcomeRow)
    query = (
        select(events)
        .outerjoin(outcomes, events.c.event_key == outcomes.c.event_key)
        .where(outcomes.c.event_key.is_(None))
        .order_by(events.c.record_offset)
        .limit(EVENTS_AT_ONCE_MAX)
    )
    done = 0
    for row in connection.execute(query).mappings().all():
        event = DECODER.decode(row["document"])
        data: Any = event.data
        step = _Step(connection, insert, row["event_key"], row["at"], data)
        if isinstance(data, SettlementRequested):
            if not _is_read(connection, data.read):
                break
            outcome = _settle(step, data)
        else:
            outcome = _move(step, row["type"].partition(".")[2])
        made = {
            "event_key": row["event_key"], "outcome": outcome.outcome, "batch": outcome.batch,
            "reason": outcome.reason, "recorded_at": recorded_at,
        }  # fmt: skip
        insert(outcomes, [made])
        done += 1
    return done


class _Step(msgspec.Struct, frozen=True):
    connection: Connection
    insert: Insert
    event_key: str
    at: str
    data: Any

    def enter(self, batch: str, state: str, reason: str, details: Mapping[str, Any] | None = None) -> None:
        """Write that a batch enters a state."""
        row = {
            "batch": batch, "state": state, "by": self.data.by, "at": self.at, "reason": reason,
            "details": ENCODER.encode(details or {}).decode(), "event_key": self.event_key,
        }  # fmt: skip
        self.insert(_table(PayStateRow), [row])


def _is_read(connection: Connection, read: ReadUpTo) -> bool:
    """Whether everything before the request has been read. A topic that was made anew since has nothing before it."""
    table = _table(OffsetRow)
    known = {(row.topic, row.partition): row for row in connection.execute(select(table))}
    for topic, offsets in _topics(read):
        for partition, wanted in enumerate(offsets):
            row = known.get((topic, partition))
            log_id = read.logs.get(topic, "")
            if row is not None and log_id and row.log_id and row.log_id != log_id:
                continue
            if wanted and (row is None or row.next_offset < wanted):
                return False
    return True


def _topics(read: ReadUpTo) -> tuple[tuple[str, Sequence[int]], ...]:
    return (EVENTS_TOPIC, read.events), (DECISIONS_TOPIC, read.decisions), (GRADES_TOPIC, read.grades)


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's, however they are written."""
    return one.strip().casefold() == other.strip().casefold()


def refused_approval(batch: Batch, agents: Iterable[str], by: str) -> str:
    """Why ``by`` may not approve a batch; empty when nothing is in the way."""
    if same_person(by, batch.row["requested_by"]):
        return f"{by} asked for the batch {batch.id}; somebody else has to approve it"
    if any(same_person(by, agent) for agent in agents):
        return f"{by} is paid by the batch {batch.id}; somebody who is not has to approve it"
    return ""


def refused_move(batch: Batch, to: str) -> str:
    """Why a batch cannot enter a state now; empty when it can."""
    wanted = {"approved": "draft", "rejected": "draft", "exported": "approved", "acknowledged": "exported"}[
        to
    ]
    return (
        ""
        if batch.state == wanted
        else f"the batch {batch.id} is {batch.state}; only a batch that is {wanted} can be {to}"
    )


def refused_count(batch: Batch, entries: int, total_minor: int) -> str:
    """Why a count does not fit a batch's control totals; empty when it does."""
    row = batch.row
    if (entries, total_minor) == (row["entries"], row["total_minor"]):
        return ""
    return (
        f"the batch {batch.id} has {row['entries']} entries of {row['total_minor']} minor units in all, but "
        f"{entries} entries of {total_minor} were counted"
    )


def _move(step: _Step, to: str) -> Outcome:
    data = step.data
    found = batches(step.connection, batch=data.batch)
    if not found:
        return Outcome("refused", data.batch, f"there is no batch {data.batch}")
    (batch,) = found
    counted = to in ("exported", "acknowledged")
    reason = refused_count(batch, data.entries, data.total_minor) if counted else ""
    if not reason and batch.entered(to) is not None:
        return Outcome("unchanged", batch.id, f"the batch {batch.id} is {batch.state} already")
    reason = reason or refused_move(batch, to)
    if not reason and to == "approved":
        table = _table(PayStatementRow)
        agents = step.connection.execute(select(table.c.agent).where(table.c.batch == batch.id)).scalars()
        reason = refused_approval(batch, agents, data.by) or _refused_as_stale(step.connection, batch)
    if reason:
        return Outcome("refused", batch.id, reason)
    details: dict[str, Any] = {}
    if counted:
        details = {"entries": data.entries, "total_minor": data.total_minor}
        details |= {"files": data.files} if to == "exported" else {"reference": data.reference}
    step.enter(batch.id, to, data.reason, details)
    return Outcome("applied", batch.id)


def _refused_as_stale(connection: Connection, batch: Batch) -> str:
    """Why a draft no longer follows from the books: another batch came into them after it was made."""
    table = _table(SettlementEventRow)
    order = {row.event_key: row.record_offset for row in connection.execute(select(table))}
    made = order[batch.row["event_key"]]
    for other in batches(connection, pack=batch.row["pack"]):
        approved = other.entered("approved")
        if approved is not None and order[approved["event_key"]] > made:
            return f"the batch {other.id} was approved after the draft {batch.id} was made; settle the month again"
    return ""


# --- working a month out ----------------------------------------------------------------------------------------------


class Books:
    """What the ledger holds, up to where a request had the log: months, people, and what is booked for them."""

    def __init__(self, connection: Connection, read: ReadUpTo) -> None:
        self._connection = connection
        offsets = {
            (row.topic, row.partition): row.log_id for row in connection.execute(select(_table(OffsetRow)))
        }
        self._ends: dict[tuple[str, int], int] = {}
        self._bounded: set[str] = set()
        for topic, ends in _topics(read):
            log_id = read.logs.get(topic, "")
            if any(
                log_id and known and known != log_id for (name, _), known in offsets.items() if name == topic
            ):
                continue  # the log that the request speaks of is gone
            self._bounded.add(topic)
            self._ends.update({(topic, partition): end for partition, end in enumerate(ends)})
        self._facts: dict[str, list[PayFact]] | None = None

    def _within(self, row: Mapping[Any, Any]) -> bool:
        if row["topic"] not in self._bounded:
            return True
        return bool(row["record_offset"] < self._ends.get((row["topic"], row["partition"]), 0))

    def facts(self) -> dict[str, list[PayFact]]:
        """What is known of people's pay, by agent, in the order of the log."""
        if self._facts is None:
            table = _table(PayFactRow)
            query = select(table).order_by(table.c.agent, table.c.record_offset)
            found: defaultdict[str, list[PayFact]] = defaultdict(list)
            for row in self._connection.execute(query).mappings():
                if self._within(row):
                    found[row["agent"]].append(msgspec.json.decode(row["document"], type=PayFact))
            self._facts = dict(found)
        return self._facts

    def grades(self, pack: str, period: str) -> dict[str, Grade]:
        """The final grade of each agent under a pack."""
        table = _table(GradeRow)
        query = select(table).where(
            table.c.period == period, table.c.status == "final", table.c.level == "agent",
            table.c.pack == pack,
        )  # fmt: skip
        found: defaultdict[str, list[Grade]] = defaultdict(list)
        for row in self._connection.execute(query).mappings():
            if self._within(row):
                found[row["subject"]].append(_grade(row))
        chosen = {agent: final_grade(grades) for agent, grades in found.items()}
        return {agent: grade for agent, grade in chosen.items() if grade is not None}

    def charges(self, terms: PayTermsInForce, period: str) -> dict[str, list[Charge]]:
        """The final entries that may be money, by agent."""
        packs = sorted(monies_of(terms))
        if not packs:
            return {}
        table = _table(LedgerEntryRow)
        return self._charges(table.c.period.in_(labels_of_month(period)) & table.c.pack.in_(packs))

    def _charges(self, condition: Any) -> dict[str, list[Charge]]:
        table = _table(LedgerEntryRow)
        names = [name for name in Charge.__struct_fields__ if name != "explanation"]
        columns = [table.c[name] for name in (*names, "explanation", "subject", "revision")]
        origin = [table.c.topic, table.c.partition, table.c.record_offset]
        query = select(*columns, *origin).where(
            condition, table.c.status == "final", table.c.level == "agent"
        )
        newest: dict[str, Mapping[Any, Any]] = {}
        row: Mapping[Any, Any]
        for row in self._connection.execute(query).mappings():
            known = newest.get(row["id"])
            if self._within(row) and (known is None or known["revision"] < row["revision"]):
                newest[row["id"]] = row
        found: defaultdict[str, list[Charge]] = defaultdict(list)
        for row in sorted(newest.values(), key=lambda one: str(one["id"])):
            words = msgspec.json.decode(row["explanation"], type=Words)
            values = {name: row[name] for name in names}
            found[row["subject"]].append(Charge(**values, explanation=words))
        return dict(found)

    def earlier(self, charges: Mapping[str, Sequence[Charge]]) -> dict[str, list[Charge]]:
        """The entries of other months that these reverse or adjust, and what reversed those before."""
        table = _table(LedgerEntryRow)
        own = {charge.id for several in charges.values() for charge in several}
        found: defaultdict[str, dict[str, Charge]] = defaultdict(dict)
        reversed_ids = {one.reverses for several in charges.values() for one in several if one.reverses} - own
        for agent, several in self._named(table.c.id, reversed_ids).items():
            found[agent].update({one.id: one for one in several})
        for agent, all_of in charges.items():
            newest = max((one.at for one in all_of), default="")
            adjusting = [*all_of, *found[agent].values()]
            for one in adjusting:
                if one.adjusts_period and not one.reverses:
                    for other in self._charges(_same_cause(agent, one, table.c.at <= newest)).get(agent, []):
                        found[agent][other.id] = other
            for other in self._reversing([*found[agent].values()], table.c.at <= newest).get(agent, []):
                found[agent][other.id] = other
        return {
            agent: [one for one in several.values() if one.id not in own] for agent, several in found.items()
        }

    def _named(self, column: Any, ids: Iterable[str], *conditions: Any) -> dict[str, list[Charge]]:
        """The entries whose column names one of the ids."""
        found: defaultdict[str, list[Charge]] = defaultdict(list)
        wanted = sorted(ids)
        for start in range(0, len(wanted), KEYS_AT_ONCE):
            part = wanted[start : start + KEYS_AT_ONCE]
            for agent, several in self._charges(and_(column.in_(part), *conditions)).items():
                found[agent] += several
        return dict(found)

    def _reversing(self, entries: Iterable[Charge], *conditions: Any) -> dict[str, list[Charge]]:
        return self._named(_table(LedgerEntryRow).c.reverses, {one.id for one in entries}, *conditions)

    def later(
        self, terms: PayTermsInForce, period: str, upto: str, charges: Mapping[str, Sequence[Charge]]
    ) -> dict[str, list[Charge]]:
        """The entries of the months after this one, up to and with ``upto``, that adjust what is settled with it.

        ``charges`` are the month's own: what they took for months before it may be given back as well.
        """
        packs, months = sorted(monies_of(terms)), months_after(period, upto)
        if not packs or not months:
            return {}
        table = _table(LedgerEntryRow)
        labels = [label for one in months for label in labels_of_month(one)]
        inside = table.c.period.in_(labels) & table.c.pack.in_(packs)
        found = self._charges(table.c.adjusts_period.in_(labels_of_month(period)) & inside)
        for agent, all_of in charges.items():
            known = {one.id: one for one in found.get(agent, [])}
            for one in all_of:
                if one.adjusts_period and not one.reverses:
                    same = self._charges(_same_cause(agent, one, inside)).get(agent, [])
                    known |= {other.id: other for other in same}
            if known:
                found[agent] = list(known.values())
        everything = [one for several in (*charges.values(), *found.values()) for one in several]
        for agent, several in self._reversing(everything, inside).items():
            known = {one.id: one for one in (*found.get(agent, []), *several)}
            found[agent] = list(known.values())
        return found

    def people(
        self, terms: PayTermsInForce, period: str, booked: Booked, upto: str = ""
    ) -> dict[str, Person]:
        """Everybody whom a month concerns: under the pack whose grades count, or with entries that are money.

        ``upto`` is the last month whose entries are settled.
        """
        grades, charges = self.grades(terms.grades_pack, period), self.charges(terms, period)
        earlier = self.earlier(charges)
        further = [*bonus_packs(terms), *([terms.combined] if terms.combined else [])]
        bonus_grades = {pack: self.grades(pack, period) for pack in further}
        later = self.later(terms, period, upto or period, charges)
        people = people_of(terms, period, self.facts(), grades, charges, earlier, bonus_grades, later)
        return {
            agent: msgspec.structs.replace(person, settled=booked.months, came_to=booked.came_to[agent])
            for agent, person in people.items()
        }


def _same_cause(agent: str, one: Charge, *conditions: Any) -> Any:
    """The entries about the same thing of the same closed period: those of the period itself and what adjusts it."""
    table = _table(LedgerEntryRow)
    return and_(
        table.c.subject == agent, table.c.pack == one.pack, table.c.rule == one.rule, table.c.incident == one.incident,
        or_(table.c.period == one.adjusts_period, table.c.adjusts_period == one.adjusts_period), *conditions,
    )  # fmt: skip


def _grade(row: Mapping[Any, Any]) -> Grade:
    values = {name: row[name] for name in kept_fields(Grade)}
    for name in ("entries", "explanation", "detail"):
        values[name] = msgspec.json.decode(values[name])
    return msgspec.convert(values, Grade)


class Booked:
    """The lines of every booked batch, by person: what each month has come to so far."""

    def __init__(self, connection: Connection, booked: Sequence[Batch]) -> None:
        self.lines: defaultdict[tuple[str, str], list[PayLine]] = defaultdict(list)
        self.adjusted: defaultdict[tuple[str, str], list[PayLine]] = defaultdict(list)
        self.came_to: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.months = frozenset(batch.row["period"] for batch in booked)
        for batch in booked:
            for statement in statements(connection, batch.id):
                for line in entries_of(statement):
                    self.lines[statement.agent, line.of_period].append(line)
                    self.came_to[statement.agent][line.source] += line.amount_minor
                    if line.of_period != statement.period:
                        self.adjusted[statement.agent, statement.period].append(line)

    def agents(self, period: str) -> set[str]:
        return {agent for agent, known in self.lines if known == period}


def work_out(
    books: Books, terms: PayTermsInForce, period: str, booked: Booked, upto: str = ""
) -> dict[str, Settlement]:
    """Everybody's statement of a month that is booked, with the adjustments that it has.

    ``upto`` is the last month whose entries are settled.
    """
    return {
        agent: settle(
            terms, person, period, [_unposted(line) for line in booked.adjusted.get((agent, period), ())]
        )
        for agent, person in books.people(terms, period, booked, upto).items()
    }


def months_after(period: str, upto: str) -> list[str]:
    """The months after one, up to and with another; at most as many as are looked at for changes."""
    found: list[str] = []
    year, month = int(period[:4]), int(period[5:])
    while len(found) < ADJUST_MONTHS_MAX:
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        label = f"{year:04d}-{month:02d}"
        if label > upto:
            break
        found.append(label)
    return found


def _unposted(line: PayLine) -> PayLine:
    return msgspec.structs.replace(line, key="")


def _months_before(period: str, known: Iterable[Batch]) -> dict[str, Batch]:
    """The booked months before ``period`` that are looked at for changes, with the last batch of each."""
    latest = {batch.row["period"]: batch for batch in known if batch.row["period"] < period}
    year, month = int(period[:4]), int(period[5:])
    first = year * 12 + month - 1 - ADJUST_MONTHS_MAX
    oldest = f"{first // 12:04d}-{first % 12 + 1:02d}"
    return {one: latest[one] for one in sorted(latest) if one >= oldest}


def changes_before(
    books: Books, booked: Booked, months: Mapping[str, Batch], period: str
) -> dict[str, list[PayLine]]:
    """Adjustments in ``period`` for the months that were settled before, by agent."""
    found: defaultdict[str, list[PayLine]] = defaultdict(list)
    for month, batch in months.items():
        terms = msgspec.json.decode(batch.row["terms"], type=PayTermsInForce)
        now = work_out(books, terms, month, booked, period)
        for agent in sorted(now.keys() | booked.agents(month)):
            own = own_lines(now[agent]) if agent in now else []
            found[agent] += adjustments(own, booked.lines.get((agent, month), []))
    return {agent: lines for agent, lines in found.items() if lines}


def _settle(step: _Step, asked: SettlementRequested) -> Outcome:
    terms, period = asked.terms, asked.period
    reason = wrong_terms(terms)
    if reason:
        return Outcome("refused", "", reason)
    try:
        calendar(terms.zone)
    except UsageError as error:
        return Outcome("refused", "", str(error))
    known = batches(step.connection, pack=terms.pack)
    of_month = [batch for batch in known if batch.row["period"] == period]
    closed = [batch for batch in of_month if batch.booked]
    if closed and not asked.reopen:
        last = closed[-1]
        return Outcome(
            "unchanged", last.id,
            f"{period} is settled (batch {last.id}, {last.state}); what changed since comes with the next settlement, "
            "or now with --reopen",
        )  # fmt: skip
    if asked.reopen and not closed:
        return Outcome("refused", "", f"{period} is not settled yet, so there is nothing to reopen")
    booked_batches = [batch for batch in known if batch.booked]
    made = work_out_batch(step.connection, terms, period, asked.read, booked_batches, anew=bool(closed))
    if not any(statement.lines for statement in made):
        if closed:
            return Outcome(
                "unchanged", closed[-1].id, f"nothing of {period} has changed since it was settled"
            )
        return Outcome("refused", "", f"there is no final grade and no entry with money in {period} yet")
    if any(abs(line.amount_minor) > AMOUNT_MAX_MINOR for one in made for line in one.lines):
        return Outcome(
            "refused", "", f"an amount is beyond {AMOUNT_MAX_MINOR} minor units; look at the pay terms"
        )
    return _book(step, asked, of_month, made, digest_of(made, booked_batches))


def digest_of(made: Sequence[Settlement], booked: Sequence[Batch]) -> str:
    """What tells two drafts apart: their statements, and the books that they follow from."""
    return sha256(ENCODER.encode([list(made), [batch.id for batch in booked]])).hexdigest()


def worked_out_again(connection: Connection, batch: Batch) -> str:
    """The digest of a batch, worked out again from the ledger and from the books as they were when it was made."""
    table = _table(SettlementEventRow)
    order = {row.event_key: row.record_offset for row in connection.execute(select(table))}
    made_at = order[batch.row["event_key"]]
    booked = []
    for other in batches(connection, pack=batch.row["pack"]):
        approved = other.entered("approved")
        if approved is not None and order[approved["event_key"]] < made_at:
            booked.append(other)
    terms = msgspec.json.decode(batch.row["terms"], type=PayTermsInForce)
    read = msgspec.json.decode(batch.row["read_up_to"], type=ReadUpTo)
    anew = batch.row["kind"] == "correction"
    made = work_out_batch(connection, terms, batch.row["period"], read, booked, anew=anew)
    return digest_of(made, booked)


def work_out_batch(
    connection: Connection,
    terms: PayTermsInForce,
    period: str,
    read: ReadUpTo,
    booked_batches: Sequence[Batch],
    *,
    anew: bool,
) -> list[Settlement]:
    """The statements of a month, given what is booked; ``anew`` where the month itself is booked and is corrected."""
    books = Books(connection, read)
    booked = Booked(connection, booked_batches)
    if not anew:
        changed = changes_before(books, booked, _months_before(period, booked_batches), period)
        for agent, lines in changed.items():
            for line in lines:
                booked.came_to[agent][line.source] += line.amount_minor
        people = books.people(terms, period, booked)
        for agent in changed.keys() - people.keys():
            people[agent] = Person(
                agent=agent,
                profile=profile_in(terms, books.facts().get(agent, ()), period),
                grade=None,
                graded=False,
            )
        made = [settle(terms, people[agent], period, changed.get(agent, ())) for agent in sorted(people)]
        return [one for one in made if one.lines or one.missing]
    upto = max(batch.row["period"] for batch in booked_batches)
    now = work_out(books, terms, period, booked, upto)
    found = []
    for agent in sorted(now.keys() | booked.agents(period)):
        profile = profile_in(terms, books.facts().get(agent, ()), period)
        unknown = Person(agent=agent, profile=profile, grade=None, graded=False)
        statement = now.get(agent) or settle(terms, unknown, period)
        lines = corrections(own_lines(statement), booked.lines.get((agent, period), []))
        if lines:
            found.append(correction(statement, lines))
    return found


def _book(
    step: _Step,
    asked: SettlementRequested,
    of_month: Sequence[Batch],
    made: Sequence[Settlement],
    digest: str,
) -> Outcome:
    """Write a draft, unless there is one that says the same and follows from the same books."""
    drafts = [batch for batch in of_month if batch.state == "draft"]
    for batch in drafts:
        if batch.row["digest"] == digest:
            return Outcome("unchanged", batch.id, f"the draft {batch.id} says the same")
    terms, number = asked.terms, len(of_month) + 1
    batch_id = pay_id("b-", terms.pack, asked.period, str(number))
    final = [posted(statement, batch_id) for statement in made]
    entries = [(statement.agent, line) for statement in final for line in entries_of(statement)]
    step.insert(
        _table(PayBatchRow),
        [{
            "id": batch_id, "kind": made[0].kind, "pack": terms.pack, "pack_version": terms.pack_version,
            "period": asked.period, "number": number, "statements": len(final), "entries": len(entries),
            "total_minor": sum(line.amount_minor for _, line in entries), "currency": terms.currency,
            "requested_by": asked.by, "posted_at": step.at, "reason": asked.reason,
            "replaces": drafts[-1].id if drafts else "", "digest": digest, "terms": ENCODER.encode(terms).decode(),
            "read_up_to": ENCODER.encode(asked.read).decode(), "event_key": step.event_key,
        }],
    )  # fmt: skip
    for batch in drafts:
        step.enter(batch.id, "superseded", f"the batch {batch_id} takes its place")
    step.enter(batch_id, "draft", asked.reason)
    step.insert(
        _table(PayStatementRow),
        [
            {"batch": batch_id, "agent": one.agent, "id": one.id, "total_minor": one.total_minor,
             "document": ENCODER.encode(one).decode()}
            for one in final
        ],
    )  # fmt: skip
    same = (
        "key",
        "component",
        "source",
        "of_period",
        "effective_period",
        "event_time",
        "amount_minor",
        "currency",
    )
    step.insert(
        _table(PayEntryRow),
        [
            {name: getattr(line, name) for name in (*same, "clause", "reverses")}
            | {"batch": batch_id, "agent": agent, "posted_at": step.at}
            for agent, line in entries
        ],
    )
    return Outcome("applied", batch_id)
