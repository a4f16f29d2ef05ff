"""The command line `mesh`. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the control plane is not there."""

from __future__ import annotations

import sys

import typer

from control.ca.authority import UnusableAuthority
from control.ca.rotation import WrongStage
from control.cli import dataplane, inspecting, operate, resources
from control.cli.client import ApiError, Unreachable
from control.cli.output import complain
from control.model.documents import UnreadableDocument
from control.model.violation import InvalidResource
from control.store.errors import StoreError

app = typer.Typer(
    name="mesh",
    help="The mesh control plane: meshes, identities, policies, and the offload of TLS handshakes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
resources.add_to(app)
inspecting.add_to(app)
operate.add_to(app)
dataplane.add_to(app)

EXIT_FAILED = 1
EXIT_UNREACHABLE = 3


def main() -> None:
    try:
        app()
    except Unreachable as error:
        complain(str(error))
        sys.exit(EXIT_UNREACHABLE)
    except (
        ApiError,
        InvalidResource,
        UnreadableDocument,
        StoreError,
        UnusableAuthority,
        WrongStage,
        OSError,
        UnicodeDecodeError,
    ) as error:
        complain(str(error))
        sys.exit(EXIT_FAILED)
