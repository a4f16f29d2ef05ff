"""The folder of a running proxy: its bootstrap file and the socket of its admin interface, for its user alone.

Theory of operation
-------------------
`mesh dataplane run` becomes Envoy, so nothing of it is left that could clean up at the end. Instead a folder belongs
to the holder of its lock: the descriptor is inherited by Envoy and closed by the kernel, however Envoy ends. The next
proxy of that name takes the same folder; while the previous one still runs (a restart that overlaps), it takes
another beside it, `default.web-1+2`. Folders of proxies that no longer run are removed at each start.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

BOOTSTRAP, SOCKET = "bootstrap.json", "admin.sock"
_FILES = (BOOTSTRAP, f".{BOOTSTRAP}.new", SOCKET)
# Size of sockaddr_un.sun_path, without the zero at its end.
MAX_SOCKET_PATH = 107
# Length of a folder's name: mesh and dataplane names of 63 and 253 characters would exceed a socket's path.
MAX_LABEL = 40
# Versions before this one left a folder with the token in the temporary folder at each start. One that is younger
# than this many seconds may belong to a start in progress.
LEFTOVER_AGE_S = 3600


class UnusableFolder(Exception):
    """The proxy cannot have a folder of its own; the message says why, and the way out."""


@dataclass(frozen=True)
class ProxyFolder:
    path: Path
    # Holds the lock; inherited by the program that this process becomes.
    descriptor: int

    @property
    def bootstrap(self) -> Path:
        return self.path / BOOTSTRAP

    @property
    def admin_socket(self) -> Path:
        return self.path / SOCKET

    def remove(self) -> None:
        """To be called if no Envoy was started."""
        _remove(self.path)
        os.close(self.descriptor)


def default_base(environment: Mapping[str, str] = os.environ) -> Path:
    """systemd's folder of the unit, the one of the user's session, or one in the temporary folder."""
    if unit := environment.get("RUNTIME_DIRECTORY"):
        return Path(unit.partition(":")[0])
    session = environment.get("XDG_RUNTIME_DIR")
    # `sudo -u` may leave the variable of another user.
    if session and (found := _status(Path(session))) is not None and found.st_uid == os.geteuid():
        return Path(session) / "mesh"
    return Path(tempfile.gettempdir()) / f"mesh-{os.geteuid()}"


def take(base: Path, node_id: str, with_socket: bool = True) -> ProxyFolder:
    """Takes a folder in `base` for the proxy, creating it if missing. Raises UnusableFolder, OSError."""
    label = _label(node_id)
    # The longest possible path: whether it fits must not depend on who runs beside it.
    if with_socket and len(os.fsencode(base / f"{label}+99" / SOCKET)) > MAX_SOCKET_PATH:
        raise UnusableFolder(
            f"the path of a socket in {base} would be longer than the {MAX_SOCKET_PATH} bytes that the kernel takes: "
            "choose a shorter --runtime-folder"
        )
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    _check_own(base)
    for name in _names(label):
        path = base / name
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        descriptor = _lock(path)
        if descriptor is None:
            continue
        os.fchmod(descriptor, 0o700)
        (path / SOCKET).unlink(missing_ok=True)
        os.set_inheritable(descriptor, True)
        _clean(base, path)
        return ProxyFolder(path, descriptor)
    raise AssertionError("the names never end")


def _names(label: str) -> Iterator[str]:
    """No name of a mesh or dataplane has a plus sign."""
    yield label
    yield from (f"{label}+{number}" for number in itertools.count(2))


def _label(node_id: str) -> str:
    if len(node_id) <= MAX_LABEL and "/" not in node_id and "\0" not in node_id:
        return node_id
    digest = hashlib.sha256(node_id.encode()).hexdigest()[:12]
    return f"{node_id[: MAX_LABEL - 13].replace('/', '_')}-{digest}"


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _check_own(base: Path) -> None:
    """In the temporary folder anybody may have created it, to have his files read or ours."""
    found = base.stat()
    trusted = base.lstat().st_uid in (0, os.geteuid())  # systemd creates symlinks for its dynamic users
    if not trusted or not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UnusableFolder(f"{base} is not a folder of this user: remove it, or choose another --runtime-folder")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnusableFolder(f"others can write in {base}: chmod go-w {base}")


def _lock(folder: Path) -> int | None:
    """None if somebody runs in it, or it has been removed meanwhile."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there, ours = _status(folder), os.fstat(descriptor)
        if there is not None and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _clean(base: Path, ours: Path) -> None:
    """Removes the folders of proxies that no longer run. Anything that is not of this program stays."""
    for path in base.iterdir():
        if path == ours or not _is_ours(path):
            continue
        descriptor = _lock(path)
        if descriptor is not None:
            _remove(path)
            os.close(descriptor)


def _is_ours(path: Path) -> bool:
    """An empty folder may be anybody's: in this user's home, if he chose that."""
    try:
        names = {one.name for one in path.iterdir()}
        return path.lstat().st_uid == os.geteuid() and bool(names) and names <= set(_FILES)
    except OSError:
        return False


def _remove(path: Path) -> None:
    for name in _FILES:
        with contextlib.suppress(FileNotFoundError):
            (path / name).unlink()
    with contextlib.suppress(OSError):  # somebody has put something there
        path.rmdir()


def remove_leftovers(folder: Path | None = None, now: float | None = None) -> int:
    """Removes what earlier versions left in the temporary folder; returns how many. Their tokens may still be valid."""
    count, before = 0, (time.time() if now is None else now) - LEFTOVER_AGE_S
    for path in (folder or Path(tempfile.gettempdir())).glob("mesh-*-????????"):
        found = _status(path)
        if found is None or not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            continue
        with contextlib.suppress(OSError):
            if found.st_mtime < before and [one.name for one in path.iterdir()] == [BOOTSTRAP]:
                _remove(path)
                count += 1
    return count
