"""The tables: entries, alerts, grades, conflicts, rejected records and the consumer's offsets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _big(name: str, *, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, primary_key=primary_key, autoincrement=False)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, primary_key=True)


def _origin() -> tuple[sa.Column[str], sa.Column[int], sa.Column[int], sa.Column[str]]:
    return _text("topic"), _big("partition"), _big("record_offset"), _text("recorded_at")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "ledger_entries",
        _key("id"),
        _big("revision", primary_key=True),
        *(
            _text(name)
            for name in ("kind", "status", "pack", "pack_version", "rule", "clause", "level", "subject")
        ),
        *(_text(name) for name in ("window", "period", "incident", "points")),
        _big("amount_minor"),
        *(_text(name) for name in ("currency", "at", "facts", "parameters", "evidence")),
        _big("evidence_count"),
        *(_text(name) for name in ("arithmetic", "explanation", "owner", "due_at", "proposal", "reverses")),
        _text("adjusts_period"),
        *_origin(),
        sa.CheckConstraint("status IN ('provisional', 'final')", name="ledger_entries_status"),
    )
    op.create_index("ledger_entries_subject_period", "ledger_entries", ["subject", "period"])
    op.create_index("ledger_entries_rule_period", "ledger_entries", ["rule", "period"])
    op.create_table(
        "alerts",
        _key("id"),
        _key("state"),
        *(_text(name) for name in ("pack", "pack_version", "rule", "clause", "severity", "level", "subject")),
        *(_text(name) for name in ("incident", "since", "at", "owner", "title", "explanation", "response")),
        *(_text(name) for name in ("facts", "parameters", "evidence")),
        *_origin(),
    )
    op.create_index("alerts_subject_at", "alerts", ["subject", "at"])
    op.create_table(
        "grades",
        _key("id"),
        _big("revision", primary_key=True),
        *(_text(name) for name in ("status", "pack", "pack_version", "level", "subject", "window", "period")),
        *(
            _text(name)
            for name in ("score", "grade", "previous_grade", "at", "entries", "formula", "explanation")
        ),
        *_origin(),
    )
    op.create_index("grades_subject_period", "grades", ["subject", "period"])
    op.create_table(
        "conflicts",
        _key("digest"),
        *(_text(name) for name in ("reason", "entity", "id", "version", "stored", "offered")),
        *_origin(),
    )
    op.create_table(
        "rejected",
        _key("topic"),
        _big("partition", primary_key=True),
        _big("record_offset", primary_key=True),
        *(_text(name) for name in ("code", "reason", "raw", "recorded_at")),
    )
    op.create_table(
        "consumer_offsets",
        _key("topic"),
        _big("partition", primary_key=True),
        _text("log_id"),
        _big("next_offset"),
    )


def downgrade() -> None:
    """Refused: nothing in the ledger is erased."""
    raise NotImplementedError("the ledger only grows; restore a backup instead of downgrading")
