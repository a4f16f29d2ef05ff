"""The database engine: SQLite set up so that what was acknowledged is on disk, and no writer starves another."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

# How long a writer waits for another one.
BUSY_TIMEOUT_MS = 5000


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases."""
    parsed = sa.make_url(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def shown(url: str) -> str:
    """The URL for logs: without the password."""
    return sa.make_url(url).render_as_string(hide_password=True)


def make_engine(url: str) -> sa.Engine:
    """`url`: for example sqlite:////var/lib/mesh/mesh.db. The file must exist, or nothing can be read or written: one
    that disappears while it is in use must not come back empty."""
    path = sqlite_path(url)
    if path is None:
        return sa.create_engine(url, pool_pre_ping=True, poolclass=QueuePool)
    # A connection costs tens of microseconds; without a pool none survives a restore of the file.
    engine = sa.create_engine(url, poolclass=NullPool)

    def connect(*_: object) -> sqlite3.Connection:
        name = f"file:{quote(str(path.absolute()))}?mode=rw"
        return sqlite3.connect(name, BUSY_TIMEOUT_MS / 1000, uri=True, check_same_thread=False)

    sa.event.listen(engine, "do_connect", connect)
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _: object) -> None:
    # The driver's own transactions begin only at the first write, too late to keep readers and writers in order.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # A commit is on disk before it is acknowledged.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
