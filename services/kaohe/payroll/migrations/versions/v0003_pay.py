"""Pay: facts, settlement events, batches, statements and entries; and the hash chain over everything that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

GUARDED = {
    "pay_facts": ("event_key",),
    "settlement_events": ("event_key",),
    "settlement_outcomes": ("event_key",),
    "pay_batches": ("id",),
    "pay_states": ("batch", "state"),
    "pay_statements": ("batch", "agent"),
    "pay_entries": ("key",),
    "ledger_chain": ("link",),
}
OLD = {
    "ledger_entries": ("id", "revision"),
    "alerts": ("id", "state"),
    "grades": ("id", "revision"),
    "conflicts": ("digest",),
}
PAGE_ROWS = 500
_ENCODER = msgspec.json.Encoder(order="deterministic")


def _text(*names: str) -> Iterator[sa.Column[str]]:
    for name in names:
        yield sa.Column(name, sa.Text(), nullable=False)


def _big(*names: str) -> Iterator[sa.Column[int]]:
    for name in names:
        yield sa.Column(name, sa.BigInteger(), nullable=False)


def _key(*names: str) -> Iterator[sa.Column[str]]:
    for name in names:
        yield sa.Column(name, sa.Text(), nullable=False, primary_key=True)


def _origin() -> Iterator[sa.Column[Any]]:
    yield from _text("topic")
    yield from _big("partition", "record_offset")
    yield from _text("recorded_at")


def upgrade() -> None:
    """Create the tables, guard them, and seal what the ledger holds already."""
    _create_events()
    _create_books()
    op.create_table(
        "ledger_chain",
        sa.Column("link", sa.BigInteger(), nullable=False, primary_key=True, autoincrement=False),
        *_text("entity", "row_key", "digest", "hash"),
    )
    # A settlement reads a month's final entries of everybody.
    op.create_index("ledger_entries_period", "ledger_entries", ["period", "status"])
    op.create_index("grades_period", "grades", ["period", "status"])
    _seal()
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def _create_events() -> None:
    op.create_table("pay_facts", *_key("event_key"), *_text("agent", "document"), *_origin())
    op.create_index("pay_facts_agent", "pay_facts", ["agent"])
    op.create_table("settlement_events", *_key("event_key"), *_text("type", "at", "document"), *_origin())
    op.create_table(
        "settlement_outcomes", *_key("event_key"), *_text("outcome", "batch", "reason", "recorded_at")
    )


def _create_books() -> None:
    op.create_table(
        "pay_batches",
        *_key("id"),
        *_text("kind", "pack", "pack_version", "period"),
        *_big("number", "statements", "entries", "total_minor"),
        *_text(
            "currency", "requested_by", "posted_at", "reason", "replaces", "digest", "terms", "read_up_to"
        ),
        *_text("event_key"),
    )
    op.create_index("pay_batches_period", "pay_batches", ["pack", "period"])
    op.create_table(
        "pay_states", *_key("batch", "state"), *_text("by", "at", "reason", "details", "event_key")
    )
    op.create_table(
        "pay_statements", *_key("batch", "agent"), *_text("id"), *_big("total_minor"), *_text("document")
    )
    op.create_table(
        "pay_entries",
        *_key("key"),
        *_text("batch", "agent", "component", "source", "of_period", "effective_period", "event_time"),
        *_text("posted_at"),
        *_big("amount_minor"),
        *_text("currency", "clause", "reverses"),
    )
    op.create_index("pay_entries_batch", "pay_entries", ["batch"])
    op.create_index("pay_entries_agent", "pay_entries", ["agent", "of_period"])
    op.create_table("pay_published", *_key("batch", "state"), *_text("recorded_at"))


def _seal() -> None:
    """A link for each row that was there before, table by table, in the order of keys."""
    connection = op.get_bind()
    link, sealed = 0, "0" * 64
    chain = sa.table(
        "ledger_chain", *(sa.column(name) for name in ("link", "entity", "row_key", "digest", "hash"))
    )
    inspector = sa.inspect(connection)
    for name, key in OLD.items():
        columns: list[Any] = [sa.column(found["name"]) for found in inspector.get_columns(name)]
        rows = connection.execute(
            sa.select(*columns).select_from(sa.table(name)).order_by(*map(sa.column, key))
        )
        for page in rows.mappings().partitions(PAGE_ROWS):
            links = []
            for row in page:
                plain = {str.__str__(column): value for column, value in row.items()}
                digest = sha256(_ENCODER.encode([name, plain])).hexdigest()
                link, sealed = link + 1, sha256(f"{sealed}{digest}".encode()).hexdigest()
                row_key = _ENCODER.encode([row[one] for one in key]).decode()
                links.append(
                    {"link": link, "entity": name, "row_key": row_key, "digest": digest, "hash": sealed}
                )
            connection.execute(sa.insert(chain), links)


def _guard_sqlite() -> None:
    for table, key in GUARDED.items():
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {verb} refused'); END"
            )
        same = " AND ".join(f"{column} = NEW.{column}" for column in key)
        there = f"EXISTS (SELECT 1 FROM {table} WHERE {same})"  # noqa: S608 (names from the table above)
        op.execute(
            f"CREATE TRIGGER {table}_first_wins BEFORE INSERT ON {table} "
            f"WHEN {there} BEGIN SELECT RAISE(IGNORE); END"
        )


def _guard_postgresql() -> None:
    for table in GUARDED:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION kaohe_append_only()"
        )


def downgrade() -> None:
    """Refused: nothing in the ledger is erased."""
    raise NotImplementedError("the ledger only grows; restore a backup instead of downgrading")
