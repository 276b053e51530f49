"""What holds the ledger together: nothing is updated or deleted, and one view tells which revision counts.

The triggers are the database's own refusal. They hold against every client, not only against Kaohe.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

GUARDED = {
    "ledger_entries": ("id", "revision"),
    "alerts": ("id", "state"),
    "grades": ("id", "revision"),
    "conflicts": ("digest",),
}

# A final revision outranks every provisional one, whatever their numbers and the order in which they arrived.
CURRENT = """
CREATE VIEW {view} AS
SELECT entry.* FROM {table} AS entry
WHERE NOT EXISTS (
    SELECT 1 FROM {table} AS newer
    WHERE newer.id = entry.id
      AND ((newer.status = 'final' AND entry.status = 'provisional')
           OR (newer.status = entry.status AND newer.revision > entry.revision))
)
"""


def upgrade() -> None:
    """Guard the tables and create the views."""
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()
    op.execute(CURRENT.format(view="current_entries", table="ledger_entries"))
    op.execute(CURRENT.format(view="current_grades", table="grades"))


def _guard_sqlite() -> None:
    for table, key in GUARDED.items():
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {verb} refused'); END"
            )
        # INSERT OR REPLACE deletes the old row without firing the trigger above, so the first row has to win here.
        same = " AND ".join(f"{column} = NEW.{column}" for column in key)
        there = f"EXISTS (SELECT 1 FROM {table} WHERE {same})"  # noqa: S608 (names from the table above)
        op.execute(
            f"CREATE TRIGGER {table}_first_wins BEFORE INSERT ON {table} "
            f"WHEN {there} BEGIN SELECT RAISE(IGNORE); END"
        )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION kaohe_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP; END $$"
    )
    for table in GUARDED:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION kaohe_append_only()"
        )


def downgrade() -> None:
    """Refused: nothing in the ledger is erased."""
    raise NotImplementedError("the ledger only grows; restore a backup instead of downgrading")
