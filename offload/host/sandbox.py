"""What the daemon gives up by itself, if no service manager does it for it.

`enter` comes after the sockets, as their owners may need root, and before there are threads, keys and callers.
"""

from __future__ import annotations

import grp
import importlib
import os
import pwd
from contextlib import suppress
from dataclasses import dataclass

from offload import _dataplane
from offload.config.settings import Config
from offload.filesystem.accounts import user_id
from offload.reporting import logs

# These would be loaded late otherwise: from where the new user may have no access, or with their own libraries.
LATE = ("encodings.idna", "unicodedata")


@dataclass(frozen=True)
class InForce:
    """The parts of the sandbox in force."""

    words: str = ""  # for people; empty without one
    landlock: int = 0  # its version


class SandboxError(Exception):
    """The sandbox cannot be entered; the message says why and the way out."""


def programs_are_started(config: Config) -> bool:
    """Whether issuers are programs; these run under the same filter."""
    return any(issuer.exec is not None for issuer in config.issuers.values())


def enter(config: Config) -> InForce:
    """Always disables core dumps and tracing; everything else only with security.sandbox. SandboxError."""
    security = config.security
    if not security.sandbox:
        _dataplane.harden_process()
        return InForce()
    programs = programs_are_started(config)
    log = logs.get_logger()
    try:
        _load_what_comes_late()
        if security.user is not None:
            become(security.user)
        _dataplane.harden_process()  # after the change of user, which resets it
        _dataplane.drop_privileges()
        version = _confine(config, programs)
        _dataplane.filter_calls(programs)
    except (OSError, KeyError) as error:
        raise SandboxError(
            f"security.sandbox cannot be applied: {error}; start the daemon as root, or without security.user"
        ) from error
    log.info("sandbox", uid=os.geteuid(), gid=os.getegid(), programs=programs, landlock=version)
    if not version:
        log.warning(
            "this kernel has no Landlock, or has it turned off (lsm= on its command line): the sandbox restricts "
            "system calls, but neither which files are written nor access to the memory of the same user's processes"
        )
        return InForce("system calls filtered; this kernel has no Landlock")
    return InForce(f"system calls filtered, Landlock {version}", version)


def _confine(config: Config, programs: bool) -> int:
    """Returns Landlock's version; 0 without it. SandboxError, OSError."""
    version = _dataplane.landlock_version()
    if not version:
        return 0
    if (threads := len(os.listdir("/proc/self/task"))) != 1:
        raise SandboxError(f"{threads - 1} threads exist before the sandbox and would escape it")
    if programs:
        # Only the operator knows what a program of his writes. Other processes are closed to it all the same.
        _dataplane.confine([], [], ["/"])
        return version
    folders = [str(folder) for folder in config.socket_folders()]
    # Nothing in /proc: whoever writes /proc/self/task/TID/mem writes our code, whatever its protection is.
    files = [] if config.audit.path is None else [str(config.audit.path.parent)]
    # A missing folder belongs to a socket that a service manager made.
    _dataplane.confine(sorted(filter(os.path.isdir, folders)), list(filter(os.path.isdir, files)), [])
    return version


def _load_what_comes_late() -> None:
    """Loads libraries that would be loaded at their first use: afterwards no memory becomes executable."""
    for look_up in (pwd.getpwnam, grp.getgrnam):
        with suppress(KeyError):
            look_up("offload-nobody-has-this-name")  # asks all sources of nsswitch.conf
    for module in LATE:
        importlib.import_module(module)


def become(user: str | int) -> None:
    """Changes groups first: afterwards we may not change them any more. KeyError, OSError."""
    uid = user_id(user)
    if os.geteuid() == uid and uid != 0:
        return
    try:
        entry = pwd.getpwuid(uid)
        gid, groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        gid, groups = uid, []  # a number without an entry: its group has the same
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
