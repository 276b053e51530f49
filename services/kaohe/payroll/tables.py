"""The ledger's tables as the code sees them. The migrations make them; a test compares the two.

The free-form parts of a record (facts, parameters, evidence, …) are canonical JSON text, points are decimal text, money
is whole minor units: no database's floating point ever sees them.
"""

from __future__ import annotations

from typing import cast

from sqlalchemy import BigInteger, Index, Table, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What the tables share: text is TEXT, integers are 64 bits wide."""

    type_annotation_map = {str: Text(), int: BigInteger()}  # noqa: RUF012 (a plain dict for SQLAlchemy)


class Origin:
    """Where in the log a row came from, and when it was written (UTC, RFC 3339)."""

    topic: Mapped[str]
    partition: Mapped[int]
    record_offset: Mapped[int]
    recorded_at: Mapped[str]


class LedgerEntryRow(Origin, Base):
    """One revision of one decision. The free-form parts are canonical JSON text, points are decimal text."""

    __tablename__ = "ledger_entries"
    __table_args__ = (
        Index("ledger_entries_subject_period", "subject", "period"),
        Index("ledger_entries_rule_period", "rule", "period"),
        Index("ledger_entries_period", "period", "status"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    status: Mapped[str]
    pack: Mapped[str]
    pack_version: Mapped[str]
    rule: Mapped[str]
    clause: Mapped[str]
    level: Mapped[str]
    subject: Mapped[str]
    window: Mapped[str]
    period: Mapped[str]
    incident: Mapped[str]
    points: Mapped[str]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    at: Mapped[str]
    facts: Mapped[str]
    parameters: Mapped[str]
    evidence: Mapped[str]
    evidence_count: Mapped[int]
    arithmetic: Mapped[str]
    explanation: Mapped[str]
    owner: Mapped[str]
    due_at: Mapped[str]
    proposal: Mapped[str]
    reverses: Mapped[str]
    adjusts_period: Mapped[str]


class AlertRow(Origin, Base):
    """One state (firing, resolved) of one alert."""

    __tablename__ = "alerts"
    __table_args__ = (Index("alerts_subject_at", "subject", "at"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    pack: Mapped[str]
    pack_version: Mapped[str]
    rule: Mapped[str]
    clause: Mapped[str]
    severity: Mapped[str]
    level: Mapped[str]
    subject: Mapped[str]
    incident: Mapped[str]
    since: Mapped[str]
    at: Mapped[str]
    owner: Mapped[str]
    title: Mapped[str]
    explanation: Mapped[str]
    response: Mapped[str]
    facts: Mapped[str]
    parameters: Mapped[str]
    evidence: Mapped[str]


class GradeRow(Origin, Base):
    """One revision of one subject's score and grade."""

    __tablename__ = "grades"
    __table_args__ = (
        Index("grades_subject_period", "subject", "period"),
        Index("grades_period", "period", "status"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str]
    pack: Mapped[str]
    pack_version: Mapped[str]
    level: Mapped[str]
    subject: Mapped[str]
    window: Mapped[str]
    period: Mapped[str]
    score: Mapped[str]
    grade: Mapped[str]
    previous_grade: Mapped[str]
    at: Mapped[str]
    entries: Mapped[str]
    formula: Mapped[str]
    explanation: Mapped[str]
    detail: Mapped[str] = mapped_column(server_default="null")


class ConflictRow(Origin, Base):
    """A record the ledger did not take, with what it holds instead; both as canonical JSON."""

    __tablename__ = "conflicts"
    digest: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    entity: Mapped[str]
    id: Mapped[str]
    version: Mapped[str]
    stored: Mapped[str]
    offered: Mapped[str]


class RejectedRow(Base):
    """A record that could not be read, with the reason and its masked text."""

    __tablename__ = "rejected"
    topic: Mapped[str] = mapped_column(primary_key=True)
    partition: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    record_offset: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code: Mapped[str]
    reason: Mapped[str]
    raw: Mapped[str]
    recorded_at: Mapped[str]


class OffsetRow(Base):
    """The next offset to read of one partition, and which log it counts in (empty when the broker does not say)."""

    __tablename__ = "consumer_offsets"
    topic: Mapped[str] = mapped_column(primary_key=True)
    partition: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    log_id: Mapped[str]
    next_offset: Mapped[int]


# --- pay --------------------------------------------------------------------------------------------------------------


class PayFactRow(Origin, Base):
    """What an event said about a person's pay: a roster entry or a statement of pay (``document`` is a ``PayFact``)."""

    __tablename__ = "pay_facts"
    __table_args__ = (Index("pay_facts_agent", "agent"),)
    event_key: Mapped[str] = mapped_column(primary_key=True)
    agent: Mapped[str]
    document: Mapped[str]


class SettlementEventRow(Origin, Base):
    """A settlement event as it came, to be carried out in the order of the log."""

    __tablename__ = "settlement_events"
    event_key: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    at: Mapped[str]
    document: Mapped[str]


class SettlementOutcomeRow(Base):
    """What became of a settlement event: ``applied``, ``unchanged`` or ``refused``, and why."""

    __tablename__ = "settlement_outcomes"
    event_key: Mapped[str] = mapped_column(primary_key=True)
    outcome: Mapped[str]
    batch: Mapped[str]
    reason: Mapped[str]
    recorded_at: Mapped[str]


class PayBatchRow(Base):
    """A batch of statements with its control totals, the terms it was worked out by, and how far the log was read."""

    __tablename__ = "pay_batches"
    __table_args__ = (Index("pay_batches_period", "pack", "period"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    pack: Mapped[str]
    pack_version: Mapped[str]
    period: Mapped[str]
    number: Mapped[int]
    statements: Mapped[int]
    entries: Mapped[int]
    total_minor: Mapped[int]
    currency: Mapped[str]
    requested_by: Mapped[str]
    posted_at: Mapped[str]
    reason: Mapped[str]
    replaces: Mapped[str]
    digest: Mapped[str]
    terms: Mapped[str]
    read_up_to: Mapped[str]
    event_key: Mapped[str]


class PayStateRow(Base):
    """A state that a batch entered; it is in the furthest one. ``details`` is JSON: totals, files, a reference."""

    __tablename__ = "pay_states"
    batch: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    by: Mapped[str]
    at: Mapped[str]
    reason: Mapped[str]
    details: Mapped[str]
    event_key: Mapped[str]


class PayStatementRow(Base):
    """The statement of one person in a batch (``document`` is a ``Settlement``)."""

    __tablename__ = "pay_statements"
    batch: Mapped[str] = mapped_column(primary_key=True)
    agent: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str]
    total_minor: Mapped[int]
    document: Mapped[str]


class PayEntryRow(Base):
    """One entry of the feed; ``key`` is its idempotency key."""

    __tablename__ = "pay_entries"
    __table_args__ = (Index("pay_entries_batch", "batch"), Index("pay_entries_agent", "agent", "of_period"))
    key: Mapped[str] = mapped_column(primary_key=True)
    batch: Mapped[str]
    agent: Mapped[str]
    component: Mapped[str]
    source: Mapped[str]
    of_period: Mapped[str]
    effective_period: Mapped[str]
    event_time: Mapped[str]
    posted_at: Mapped[str]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    clause: Mapped[str]
    reverses: Mapped[str]


class PayPublishedRow(Base):
    """A state of a batch that was sent to ``kaohe.settlements``."""

    __tablename__ = "pay_published"
    batch: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    recorded_at: Mapped[str]


class ChainRow(Base):
    """One link of the hash chain: it seals one row of ``entity`` and every link before it."""

    __tablename__ = "ledger_chain"
    link: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    entity: Mapped[str]
    row_key: Mapped[str]
    digest: Mapped[str]
    hash: Mapped[str]


CHAINED: tuple[Table, ...] = tuple(
    cast(Table, row.__table__)
    for row in (
        LedgerEntryRow, AlertRow, GradeRow, ConflictRow, PayFactRow, SettlementEventRow, SettlementOutcomeRow,
        PayBatchRow, PayStateRow, PayStatementRow, PayEntryRow,
    )
)  # fmt: skip
"""The tables whose every row has a link in the hash chain."""

METADATA = Base.metadata
