"""The database under the store: opening, migration, check of the key, transactions, and whether it accepts changes."""

from __future__ import annotations

import base64
import secrets as random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from control.store import migrate, sealing
from control.store.engine import make_engine, sqlite_path
from control.store.errors import StoreUnavailable, WrongStoreKey
from control.store.tables import facts

Observe = Callable[[str, float], None]

_KEY_CHECK = "key-check"
_SALT = "passphrase-salt"
_PROBE = "last-probe"
_RESTORED = "restored"


@dataclass(frozen=True)
class StoreKey:
    """What secrets are sealed with: exactly one of the two."""

    file: Path | None = None
    passphrase: str | None = None


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Database:
    """`observe` is told each operation's name and seconds."""

    def __init__(self, url: str, key: StoreKey, observe: Observe | None = None) -> None:
        """Opens, migrates and checks the key. Raises IncompatibleStore, WrongStoreKey, StoreUnavailable."""
        self.url, self._observe = url, observe
        # Why the last write failed; None if it succeeded. Reads may go on all the same, with a full disk for example.
        self.problem: str | None = None
        # SQLite has one writer at a time, and lets waiting ones retry now and then, in no order, until one has waited
        # too long. Writers of this process, which are nearly all, take turns instead.
        path = sqlite_path(url)
        self._writing = threading.Lock() if path is not None else nullcontext()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
        self._engine = make_engine(url)
        with self._transaction("open", writes=True) as connection:
            migrate.upgrade(connection)
            self._sealer = self._open_sealer(connection, key)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self, operation: str, writes: bool = False) -> Iterator[sa.Connection]:
        began = time.perf_counter()
        try:
            with (
                self._writing if writes else nullcontext(),
                self._engine.execution_options(writes=writes).begin() as connection,
            ):
                yield connection
            if writes:
                self.problem = None
        except DBAPIError as error:
            lost = StoreUnavailable(f"the store ({self._engine.url!r}) failed at {operation!r}: {error.orig}")
            if writes:
                self.problem = str(lost)
            raise lost from error
        finally:
            if self._observe is not None:
                self._observe(operation, time.perf_counter() - began)

    # --- the key ------------------------------------------------------------------------------------------------------

    def _open_sealer(self, connection: sa.Connection, key: StoreKey) -> sealing.Sealer:
        if (key.file is None) == (key.passphrase is None):
            raise WrongStoreKey("the store needs either a key file or a passphrase")
        if key.passphrase is not None:
            salt = self._fact(
                connection, _SALT, lambda: base64.b64encode(random.token_bytes(sealing.SALT_SIZE)).decode()
            )
            sealer = sealing.Sealer(sealing.key_from_passphrase(key.passphrase, base64.b64decode(salt)))
        else:
            assert key.file is not None
            sealer = sealing.Sealer(sealing.key_from_file(key.file))
        check = self._fact(connection, _KEY_CHECK, lambda: base64.b64encode(sealer.seal(_KEY_CHECK, b"")).decode())
        try:
            sealer.open(_KEY_CHECK, base64.b64decode(check))
        except WrongStoreKey:
            given = f"key file {key.file}" if key.file else "passphrase"
            raise WrongStoreKey(f"the {given} is not the one this store was created with") from None
        return sealer

    @staticmethod
    def _fact(connection: sa.Connection, name: str, make: Callable[[], str]) -> str:
        """Returns the fact, which is created if it does not exist yet."""
        value = connection.execute(sa.select(facts.c.value).where(facts.c.name == name)).scalar()
        if value is None:
            value = make()
            connection.execute(facts.insert().values(name=name, value=value))
        return str(value)

    def probe(self) -> None:
        """Writes something small, so that a store that rejects changes is noticed before somebody needs one."""
        with self._transaction("probe", writes=True) as connection:
            where = facts.c.name == _PROBE
            if connection.execute(facts.update().where(where).values(value=timestamp())).rowcount == 0:
                connection.execute(facts.insert().values(name=_PROBE, value=timestamp()))

    # --- a restore ----------------------------------------------------------------------------------------------------

    def note_restore(self, note: str) -> None:
        """Notes for the next control plane that the store was restored from a backup."""
        with self._transaction("restored", writes=True) as connection:
            connection.execute(facts.delete().where(facts.c.name == _RESTORED))
            connection.execute(facts.insert().values(name=_RESTORED, value=note))

    def take_restore(self) -> str | None:
        """Returns the note of a restore, once."""
        with self._transaction("restored") as connection:
            note = connection.execute(sa.select(facts.c.value).where(facts.c.name == _RESTORED)).scalar()
        if note is None:
            return None
        with self._transaction("restored", writes=True) as connection:
            gone = connection.execute(facts.delete().where(facts.c.name == _RESTORED)).rowcount
        return str(note) if gone else None
