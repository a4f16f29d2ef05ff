"""The file of an audit log: appends whole lines, follows renames, and never writes into somebody else's file.

It may be renamed or removed at any time (logrotate): the next line goes to a new one. A line that was torn, since the
disk was full, stays alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from offload.filesystem.trusted_paths import Trust, UntrustedPathError, check_place

FILE_MODE = 0o600


class Appended(NamedTuple):
    """The number of lines that were written, and why not all of them."""

    lines: int
    error: OSError | None


class AuditFile:
    """Used by one thread at a time."""

    def __init__(self, path: Path, trust: Trust) -> None:
        self.path, self._trust = path, trust
        self._file: int | None = None
        self._torn = False  # the file ends within a line

    def append(self, lines: Sequence[bytes]) -> Appended:
        """Each line must end with a newline and contain no other."""
        before = b""
        taken = b""
        try:
            file = self.open()
            before = b"\n" if self._torn else b""
            data = before + b"".join(lines)
            taken = data[: os.write(file, data)]
            if taken:
                self._torn = not taken.endswith(b"\n")
            if len(taken) < len(data):
                raise OSError(errno.ENOSPC, "only some of the lines could be written")
        except OSError as error:
            return Appended(taken[len(before) :].count(b"\n"), error)
        return Appended(len(lines), None)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def open(self) -> int:
        """The file at the path, which may be a different one each time. OSError."""
        if self._file is not None and _is_at(self._file, self.path):
            return self._file
        self.close()
        try:
            check_place(self.path.parent, self._trust, groups_may_write=True)
        except UntrustedPathError as error:
            raise OSError(errno.EPERM, str(error)) from error
        # Non-blocking: a pipe without a reader, put there by mistake, must not block the writer.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            file = os.open(self.path, flags, FILE_MODE)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise OSError(errno.ELOOP, "it is a symbolic link: configure its target instead") from error
        try:
            self._check(file)
        except OSError:
            os.close(file)
            raise
        self._file = file
        self._torn = _ends_within_a_line(self.path)
        return self._file

    def _check(self, file: int) -> None:
        """Rejects a file that somebody has put, or linked, at the path: callers' text must not go there. OSError."""
        there = os.fstat(file)
        if there.st_uid not in self._trust.own:
            raise OSError(errno.EPERM, f"the existing file belongs to another user (uid {there.st_uid}): remove it")
        if stat.S_ISREG(there.st_mode) and there.st_nlink != 1:
            raise OSError(errno.EPERM, "the existing file has another hard link: remove it")


def _ends_within_a_line(path: Path) -> bool:
    """Whether a writer ran out of disk and was ended then. False if that cannot be told (a pipe)."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        there = os.fstat(file)
        return stat.S_ISREG(there.st_mode) and there.st_size > 0 and os.pread(file, 1, there.st_size - 1) != b"\n"
    finally:
        os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        there = os.lstat(path)
    except OSError:
        return False
    ours = os.fstat(file)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) and not stat.S_ISLNK(there.st_mode)
