"""Paths that nobody else can redirect: who owns, and who can write, each folder, symlink and file on the way.

Whoever can write a folder can replace any entry of it with a symlink, or another file, at any moment: between a check
and a use, too. So a path is walked from `/` one component at a time, each opened by its name in the descriptor of the
folder before it (O_NOFOLLOW), and judged by that descriptor. What is used in the end is the descriptor, never the path
again.

Trusted are root, the daemon's own user, the user that the sandbox becomes, and `security.trusted_users`.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from offload.filesystem.exposure import exposure

SYMLINKS_MAX = 40  # the same as the kernel's limit
NO_ACL = (errno.ENODATA, errno.ENOTSUP)  # no ACL on this file, or a file system without ACLs
PRIVATE_GROUP_ACL = "system.posix_acl_access"


class UntrustedPathError(Exception):
    """Somebody else could redirect this path; the message names the place, who that is, and the way out."""


@dataclass(frozen=True)
class Step:
    """One component of a path that is walked, open: a folder, a symlink, or the end of the path."""

    name: str
    descriptor: int
    status: os.stat_result
    parent: Step | None = None

    @property
    def path(self) -> str:
        """The path without symlinks."""
        if self.parent is None:
            return "/"
        above = self.parent.path
        return f"{above if above != '/' else ''}/{self.name}"

    @property
    def again(self) -> str:
        """A path of the very file that was judged, for functions that open by path."""
        return f"/proc/self/fd/{self.descriptor}"

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    def exposure(self) -> str | None:
        """For a secret: that every user can read it, and the way out; None if that is not so."""
        return exposure(self.path, self.status, (folder.status for folder in self._folders()))

    def _folders(self) -> Iterator[Step]:
        folder = self.parent
        while folder is not None:
            yield folder
            folder = folder.parent

    def is_same(self, other: Step) -> bool:
        """Whether both are the same file or folder; both are open, so that their numbers are not reused."""
        return (self.status.st_dev, self.status.st_ino) == (other.status.st_dev, other.status.st_ino)

    def names_from(self, folder: Step) -> tuple[str, ...] | None:
        """The path from that folder to here; None if this is elsewhere."""
        names: list[str] = []
        here: Step | None = self
        while here is not None:
            if here.is_same(folder):
                return tuple(reversed(names))
            names.append(here.name)
            here = here.parent
        return None


@dataclass(frozen=True)
class Trust:
    """Whose files and folders this daemon trusts."""

    users: frozenset[int]
    own: frozenset[int]  # a subset: root and the daemon's own users
    of_config: bool = True  # whether security.trusted_users can add to them
    _private: dict[int, bool] = field(default_factory=dict, compare=False)

    @staticmethod
    def of(becomes: int | None = None, trusted_users: Iterable[int] | None = None) -> Trust:
        """The trust of this process, and of the user that it becomes.

        `trusted_users`: from the configuration; None if there is no configuration that could name any.
        """
        own = frozenset({0, os.geteuid()} | ({becomes} if becomes is not None else set()))
        return Trust(own | frozenset(trusted_users or ()), own, trusted_users is not None)

    def afresh(self) -> Trust:
        """A copy for one look, which reads the members of each group once: they may have changed by the next."""
        return replace(self, _private={})

    def fault(self, step: Step, read_only_is_enough: bool = False, groups_may_write: bool = False) -> str | None:
        """Why nothing at or below this component can be relied on; None if it can.

        A folder with the sticky bit passes, because other users cannot rename or remove entries that they do not own;
        each entry is then judged by its own owner. `read_only_is_enough`: on a read-only mount the mode does not count,
        because nobody can write there (Kubernetes gives config maps mode 0777).
        """
        status, mode = step.status, step.status.st_mode
        if status.st_uid not in self.users:
            or_name = ", or name its owner in security.trusted_users" if self.of_config else ""
            return (
                f"{step.path} belongs to {_user(status.st_uid)}, who could replace it: change its owner to root "
                f"or to the daemon's user ({_user(os.geteuid())}){or_name}"
            )
        if stat.S_ISLNK(mode) or (step.is_folder and mode & stat.S_ISVTX):
            return None
        if mode & stat.S_IWOTH and not (read_only_is_enough and _is_read_only(step)):
            return f"every user can write {_in(step)}{step.path}: chmod o-w {step.path}"
        if groups_may_write:
            return None
        if mode & stat.S_IWGRP and not self._is_private(step) and not (read_only_is_enough and _is_read_only(step)):
            return f"{_group(status.st_gid)} can write {_in(step)}{step.path}: chmod g-w {step.path}"
        return None

    def is_open_to_others(self, folder: Step) -> bool:
        """Whether somebody other than root and the daemon's own users can create entries there."""
        return folder.status.st_uid not in self.own or bool(folder.status.st_mode & (stat.S_IWOTH | stat.S_IWGRP))

    def _is_private(self, step: Step) -> bool:
        """Whether its group has only trusted users, as distributions create one for each user (umask 002), and it has
        no ACL, whose rights also show as those of the group."""
        gid = step.status.st_gid
        if gid not in self._private:
            self._private[gid] = _only_of(gid, self.users)
        if not self._private[gid]:
            return False
        try:
            os.getxattr(step.again, PRIVATE_GROUP_ACL)
        except OSError as error:
            return error.errno in NO_ACL
        return False


class Walk:
    """Opens paths component by component, and closes all of them on exit.

    `to` returns the end of a path. UntrustedPathError if somebody else could redirect it, OSError if it does not exist.
    """

    def __init__(self, trust: Trust, read_only_is_enough: bool = False, groups_may_write: bool = False) -> None:
        self._trust = trust.afresh()
        self._groups_may_write = groups_may_write
        self._read_only_is_enough = read_only_is_enough
        self._descriptors: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def to(self, path: str | Path, start: Step | None = None) -> Step:
        """The end of `path` from `start`, or from the root."""
        text = os.fspath(path)
        here = self._root() if start is None or text.startswith("/") else start
        left = list(reversed([name for name in text.split("/") if name not in ("", ".")]))
        symlinks = 0
        while left:
            name = left.pop()
            if name == "..":
                here = here.parent or here
                continue
            step = self._open(name, here)
            if not stat.S_ISLNK(step.status.st_mode):
                here = step
                continue
            symlinks += 1
            if symlinks > SYMLINKS_MAX:
                raise OSError(errno.ELOOP, "too many symlinks", text)
            target = os.readlink("", dir_fd=step.descriptor)
            if target.startswith("/"):
                here = self._root()
            left += [name for name in reversed(target.split("/")) if name not in ("", ".")]
        return here

    def _root(self) -> Step:
        return self._judged(Step("", self._descriptor("/"), os.stat("/")))

    def _open(self, name: str, folder: Step) -> Step:
        descriptor = self._descriptor(name, folder.descriptor)
        return self._judged(Step(name, descriptor, os.fstat(descriptor), folder))

    def _descriptor(self, name: str, folder: int | None = None) -> int:
        # O_PATH: only the name is opened, so neither a pipe nor a device can block.
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        self._descriptors.append(descriptor)
        return descriptor

    def _judged(self, step: Step) -> Step:
        if fault := self._trust.fault(step, self._read_only_is_enough, self._groups_may_write):
            raise UntrustedPathError(fault)
        return step


def check_place(folder: Path, trust: Trust, groups_may_write: bool = False) -> None:
    """Checks a folder where files are created and removed by name: only trusted users may; a sticky bit does not help.

    `groups_may_write`: trusts a group with what it was given (Ubuntu gives /var/log to the group syslog).
    UntrustedPathError; OSError if it does not exist.
    """
    with Walk(trust, groups_may_write=groups_may_write) as walk:
        end = walk.to(folder)
        if not end.is_folder:
            raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(folder))
        if end.status.st_mode & stat.S_IWOTH:
            raise UntrustedPathError(
                f"every user can create files in {end.path}: create a folder below it that only root or the daemon's "
                "user can write (mode 0755), and use that"
            )


def read_trusted(path: Path, trust: Trust, warn: Callable[[str], None] | None = None) -> bytes:
    """The content of a file whose path is trusted. UntrustedPathError, OSError.

    `warn`, for secrets, is told if every user can read it.
    """
    with Walk(trust, read_only_is_enough=True) as walk:
        file = walk.to(path)
        if file.is_folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(file.status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        if warn is not None and (exposed := file.exposure()):
            warn(f"{path} {exposed}")
        return Path(file.again).read_bytes()


def _only_of(gid: int, users: Iterable[int]) -> bool:
    trusted = frozenset(users)
    try:
        return {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(gid).gr_mem} | set(_primary(gid)) <= trusted
    except KeyError:
        return False


def _primary(gid: int) -> Iterator[int]:
    return (entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == gid)


def _is_read_only(step: Step) -> bool:
    return bool(os.fstatvfs(step.descriptor).f_flag & os.ST_RDONLY)


def _in(step: Step) -> str:
    return "in " if step.is_folder else ""


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _group(gid: int) -> str:
    try:
        return f"the group {grp.getgrgid(gid).gr_name} (gid {gid})"
    except KeyError:
        return f"the group with gid {gid}"
