"""A grade may end as withdrawn: the newest revision counts, unless there is a final one."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

CURRENT = """
CREATE VIEW current_grades AS
SELECT entry.* FROM grades AS entry
WHERE NOT EXISTS (
    SELECT 1 FROM grades AS newer
    WHERE newer.id = entry.id
      AND ((newer.status = 'final' AND entry.status <> 'final')
           OR ((newer.status = 'final') = (entry.status = 'final') AND newer.revision > entry.revision))
)
"""


def upgrade() -> None:
    """Let the view of the grades that count know the third state."""
    op.execute("DROP VIEW current_grades")
    op.execute(CURRENT)


def downgrade() -> None:
    """Refused: nothing in the ledger is erased."""
    raise NotImplementedError("the ledger only grows; restore a backup instead of downgrading")
