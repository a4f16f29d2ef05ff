"""Migrates a database to the tables of this version; rejects one that is newer."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from control.store.errors import IncompatibleStore

MIGRATIONS = Path(__file__).parent / "migrations"


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def current_revision(connection: sa.Connection) -> str | None:
    """None if no migration was ever run."""
    return MigrationContext.configure(connection).get_current_revision()


def check(connection: sa.Connection) -> None:
    """Raises IncompatibleStore for a revision that this version does not know."""
    revision = current_revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise IncompatibleStore(
            f"the database is at revision {revision}, which this version does not know (it knows "
            f"{', '.join(sorted(known))}): it was used with a newer control plane; start that one, or restore a backup"
        )


def upgrade(connection: sa.Connection) -> None:
    """Migrates to the newest revision, in the connection's transaction."""
    check(connection)
    command.upgrade(_config(connection), "head")
