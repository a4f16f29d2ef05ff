"""Who uses a SQLite store: control planes share a lock beside the file; whoever replaces the file must hold it alone.

The kernel releases a lock when its process ends, however it ends: none is ever stale. The file stays, and means nothing
by itself.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from control.store.errors import StoreError


class StoreInUse(StoreError):
    """A control plane runs on the store, or somebody is replacing it."""


def lock_file(store: Path) -> Path:
    return store.with_name(store.name + ".lock")


def share(store: Path) -> int:
    """The lock of a control plane, held as long as the descriptor is open. Raises StoreInUse, OSError."""
    descriptor = _open(store)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreInUse(
            f"the store {store} is being restored (mesh restore): start again when that has finished"
        ) from None
    # For the error message of whoever is rejected; if several share it, the last of them.
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


@contextmanager
def alone(store: Path) -> Iterator[None]:
    """The lock for replacing the store. Raises StoreInUse if a control plane runs on it, OSError."""
    descriptor = _open(store)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreInUse(
                f"the store {store} is in use{_by(descriptor)}: stop the control plane first. Replacing it "
                "now would lose changes, and revoked tokens would become valid again"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _open(store: Path) -> int:
    descriptor = os.open(lock_file(store), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    # root may have created it for the control plane's user.
    with suppress(PermissionError):
        folder = store.parent.stat()
        if os.fstat(descriptor).st_uid != folder.st_uid:
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    return descriptor


def _by(descriptor: int) -> str:
    text = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
    return f" by the process {text}" if text.isdigit() else ""
