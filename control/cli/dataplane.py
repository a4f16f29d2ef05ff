"""dataplane: the bootstrap of a proxy, and starting a stock Envoy with it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import jwt
import typer

from control.cli.output import warn_if_exposed
from control.runtime_folder import default_base, remove_leftovers, take
from control.settings import XDS_PORT, parse_address, write_private
from control.xds.render.bootstrap import ControlPlaneAddress, ProxyIdentity
from control.xds.render.bootstrap import bootstrap as make_bootstrap
from envoy_ext.location import SEARCH_PATH_VARIABLE, ModuleMissing, module_directory

Name = Annotated[str, typer.Option("--name", help="of the Dataplane")]
MeshName = Annotated[str, typer.Option("-m", "--mesh")]
TokenFile = Annotated[
    Path,
    typer.Option(
        "--token-file",
        help="file with a token of mesh generate dataplane-token; read at each connection, so a "
        "newer one can replace it",
    ),
]
ControlPlane = Annotated[str, typer.Option("--control-plane", envvar="MESH_CONTROL_PLANE", help="host:port")]
CaFile = Annotated[Path, typer.Option("--ca-file", help="ca.pem of the control plane's data folder")]
AdminPort = Annotated[
    int | None,
    typer.Option(
        "--admin-port",
        min=1,
        max=65535,
        help="Envoy's admin interface on this port of 127.0.0.1 instead of a private Unix socket: every user of "
        "this host can then read all of the proxy's configuration, addresses and statistics there, and stop it",
    ),
]

# Secrets of an administrator that a proxy must not inherit: an access log can print its environment.
SECRET_VARIABLES = ("MESH_TOKEN", "MESH_STORE_PASSPHRASE", "MESH_DATABASE")

# How long connections may outlive a change of their listener. With Envoy's own 600 s, a TCP connection would keep a
# permission that was revoked; less than 10 s would cut ordinary requests in flight. (For HTTP, permissions are in the
# routes and change with the next request.)
DRAIN_S = 10


def add_to(app: typer.Typer) -> None:
    dataplane = typer.Typer(help="Proxies on this host.", no_args_is_help=True)
    dataplane.command()(bootstrap)
    dataplane.command()(run)
    app.add_typer(dataplane, name="dataplane")


class MissingProgram(Exception):
    """There is no Envoy here; the message says where it was searched for."""


def _ends(
    name: str, mesh: str, token_file: Path, control_plane: str, ca_file: Path
) -> tuple[ProxyIdentity, ControlPlaneAddress]:
    try:
        address = parse_address(control_plane, XDS_PORT)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    proxy = ProxyIdentity(mesh, name, _checked(token_file))
    return proxy, ControlPlaneAddress(address.host, address.port, ca_file.read_text())


def _checked(token_file: Path) -> Path:
    """Removes the newline after the token: Envoy sends the file as it is."""
    text = token_file.read_text()
    warn_if_exposed(token_file)
    token = text.strip()
    try:
        until = jwt.decode(token, options={"verify_signature": False})["exp"]
        end = datetime.fromtimestamp(until, UTC)
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"there is no token in {token_file}: mesh generate dataplane-token makes one"
        ) from None
    if text != token:
        try:
            token_file.write_text(token)
        except OSError as error:
            message = f"{token_file} has whitespace around the token, which Envoy would send too"
            raise typer.BadParameter(f"{message}, and it cannot be fixed: {error.strerror}") from None
    typer.echo(f"note: the token ends at {end:%Y-%m-%d %H:%M} UTC: {_renewal(token_file)} before", err=True)
    return token_file.absolute()


def _renewal(token_file: Path) -> str:
    """systemd copies a credential when it starts the unit: only there does a newer token need a restart."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and token_file.absolute().is_relative_to(credentials):
        return f"put a newer one where LoadCredential={token_file.name} of the unit takes it from, and restart the unit"
    return f"put a newer one into {token_file}"


def bootstrap(
    name: Name,
    token_file: TokenFile,
    ca_file: CaFile,
    mesh: MeshName = "default",
    control_plane: ControlPlane = f"127.0.0.1:{XDS_PORT}",
    admin_port: AdminPort = None,
    admin_socket: Annotated[
        Path | None,
        typer.Option(help="Unix socket of Envoy's admin interface, in a folder that only Envoy's user can open"),
    ] = None,
) -> None:
    """Print the bootstrap configuration. It names the token's file, which Envoy reads at each connection.

    Statistics and MeshMetric need one of --admin-socket and --admin-port.
    """
    if admin_port is not None and admin_socket is not None:
        raise typer.BadParameter("--admin-port and --admin-socket are mutually exclusive")
    proxy, where = _ends(name, mesh, token_file, control_plane, ca_file)
    socket = admin_socket.absolute() if admin_socket is not None else None
    typer.echo(json.dumps(make_bootstrap(proxy, where, admin_port, admin_socket=socket)))


def run(
    name: Name,
    token_file: TokenFile,
    ca_file: CaFile,
    mesh: MeshName = "default",
    control_plane: ControlPlane = f"127.0.0.1:{XDS_PORT}",
    admin_port: AdminPort = None,
    envoy: Annotated[str | None, typer.Option(help="the binary [ENVOY_BINARY, else envoy on PATH]")] = None,
    concurrency: Annotated[int, typer.Option(help="worker threads")] = 2,
    log_level: Annotated[str, typer.Option(help="of Envoy")] = "warning",
    runtime_folder: Annotated[
        Path | None,
        typer.Option(
            help="where the proxy has a folder of its own, for its bootstrap file and the socket of Envoy's admin "
            "interface [RUNTIME_DIRECTORY, XDG_RUNTIME_DIR/mesh, else mesh-UID in the temporary folder]"
        ),
    ] = None,
) -> None:
    """Become a stock Envoy of this dataplane, with the offload module if it is built. Configuration comes by ADS.

    Asks the control plane first: if a CA, a name or a token does not fit, nothing is started and the reason is printed.
    If the control plane is only unreachable, Envoy is started and retries.
    """
    from control.cli.probe import probe  # gRPC takes a while to load, and other commands need none

    wanted = envoy or os.environ.get("ENVOY_BINARY", "envoy")
    binary = shutil.which(wanted)
    if binary is None:
        raise MissingProgram(f"there is no Envoy to start as '{wanted}': set ENVOY_BINARY or --envoy to the binary")
    proxy, where = _ends(name, mesh, token_file, control_plane, ca_file)
    if unknown := probe(proxy, where):
        typer.echo(f"note: {unknown}; Envoy is started and keeps retrying. Is --control-plane right?", err=True)
    environment = {key: value for key, value in os.environ.items() if key not in SECRET_VARIABLES}
    try:
        environment.setdefault(SEARCH_PATH_VARIABLE, str(module_directory()))
    except ModuleMissing as missing:
        typer.echo(f"note: the offload module, which mode Offload requires, is missing: {missing}", err=True)
    remove_leftovers()
    folder = take((runtime_folder or default_base()).absolute(), proxy.node_id, with_socket=admin_port is None)
    try:
        socket = folder.admin_socket if admin_port is None else None
        write_private(folder.bootstrap, json.dumps(make_bootstrap(proxy, where, admin_port, admin_socket=socket)))
        typer.echo(f"note: Envoy's admin interface is {_admin(socket, admin_port)}", err=True)
        sys.stderr.flush()
        os.execve(binary, envoy_arguments(binary, folder.bootstrap, concurrency, log_level), environment)  # noqa: S606 (an argument list)
    except BaseException:
        folder.remove()
        raise


def _admin(socket: Path | None, port: int | None) -> str:
    if socket is None:
        return f"at 127.0.0.1:{port}, where every user of this host can read it and stop the proxy"
    return f"for you alone: curl --unix-socket {shlex.quote(str(socket))} http://localhost/"


def envoy_arguments(binary: str, bootstrap_file: Path, concurrency: int, log_level: str = "warning") -> list[str]:
    """Envoy's command line.

    With the drain strategy `immediate`, every HTTP connection that is open when a listener changes ends with its next
    response; what has not ended by itself after DRAIN_S is cut.
    """
    line = [binary, "-c", str(bootstrap_file), "--concurrency", str(concurrency), "--log-level", log_level]
    drain = ["--drain-strategy", "immediate", "--drain-time-s", str(DRAIN_S)]
    return [*line, *drain, "--use-dynamic-base-id"]
