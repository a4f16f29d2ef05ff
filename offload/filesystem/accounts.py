"""Users and groups: numbers for the kernel, names for people."""

from __future__ import annotations

import grp
import pwd
from contextlib import suppress


def user_id(user: str | int) -> int:
    """Raises KeyError for a name that does not exist (any more)."""
    return user if isinstance(user, int) else pwd.getpwnam(user).pw_uid


def group_id(group: str | int) -> int:
    """Raises KeyError for a name that does not exist (any more)."""
    return group if isinstance(group, int) else grp.getgrnam(group).gr_gid


def name_of_user(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def name_of_group(gid: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)
