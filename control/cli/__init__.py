"""The command line `mesh`."""

from __future__ import annotations

import typer

from control.ca.authority import UnusableAuthority
from control.ca.rotation import WrongStage
from control.cli import dataplane, inspecting, operate, resources
from control.cli.client import ApiError, Unreachable
from control.cli.dataplane import MissingProgram
from control.cli.output import complain
from control.model.documents import UnreadableDocument
from control.model.violation import InvalidResource
from control.runtime_folder import UnusableFolder
from control.settings import CannotServe
from control.store.errors import StoreError
from offload.reporting import exit_codes, failure

app = typer.Typer(
    name="mesh",
    help=(
        "The mesh control plane: meshes, identities, policies, and the offload of TLS handshakes.\n\n"
        "Exit codes: 0 success; 1 failure; 2 invalid options; 3 the control plane does not answer or denies "
        "access; 70 internal error; 78 invalid configuration or unsuitable host; 130 interrupted by Ctrl-C."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
resources.add_to(app)
inspecting.add_to(app)
operate.add_to(app)
dataplane.add_to(app)

# Errors whose messages are already fit for users.
EXPECTED: dict[type[BaseException], int] = {
    Unreachable: exit_codes.MESH_UNREACHABLE,
    MissingProgram: exit_codes.CONFIGURATION,
    UnusableFolder: exit_codes.CONFIGURATION,
    CannotServe: exit_codes.CONFIGURATION,
    ApiError: exit_codes.FAILED,
    InvalidResource: exit_codes.FAILED,
    UnreadableDocument: exit_codes.FAILED,
    StoreError: exit_codes.FAILED,
    UnusableAuthority: exit_codes.FAILED,
    WrongStage: exit_codes.FAILED,
}


def main() -> None:
    failure.ended(lambda: app(prog_name="mesh"), complain, EXPECTED)
