"""Run by alembic: uses the connection that migrate.py hands over, inside its transaction."""

from alembic import context

from control.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata)
context.run_migrations()
