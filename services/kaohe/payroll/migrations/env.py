"""How Alembic reaches the database: over the connection that ``upgrade`` hands in.

Theory of operation: the caller opens the connection and its transaction, so all steps that are missing are applied in
one transaction and either all or none of them are there afterwards. There is no offline mode and no ``alembic.ini``.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

connection = context.config.attributes["connection"]
assert isinstance(connection, Connection)

context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
