"""dataplane: the bootstrap of a proxy, and starting a stock Envoy with it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from control.bootstrap import ControlPlaneAddress, ProxyIdentity
from control.bootstrap import bootstrap as make_bootstrap
from control.settings import XDS_PORT, parse_address, write_private
from envoy_ext.location import SEARCH_PATH_VARIABLE, ModuleMissing, module_directory

Name = Annotated[str, typer.Option("--name", help="of the Dataplane")]
MeshName = Annotated[str, typer.Option("-m", "--mesh")]
TokenFile = Annotated[Path, typer.Option("--token-file", help="see mesh generate dataplane-token")]
ControlPlane = Annotated[str, typer.Option("--control-plane", help="host:port")]
CaFile = Annotated[Path, typer.Option("--ca-file", help="ca.pem of the control plane's data folder")]
AdminPort = Annotated[int | None, typer.Option("--admin-port", help="as networking.admin.port of the Dataplane")]

# How long connections may outlive a change of their listener. With Envoy's own 600 s, a TCP connection would keep a
# permission that was taken away; less than 10 s would cut ordinary requests in flight. (HTTP takes permissions by its
# routes, with the next request.)
DRAIN_S = 10


def add_to(app: typer.Typer) -> None:
    dataplane = typer.Typer(help="Proxies on this host.", no_args_is_help=True)
    dataplane.command()(bootstrap)
    dataplane.command()(run)
    app.add_typer(dataplane, name="dataplane")


def _bootstrap(name: str, mesh: str, token_file: Path, control_plane: str, ca_file: Path, admin: int | None) -> str:
    try:
        address = parse_address(control_plane, XDS_PORT)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    proxy = ProxyIdentity(mesh, name, token_file.read_text().strip())
    where = ControlPlaneAddress(address.host, address.port, ca_file.read_text())
    return json.dumps(make_bootstrap(proxy, where, admin))


def bootstrap(
    name: Name,
    token_file: TokenFile,
    ca_file: CaFile,
    mesh: MeshName = "default",
    control_plane: ControlPlane = f"127.0.0.1:{XDS_PORT}",
    admin_port: AdminPort = None,
) -> None:
    """Print the bootstrap configuration. It holds the token: write it to a file that only the proxy's user can read."""
    typer.echo(_bootstrap(name, mesh, token_file, control_plane, ca_file, admin_port))


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
) -> None:
    """Become a stock Envoy of this dataplane, with the offload module if it is built. Configuration comes by ADS."""
    binary = shutil.which(envoy or os.environ.get("ENVOY_BINARY", "envoy"))
    if binary is None:
        raise FileNotFoundError("there is no Envoy: set ENVOY_BINARY or --envoy to the binary")
    folder = Path(tempfile.mkdtemp(prefix=f"mesh-{name}-"))
    path = folder / "bootstrap.json"
    write_private(path, _bootstrap(name, mesh, token_file, control_plane, ca_file, admin_port))
    environment = dict(os.environ)
    try:
        environment.setdefault(SEARCH_PATH_VARIABLE, str(module_directory()))
    except ModuleMissing as missing:
        typer.echo(f"note: without the offload module, which mode Offload needs: {missing}", err=True)
    os.execve(binary, envoy_arguments(binary, path, concurrency, log_level), environment)  # noqa: S606 (an argument list)


def envoy_arguments(binary: str, bootstrap_file: Path, concurrency: int, log_level: str = "warning") -> list[str]:
    """Envoy's command line.

    With the drain strategy `immediate` every HTTP connection that is open when a listener changes ends with its next
    answer; what has not ended by itself after DRAIN_S is cut.
    """
    line = [binary, "-c", str(bootstrap_file), "--concurrency", str(concurrency), "--log-level", log_level]
    drain = ["--drain-strategy", "immediate", "--drain-time-s", str(DRAIN_S)]
    return [*line, *drain, "--use-dynamic-base-id"]
