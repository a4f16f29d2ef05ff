"""Users and groups by name where they have one, for messages."""

from __future__ import annotations

import grp
import pwd
from contextlib import suppress


def name_of_user(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def name_of_group(gid: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)
