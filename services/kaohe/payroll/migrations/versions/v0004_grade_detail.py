"""How a grade of a scorecard came about, line by line, is kept beside it; grades without that have ``null``."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kaohe.payroll.migrations.versions.v0002_append_only import CURRENT

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column, and let the view of the grades that count show it."""
    op.execute("DROP VIEW current_grades")
    op.add_column("grades", sa.Column("detail", sa.Text(), nullable=False, server_default="null"))
    op.execute(CURRENT.format(view="current_grades", table="grades"))


def downgrade() -> None:
    """Refused: nothing in the ledger is erased."""
    raise NotImplementedError("the ledger only grows; restore a backup instead of downgrading")
