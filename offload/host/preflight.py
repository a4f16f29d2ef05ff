"""What the daemon will need of this host, checked before it starts: folders, ports, locked memory, and that callers
whom the selectors name can open its sockets.

Nothing is created, bound for longer than a moment, or connected to: a connection would start a socket-activated daemon.
"""

from __future__ import annotations

import errno
import os
import pwd
import resource
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from offload import _dataplane
from offload.config.identities import Selector
from offload.config.settings import Config
from offload.config.sockets import DedicatedSocket, Socket
from offload.filesystem.accounts import group_id, name_of_group, name_of_user, user_id
from offload.host import capabilities
from offload.host.runtime_folder import way_out

# Maximum of locked memory: without keys, and per key. Measured: 0.6 MiB with two shards; 4.6 KiB for P-256, P-384
# and Ed25519, and 10.0, 12.8 and 14.4 KiB for RSA-2048, -3072 and -4096. The rest is for partly filled blocks.
MEMORY_BYTES = 1 << 20
MEMORY_OF_KEY = {"p256": 8 << 10, "p384": 8 << 10, "ed25519": 8 << 10}
MEMORY_OF_RSA_KEY = 20 << 10
PORT_HINTS = {
    errno.EADDRINUSE: "; another process listens there",
    errno.EACCES: "; ports below 1024 require root",
    errno.EADDRNOTAVAIL: "; this host has no such address",
    errno.EAFNOSUPPORT: "; this host has no IPv6",
}
LISTENING = 1 << 16  # __SO_ACCEPTCON in /proc/net/unix


@dataclass(frozen=True)
class Finding:
    """`fatal`: the daemon would not start. Otherwise it starts, but something does not work."""

    where: str  # field of the configuration
    text: str
    fatal: bool


@dataclass(frozen=True)
class Account:
    """Whose permissions are checked; `uid` None means any user in these groups."""

    uid: int | None
    gids: frozenset[int]

    @classmethod
    def own(cls) -> Account:
        return cls(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def examine(config: Config, algorithms: Sequence[str]) -> tuple[Finding, ...]:
    """Everything that can be checked beforehand, for the current user; `algorithms`: one for each future key."""
    served = _served_paths()
    running = any(str(one.path) in served for one in config.sockets.by_name().values())
    return (
        *_folders(config, served),
        *([] if running else _ports(config)),
        *_memory(config, algorithms),
        *_audit(config),
        *_callers(config, served),
    )


# ---- folders ----


def _folders(config: Config, served: frozenset[str]) -> Iterator[Finding]:
    me = Account.own()
    paths = [(_field(one), one.path) for one in config.sockets.by_name().values()]
    paths += [("admin.path", config.admin.path)] if config.admin else []
    for where, path in paths:
        if str(path) in served:
            continue
        if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
            yield Finding(where, f"{path} exists and is not a socket; the daemon does not remove it", True)
        folder = _nearest(path.parent)
        if not os.path.isdir(folder):  # unlike Path's, False if we may not look
            yield Finding(where, f"{folder} is not a folder", True)
        elif not may(me, folder, os.W_OK | os.X_OK):
            missing = folder != path.parent
            problem = "does not exist, and you may not create it" if missing else "is not writable for you"
            yield Finding(where, f"the folder {path.parent} {problem}: {way_out(path.parent)}", True)


def _field(settings: Socket) -> str:
    return f"sockets.dedicated '{settings.name}'" if isinstance(settings, DedicatedSocket) else "sockets.main.path"


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _audit(config: Config) -> Iterator[Finding]:
    path = config.audit.path
    if path is None:
        return
    target = path if os.path.exists(path) else path.parent
    if not os.path.exists(target):
        problem = "does not exist, or you have no permission to inspect it"
        yield Finding("audit.path", f"the folder {path.parent} {problem}: nothing would be written", False)
    elif not may(Account.own(), target, os.W_OK):
        yield Finding("audit.path", f"{target} is not writable for you: nothing would be written", False)


# ---- ports and memory ----


def _ports(config: Config) -> Iterator[Finding]:
    address = config.metrics.host_and_port()
    if address is None or address[1] == 0:
        return
    try:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        hint = PORT_HINTS.get(error.errno or 0, "")
        text = (
            f"{config.metrics.address} cannot be used: {error.strerror}{hint}; choose another, or null for no metrics"
        )
        yield Finding("metrics.address", text, True)


def locked_memory(algorithms: Sequence[str]) -> int:
    """Maximum number of bytes that the daemon may lock with these keys."""
    return MEMORY_BYTES + sum(MEMORY_OF_KEY.get(algorithm, MEMORY_OF_RSA_KEY) for algorithm in algorithms)


def _memory(config: Config, algorithms: Sequence[str]) -> Iterator[Finding]:
    if config.security.allow_unlocked_memory:
        return
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    wanted = locked_memory(algorithms)
    if limit != resource.RLIM_INFINITY and limit < wanted and not _ignores_the_limit(config):
        keys = f"{len(algorithms)} key{'' if len(algorithms) == 1 else 's'}"
        text = (
            f"{limit >> 10} KiB may be locked in memory, and the daemon with {keys} may need {wanted >> 10} KiB: "
            "raise the limit (`ulimit -l`, /etc/security/limits.d, LimitMEMLOCK= of a unit)"
        )
        yield Finding("security", text, True)
    elif _dataplane.secret_memory_kind() == "unlocked":
        text = (
            "no memory can be locked, although the limit allows it: a system call filter, such as a container's, "
            "blocks mlock: allow it"
        )
        yield Finding("security", text, True)


def _ignores_the_limit(config: Config) -> bool:
    """Whether the daemon keeps CAP_IPC_LOCK, which root has; the sandbox drops it, and so does a change of user."""
    if config.security.sandbox or config.security.user is not None:
        return False
    try:
        return capabilities.has(capabilities.IPC_LOCK)
    except OSError:
        return os.geteuid() == 0


# ---- callers ----


def _callers(config: Config, served: frozenset[str]) -> Iterator[Finding]:
    sockets = config.sockets.by_name()
    for name, identity in config.identities.items():
        for selector in identity.selectors:
            caller = _caller(selector)
            if caller is None:
                continue
            allowed = [sockets[selector.socket]] if selector.socket else list(sockets.values())
            refusals = [_refusal(caller, one, served) for one in allowed]
            if all(refusals):
                text = f"{selector.words()} cannot connect: " + "; ".join(refusal for refusal in refusals if refusal)
                yield Finding(f"identity '{name}'", text, False)


def _caller(selector: Selector) -> Account | None:
    """Whom it allows, as far as it names a user or group."""
    user, group = selector.uid if selector.uid is not None else selector.user, selector.gid
    gids = {group_id(one) for one in (group, selector.group) if one is not None}
    if user is None:
        return Account(None, frozenset(gids)) if gids else None
    uid = user_id(user)
    with suppress(KeyError):  # a number without an entry has no known groups
        entry = pwd.getpwuid(uid)
        gids |= set(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(uid, frozenset(gids))


def _refusal(caller: Account, settings: Socket, served: frozenset[str]) -> str | None:
    """Why this caller cannot open that socket; None if it can."""
    path = settings.path
    for folder in reversed(path.parents):
        if os.path.exists(folder) and not may(caller, folder, os.X_OK):
            return f"it has no access to {folder} on the way to {path}"
    if str(path) in served:  # by systemd, or by the running daemon
        status = os.stat(path)
        owner, group, mode = status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
    else:
        uid, gid = settings.owner_uid(), settings.group_gid()
        owner, group, mode = uid if uid >= 0 else os.geteuid(), gid if gid >= 0 else os.getegid(), settings.mode
    if _permits(caller, owner, group, mode, os.W_OK):
        return None
    has = "has" if str(path) in served else "will have"
    shown = f"{path} {has} owner {name_of_user(owner)}, group {name_of_group(group)}"
    return f"{shown} and mode {mode:04o}; set its `group` to one of the caller's groups, or its `owner` or `mode`"


def may(account: Account, path: Path, wanted: int) -> bool:
    """Whether an account may do this (os.R_OK, W_OK, X_OK) with a file or folder. False if that cannot be told."""
    if account.uid == os.geteuid():
        return os.access(path, wanted, effective_ids=True)
    try:
        status = os.stat(path)
    except OSError:
        return False
    return _permits(account, status.st_uid, status.st_gid, status.st_mode, wanted)


def _permits(account: Account, owner: int, group: int, mode: int, wanted: int) -> bool:
    if account.uid == 0:
        return True
    shift = 6 if account.uid == owner else 3 if group in account.gids else 0
    return mode >> shift & wanted == wanted


def _served_paths() -> frozenset[str]:
    """Paths of the Unix sockets on which somebody listens."""
    served = set[str]()
    with suppress(OSError):  # without /proc nothing is known to be served
        for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
            fields: Sequence[str] = line.split(maxsplit=7)
            if len(fields) == 8 and int(fields[3], 16) & LISTENING and os.path.exists(fields[7]):
                served.add(fields[7])
    return frozenset(served)
