"""What the daemon gives up by itself, where no service manager does it for it.

`enter` comes after the sockets are made, as their owners may need root, and before there are threads, keys and callers.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - which getaddrinfo loads late, from where the new user may not be let in
import os
import pwd

from offload import _dataplane, logs
from offload.config import Config
from offload.config_fields import user_id


class SandboxError(Exception):
    """It cannot be entered; the message says why and the way out."""


def programs_are_started(config: Config) -> bool:
    """Issuers that are programs; these run under the same filter."""
    return any(issuer.exec is not None for issuer in config.issuers.values())


def enter(config: Config) -> None:
    """Always: no core dumps, no tracing. The rest only with security.sandbox. SandboxError."""
    security = config.security
    if not security.sandbox:
        _dataplane.harden_process()
        return
    programs = programs_are_started(config)
    try:
        if security.user is not None:
            _become(security.user)
        _dataplane.harden_process()  # after the change of user, which resets it
        _dataplane.drop_privileges()
        _dataplane.filter_calls(programs)
    except (OSError, KeyError) as error:
        raise SandboxError(
            f"security.sandbox cannot be put into force: {error}; start it as root, or without security.user"
        ) from error
    logs.get_logger().info("sandbox", uid=os.geteuid(), gid=os.getegid(), programs=programs)


def _become(user: str | int) -> None:
    """Groups first: afterwards we may not change them any more."""
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
