"""The Unix sockets for callers: handed over by systemd, or created here with the right owner and mode.

A socket is created only in a folder that nobody but trusted users can write: whoever can write a folder can replace our
socket with a symlink at any moment, and what we then did to the path would be done to another file. It has its mode
from the start (by the umask), and its owner is set through a descriptor of the file; nothing is changed by path.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from offload import _dataplane
from offload.config.settings import Config
from offload.config.sockets import Socket, Sockets
from offload.filesystem.trusted_paths import Trust, UntrustedPathError, check_place

BACKLOG = 1024
_umask = threading.Lock()  # the umask is the process's


class SocketError(OSError):
    """A socket that cannot be created; the message names it and the way out."""


@dataclass
class Listener:
    name: str
    socket: socket.socket
    made: tuple[Path, int] | None  # the file we created and its inode; None for a socket from systemd

    @property
    def borrowed(self) -> Listener:
        """The same socket without its file, which stays whatever happens to us."""
        return Listener(self.name, self.socket, None)

    @property
    def lost(self) -> bool:
        """Whether somebody has removed our file, so that nobody new can connect. False if we may not look."""
        if self.made is None:
            return False
        try:
            os.lstat(self.made[0])
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Closes it and removes its file, unless somebody else's socket is there by now."""
        if self.made is not None:
            remove_socket_file(*self.made)
        self.socket.close()


def open_listeners(
    sockets: Sockets, handed_over: dict[str, socket.socket], taken: Mapping[str, Listener], trust: Trust
) -> list[Listener]:
    """All sockets of the configuration; those from systemd, or the previous daemon, as they are. SocketError."""
    named = sockets.by_name()
    for name in handed_over:
        if name not in named:
            raise SocketError(
                f"systemd handed over a socket named '{name}', but the configuration has only: "
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
                listeners.append(make_listener(name, settings, trust))
    except SocketError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def make_listener(name: str, settings: Socket, trust: Trust) -> Listener:
    """Binds and listens. Nobody but us can connect before owner and mode are right. SocketError."""
    path = settings.path
    check_folder(path, trust)
    clear_the_way(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made = bind(listening, path, settings)
        listening.listen(BACKLOG)
        return Listener(name, listening, made)
    except OSError as error:
        listening.close()
        if isinstance(error, SocketError):
            raise
        raise SocketError(f"cannot create the socket {path}: {error.strerror}{_hint(error, path)}") from error


def bind(unbound: socket.socket, path: Path, settings: Socket) -> tuple[Path, int]:
    """Gives the socket its file, with its owner and mode, and returns its inode. OSError, SocketError."""
    with umask_for(settings.mode):
        unbound.bind(str(path))
    return path, take_possession(path, settings)


def check_folder(path: Path, trust: Trust) -> None:
    """Checks that we may create a socket at this path: nobody else can change its folder. SocketError."""
    try:
        check_place(path.parent, trust)
    except UntrustedPathError as error:
        raise SocketError(f"cannot create a socket at {path}: {error}") from error
    except OSError as error:
        raise SocketError(f"cannot create the socket {path}: {error.strerror}{_hint(error, path)}") from error


def untrusted_folders(config: Config, trust: Trust) -> list[str]:
    """Why the daemon would create no socket at these paths, for the folders that exist."""
    reasons: list[str] = []
    for settings in config.all_sockets():
        try:
            check_place(settings.path.parent, trust)
        except UntrustedPathError as error:
            reasons.append(f"cannot create a socket at {settings.path}: {error}")
        except OSError:
            continue
    return reasons


@contextmanager
def umask_for(mode: int) -> Iterator[None]:
    """A socket that is bound meanwhile has this mode from the start."""
    with _umask:
        before = os.umask(0o777 & ~mode)
        try:
            yield
        finally:
            os.umask(before)


def take_possession(path: Path, settings: Socket) -> int:
    """Sets the owner of a fresh socket file and returns its inode, or removes it. SocketError."""
    try:
        file = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise SocketError(f"the socket {path} disappeared right after it was created: {error.strerror}") from error
    try:
        _grant(file, path, settings)
        return os.fstat(file).st_ino
    except SocketError:
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(file)


def _grant(file: int, path: Path, settings: Socket) -> None:
    """Changes the file of the descriptor, whatever is at the path by now. SocketError."""
    made = os.fstat(file)
    if not stat.S_ISSOCK(made.st_mode) or made.st_uid != os.geteuid() or made.st_nlink != 1:
        raise SocketError(f"{path} is not the socket that was just created: does another process write to this folder?")
    if stat.S_IMODE(made.st_mode) != settings.mode:
        raise SocketError(
            f"the socket {path} would have mode {stat.S_IMODE(made.st_mode):04o}, not {settings.mode:04o}: its folder "
            f"has a default ACL, which overrules it (setfacl -k {path.parent})"
        )
    try:
        uid, gid = settings.owner_uid(), settings.group_gid()
        if (uid, gid) != (-1, -1):
            _dataplane.change_owner(file, uid, gid)
    except (OSError, KeyError) as error:
        raise SocketError(
            f"cannot give the socket {path} owner {settings.owner} and group {settings.group}: {error}; the daemon "
            "must be root (or have CAP_CHOWN), or a member of that group"
        ) from error


def clear_the_way(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Removes the file of a socket that nobody serves any more. SocketError for anything else."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"cannot examine {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(status.st_mode):
        raise SocketError(f"{path} exists and is not a socket; the daemon does not remove it")
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
            raise SocketError(
                f"{path} exists, and the daemon cannot determine whether it is in use: {error.strerror}"
            ) from error
    raise SocketError(f"another process answers on {path}: is a daemon already running?")


def remove_socket_file(path: Path, inode: int) -> None:
    """Removes our own file and nobody else's. The socket is still open: a closed one's inode may have been reused."""
    with suppress(OSError):
        if os.lstat(path).st_ino == inode:
            os.unlink(path)


def _hint(error: OSError, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"; create its folder ({path.parent}, mode 0755), or let systemd do so with RuntimeDirectory="
    if isinstance(error, PermissionError):
        return f"; the daemon's user has no write permission in {path.parent}"
    return ""
