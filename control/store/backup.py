"""Backup and restore of a SQLite store: one file, one moment, secrets still sealed (keep the key elsewhere)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path

from control.model.resource import Kinds
from control.store.database import StoreKey
from control.store.engine import sqlite_path
from control.store.errors import IncompatibleStore, StoreError
from control.store.lock import alone
from control.store.store import Store


class BackupFailed(StoreError):
    """Nothing was written, or what was written was removed again."""


def backup(url: str, target: Path) -> None:
    """Copies the store while it is in use. The target must not exist."""
    source = _file_of(url)
    if not source.is_file():
        raise BackupFailed(f"there is no store at {source}")
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise BackupFailed(f"cannot create the backup {target}: {error.strerror}") from error
    try:
        with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as write:
            read.backup(write)
            # Makes one file, not a file and its log.
            write.execute("PRAGMA journal_mode=DELETE")
        _check(target)
    except (sqlite3.Error, StoreError) as error:
        target.unlink()
        raise BackupFailed(f"the backup of {source} failed: {error}") from error


def restore(source: Path, url: str, key: StoreKey, kinds: Kinds, replace: bool = False, note: str = "") -> int:
    """Restores a backup; returns its number of resources. Raises StoreInUse if a control plane runs on a store that
    would be replaced; one whose store is lost takes the backup without a restart.

    The backup is opened with the key first: an unusable one must not replace anything. `note`: who restores, for the
    audit log of the next control plane.
    """
    target = _file_of(url)
    if not source.is_file():
        raise BackupFailed(f"there is no backup at {source}")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone(target) if target.exists() else nullcontext():
        if target.exists() and not replace:
            raise BackupFailed(f"there is a store at {target} already: use --replace to replace it with the backup")
        return _replace(source, target, key, kinds, note)


def _replace(source: Path, target: Path, key: StoreKey, kinds: Kinds, note: str) -> int:
    staged = target.with_name(f".{target.name}.restore")
    _remove(staged)
    os.close(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as read,
            closing(sqlite3.connect(staged)) as write,
        ):
            read.backup(write)
        _check(staged)
        opened = Store(f"sqlite:///{staged}", key, kinds)
        count = len(opened.read())
        if note:
            opened.note_restore(note)
        opened.close()
        with closing(sqlite3.connect(staged)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    except (sqlite3.Error, StoreError) as error:
        _remove(staged)
        raise BackupFailed(f"the backup {source} cannot be used: {error}") from error
    # root restores on behalf of the control plane's user, who could not open it otherwise.
    folder = target.parent.stat()
    if os.geteuid() == 0:
        os.chown(staged, folder.st_uid, folder.st_gid)
    # The log of the replaced store must not be applied to the new one.
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    staged.rename(target)
    return count


def _file_of(url: str) -> Path:
    path = sqlite_path(url)
    if path is None:
        raise BackupFailed("backup and restore are for SQLite; use the tools of the database server")
    return path


def _check(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        [verdict] = connection.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise IncompatibleStore(f"{path} is damaged: {verdict}")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "alembic_version" not in tables:
        raise IncompatibleStore(f"{path} is not a store of the control plane")


def _remove(staged: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        staged.with_name(staged.name + suffix).unlink(missing_ok=True)
