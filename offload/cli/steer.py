"""`offload reload`, `offload drain` and `offload log-level`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from offload.cli.keys import print_problems, problems_as_json
from offload.cli.output import (
    CALL_SECONDS,
    DEFAULT_ADMIN,
    AdminPath,
    Format,
    Output,
    admin,
    fail,
    out,
    plain,
    print_json,
)
from offload.reporting import exit_codes
from offload.v1 import admin_pb2

RELOAD_SECONDS = 35


class Level(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def reload(admin_socket: AdminPath = DEFAULT_ADMIN, output: Output = Format.table) -> None:
    """Reread configuration and keys, as SIGHUP does, and print the result.

    Example: `offload reload`

    Exit code 1 if the configuration or a key file was rejected; what was in force before stays in force.
    """
    with admin(admin_socket) as stub:
        answer = stub.Reload(admin_pb2.ReloadRequest(), timeout=RELOAD_SECONDS)
    if output is Format.json:
        print_json(
            {
                "configuration_error": answer.configuration_error,
                "needs_restart": list(answer.needs_restart),
                "added": list(answer.added),
                "changed": list(answer.changed),
                "removed": list(answer.removed),
                "problems": problems_as_json(answer.problems),
            }
        )
    else:
        for what in ("added", "changed", "removed"):
            for name in getattr(answer, what):
                out.print(f"{what}: {plain(name)}")
        if answer.needs_restart:
            out.print(f"takes effect at the next start: {', '.join(answer.needs_restart)}", markup=False)
        print_problems(answer.problems)
    if answer.configuration_error:
        fail(
            f"the configuration is rejected; the running one stays in force:\n{answer.configuration_error}",
            exit_codes.FAILED,
        )
    raise typer.Exit(exit_codes.FAILED if answer.problems else exit_codes.OK)


def drain(admin_socket: AdminPath = DEFAULT_ADMIN) -> None:
    """Let the daemon finish what is in flight, disconnect its clients, and stop; the same as SIGTERM.

    Example: `offload drain`
    """
    with admin(admin_socket) as stub:
        answer = stub.Drain(admin_pb2.DrainRequest(), timeout=CALL_SECONDS)
    out.print(f"draining; it stops within {answer.timeout_ms / 1000:g} s")


def log_level(
    level: Annotated[Level, typer.Argument(help="The new log level.")],
    admin_socket: AdminPath = DEFAULT_ADMIN,
) -> None:
    """Change how much the running daemon logs, until it restarts or reloads.

    Example: `offload log-level debug`
    """
    with admin(admin_socket) as stub:
        answer = stub.SetLogLevel(admin_pb2.SetLogLevelRequest(level=level.value), timeout=CALL_SECONDS)
    out.print(f"log level: {answer.previous} -> {level.value}")
