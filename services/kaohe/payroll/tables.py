"""The ledger's tables as the code sees them. The migrations make them; a test compares the two.

The free-form parts of a record (facts, parameters, evidence, …) are canonical JSON text, points are decimal text, money
is whole minor units: no database's floating point ever sees them.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Text
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
    __table_args__ = (Index("grades_subject_period", "subject", "period"),)
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


METADATA = Base.metadata
