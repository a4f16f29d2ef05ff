"""What every command shares: its options, how it prints, and how it fails."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import grpc
import typer
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape

from offload.filesystem.accounts import name_of_group, name_of_user
from offload.reporting import exit_codes
from offload.reporting.untrusted_text import escaped
from offload.v1 import admin_pb2_grpc

CALL_SECONDS = 10

WIDTH_OF_FILES = 180

# A pipe has no width: give tables the room they need there.
_piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
out = Console(width=WIDTH_OF_FILES) if _piped else Console()
err = Console(stderr=True, soft_wrap=True, highlight=False)


class Format(StrEnum):
    table = "table"
    json = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="For people (table) or for programs (json).")]
AdminPath = Annotated[
    Path,
    typer.Option("--admin-socket", envvar="OFFLOAD_ADMIN_SOCKET", readable=False, help="The daemon's admin socket."),
]
SocketPath = Annotated[
    Path, typer.Option("--socket", envvar="OFFLOAD_SOCKET", readable=False, help="The daemon's main socket.")
]
DEFAULT_ADMIN = Path("/run/offload/admin.sock")
DEFAULT_SOCKET = Path("/run/offload/offload.sock")

_EXIT_OF = {
    grpc.StatusCode.UNAVAILABLE: exit_codes.UNAVAILABLE,
    grpc.StatusCode.PERMISSION_DENIED: exit_codes.NO_PERMISSION,
    grpc.StatusCode.NOT_FOUND: exit_codes.NO_PERMISSION,
}


def plain(text: str) -> str:
    """Keeps the lines but no markup and no control characters, which names and certificates could contain."""
    return "\n".join(escape(escaped(line)) for line in text.split("\n"))


def complain(message: str) -> None:
    err.print(f"[bold red]error:[/] {plain(message)}")


def fail(message: str, code: int) -> NoReturn:
    complain(message)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def message_as_json(message: Message) -> dict[str, Any]:
    """Every field by its own name. Numbers stay numbers: protobuf's JSON would turn those of 64 bits into text."""
    shown: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if isinstance(value, Mapping):
            shown[field.name] = {str(key): _plain(one) for key, one in value.items()}
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            shown[field.name] = [_plain(one) for one in value]
        else:
            shown[field.name] = _plain(value)
    return shown


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return message_as_json(value)
    return value.hex() if isinstance(value, bytes) else value


@contextmanager
def channel_to(path: Path) -> Iterator[grpc.Channel]:
    """A channel to a Unix socket; an error on it ends the command with a message and the right exit code."""
    try:
        with grpc.insecure_channel(f"unix:{path.absolute()}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            yield channel
    except grpc.RpcError as error:
        code = error.code()
        message = str(error.details())
        if code is grpc.StatusCode.UNAVAILABLE and "draining" not in message:
            message = f"no daemon answers on {path}: {_why_not(path)}"
        fail(message, _EXIT_OF.get(code, exit_codes.FAILED))


@contextmanager
def admin(path: Path) -> Iterator[Any]:
    """A stub of the AdminService on this socket."""
    with channel_to(path) as channel:
        yield admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]


def _closed_folder(path: Path) -> Path:
    """The first folder on the path that may not be entered."""
    return next((one for one in reversed(path.absolute().parents) if not os.access(one, os.X_OK)), path.parent)


def _who_may(path: Path, wanted: int) -> str:
    """Whom the mode lets in, in words; `wanted` is a bit of others' mode."""
    there = path.stat()
    who = [f"user '{name_of_user(there.st_uid)}'"] if there.st_mode & (wanted << 6) else []
    who += [f"members of group '{name_of_group(there.st_gid)}'"] if there.st_mode & (wanted << 3) else []
    return f"{' and '.join(who or ['root'])} may do that; become one of them, or use sudo"


def _why_not(path: Path) -> str:
    try:
        if not path.exists():
            return "the socket does not exist; is the daemon running, and is this its path?"
        if not path.is_socket():
            return "it is not a socket"
    except PermissionError:
        folder = _closed_folder(path)
        return f"you have no access to the folder {folder}; {_who_may(folder, 0o1)}"
    if not os.access(path, os.W_OK):
        return f"you are not permitted to connect; {_who_may(path, 0o2)}"
    return "the socket exists, but nothing listens on it"
