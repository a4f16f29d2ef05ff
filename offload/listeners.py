"""The Unix sockets callers come through: handed over by systemd, or made here with the right owner and mode."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from offload.config import MAIN_SOCKET, Socket, Sockets

BACKLOG = 1024
_umask = threading.Lock()  # the umask is the process's


class SocketError(OSError):
    """A socket that cannot be made; the message names it and the way out."""


@dataclass
class Listener:
    name: str
    socket: socket.socket
    made: tuple[Path, int] | None  # the file we made and its inode; None for a socket from systemd

    @property
    def borrowed(self) -> Listener:
        """The same socket without its file, which stays whatever happens to us."""
        return Listener(self.name, self.socket, None)

    @property
    def lost(self) -> bool:
        """Somebody has removed the file that we made: nobody new can connect."""
        return self.made is not None and not os.path.lexists(self.made[0])

    def close(self) -> None:
        """Closes it and removes its file, unless somebody else's socket stands there by now."""
        if self.made is not None:
            remove_socket_file(*self.made)
        self.socket.close()


def wanted(sockets: Sockets) -> dict[str, Socket]:
    """Every socket of the configuration, by name."""
    named: dict[str, Socket] = {s.name: s for s in sockets.dedicated}
    return ({MAIN_SOCKET: sockets.main} if sockets.main else {}) | named


def open_listeners(
    sockets: Sockets, handed_over: dict[str, socket.socket], taken: Mapping[str, Listener]
) -> list[Listener]:
    """All sockets of the configuration; those from systemd, or of the daemon before us, as they are. SocketError."""
    named = wanted(sockets)
    for name in handed_over:
        if name not in named:
            raise SocketError(
                f"systemd handed over a socket named '{name}', and the configuration has only: "
                f"{', '.join(sorted(named))}; set FileDescriptorName= or add it to 'sockets'"
            )
    listeners: list[Listener] = []
    try:
        for name, settings in named.items():
            if name in taken:
                listeners.append(taken[name].borrowed)
            elif name in handed_over:
                listeners.append(Listener(name, handed_over[name], None))
            else:
                listeners.append(make_listener(name, settings))
    except SocketError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def make_listener(name: str, settings: Socket) -> Listener:
    """Binds and listens. Nobody but us can connect before owner and mode are right. SocketError."""
    path = settings.path
    clear_the_way(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with _umask:
            before = os.umask(0o177)
            try:
                listening.bind(str(path))
            finally:
                os.umask(before)
        take_possession(path, settings)
        listening.listen(BACKLOG)
        return Listener(name, listening, (path, os.lstat(path).st_ino))
    except OSError as error:
        listening.close()
        if isinstance(error, SocketError):
            raise
        raise SocketError(f"cannot make the socket {path}: {error.strerror}{_hint(error, path)}") from error


def take_possession(path: Path, settings: Socket) -> None:
    """Gives a fresh socket file its owner and mode, or removes it. SocketError."""
    try:
        grant(path, settings)
    except SocketError:
        with suppress(OSError):
            os.unlink(path)
        raise


def grant(path: Path, settings: Socket) -> None:
    """Owner, then mode, in this order: chown clears nothing that chmod then grants. SocketError."""
    try:
        uid, gid = settings.owner_uid(), settings.group_gid()
        if (uid, gid) != (-1, -1):
            os.chown(path, uid, gid)
        os.chmod(path, settings.mode)
    except (OSError, KeyError) as error:
        raise SocketError(
            f"cannot give the socket {path} owner {settings.owner}, group {settings.group} and mode "
            f"{settings.mode:04o}: {error}; the daemon must be root (or have CAP_CHOWN), or a member of that group"
        ) from error


def clear_the_way(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Removes the file of a socket that nobody serves any more. SocketError for anything else that is there."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"cannot examine {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(status.st_mode):
        raise SocketError(f"{path} exists and is not a socket: it is not ours to remove")
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            remove_socket_file(path, status.st_ino)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise SocketError(f"{path} exists, and whether it is in use cannot be told: {error.strerror}") from error
    raise SocketError(f"another process answers on {path}: is a daemon running already?")


def remove_socket_file(path: Path, inode: int) -> None:
    """Removes our own file and nobody else's. The socket is still open: a closed one's inode may be another file's."""
    with suppress(OSError):
        if os.lstat(path).st_ino == inode:
            os.unlink(path)


def _hint(error: OSError, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"; make its folder ({path.parent}), or let systemd do it with RuntimeDirectory="
    if isinstance(error, PermissionError):
        return f"; the daemon's user may not write in {path.parent}"
    return ""
