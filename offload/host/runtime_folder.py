"""The folder of a socket: the daemon creates it where it may, and names the command for it where it may not."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from offload.filesystem.accounts import name_of_user
from offload.filesystem.trusted_paths import Trust, UntrustedPathError, check_place
from offload.host.listeners import SocketError

# Callers must get through to the socket, whose own mode says who may connect; only the daemon may write here.
MODE = 0o755


def make_folder(folder: Path, trust: Trust, owner: int | None = None) -> bool:
    """Creates what is missing of the path, for `owner` (None: ourselves); True if anything was missing. SocketError.

    An existing folder stays as it is, and none is created where somebody else could replace it. A new one gets its
    owner and mode through its descriptor, so that nobody who may write in a folder above can have another file take
    its place meanwhile.
    """
    if _is_folder(folder):
        return False
    if not _is_folder(folder.parent):
        make_folder(folder.parent, trust, owner)
    try:
        check_place(folder.parent, trust)
        os.mkdir(folder, 0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if owner is not None and owner != os.geteuid():
                os.fchown(descriptor, owner, -1)
            os.fchmod(descriptor, MODE)
        finally:
            os.close(descriptor)
    except UntrustedPathError as error:
        raise SocketError(f"cannot create the folder {folder}: {error}") from error
    except FileExistsError:
        if _is_folder(folder):
            return False  # somebody else was faster
        raise SocketError(f"{folder} is not a folder, but a socket's path is in it; choose another path") from None
    except OSError as error:
        raise SocketError(f"cannot create the folder {folder}: {error.strerror}; {way_out(folder)}") from error
    return True


def _is_folder(path: Path) -> bool:
    """False if nothing is there. SocketError if that cannot be told: the owner of a folder above may close it."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise SocketError(f"cannot inspect the folder {path}: {error.strerror}; {way_out(path)}") from error


def way_out(folder: Path) -> str:
    """How somebody creates a folder that the daemon's user may not create."""
    return (
        f"create it once as root: install -d -o {name_of_user(os.geteuid())} {shlex.quote(str(folder))}   "
        "or choose paths in a folder of your own (sockets.main.path, admin.path)"
    )
