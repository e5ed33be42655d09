"""What Alembic runs to bring a database to another revision: see the package."""

from __future__ import annotations

from alembic import context

from d1fleet.registry.migrations import VERSION_TABLE
from d1fleet.registry.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite can, too, where a transaction really is begun (`sqlitefile`).
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
