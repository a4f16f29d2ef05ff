"""The types of configuration values, and why a value is rejected."""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

SOCKET_PATH_MAX = 107  # sockaddr_un.sun_path less its terminating zero
ID_MAX = 2**32 - 1  # (uid_t)-1 means none


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(
            f"must be an absolute path, not '{path}': it would be relative to the daemon's working directory"
        )
    return path


def _socket_path(path: Path) -> Path:
    size = len(os.fsencode(_absolute(path)))
    if size > SOCKET_PATH_MAX:
        raise ValueError(f"a socket's path has at most {SOCKET_PATH_MAX} bytes, this one has {size}")
    return path


def _mode(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('must be an octal mode in quotes, for example "0660": unquoted, YAML reads another number')
    return int(value, 8)


def _account(value: object, what: str, look_up: Callable[[str], object]) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"must be the name or number of a {what}, not {value!r}")
    if isinstance(value, int) and not 0 <= value < ID_MAX:
        raise ValueError(f"{value} is not a valid {what} number")
    if isinstance(value, str):
        try:
            look_up(value)
        except (KeyError, ValueError):
            raise ValueError(f"there is no {what} '{value}' on this host; create it, or give a number") from None
    return value


def _user(value: object) -> object:
    return _account(value, "user", pwd.getpwnam)


def _group(value: object) -> object:
    return _account(value, "group", grp.getgrnam)


def shards_setting(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256):
        return value
    raise ValueError(f'must be "auto" or from 1 to 256, not {value!r}')


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:9464" or "[::1]:9464". ValueError."""
    host, colon, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        if not colon or not 0 <= int(port) < 65536 or (ip.version == 6) != host.startswith("["):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"must be an IP address and a port, '127.0.0.1:9464' or '[::1]:9464', not '{address}'"
        ) from None
    return str(ip), int(port)


_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")


def parse_endpoint(text: str) -> tuple[str, int]:
    """Host name or IP address, and port, of "localhost:8080", "127.0.0.1:8080" or "[::1]:8080". ValueError."""
    host, _, port = text.rpartition(":")
    # Anything that looks like an IP address must be valid: nobody would name a host 300.1.2.3.
    if _HOST_NAME.fullmatch(host) and not re.fullmatch(r"[0-9.]+", host) and re.fullmatch(r"[0-9]{1,5}", port):
        if 0 < int(port) < 65536:
            return host, int(port)
        raise ValueError(f"has port {port}; ports are 1 to 65535")
    try:
        return parse_address(text)
    except ValueError:
        raise ValueError(
            f"must be a host and a port, 'localhost:8080', '127.0.0.1:8080' or '[::1]:8080', not '{text}'"
        ) from None


def _address(address: str) -> str:
    parse_address(address)
    return address


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
SocketPath = Annotated[Path, AfterValidator(_socket_path)]
Mode = Annotated[int, BeforeValidator(_mode)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
Id = Annotated[int, Field(ge=0, lt=ID_MAX)]
User = Annotated[int | str, BeforeValidator(_user)]
Group = Annotated[int | str, BeforeValidator(_group)]
Address = Annotated[str, AfterValidator(_address)]
