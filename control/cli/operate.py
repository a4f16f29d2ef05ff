"""serve, generate, ca, backup, restore."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from control.cli.client import Api, segment
from control.cli.output import Form, Mesh, Output, plain, show, warn, warn_if_exposed
from control.mesh.evidence import OFFLINE_AFTER_S
from control.model.base import RFC1035_RULE, is_rfc1035_label
from control.servers.descriptors import MAX_CONNECTIONS, PER_ADDRESS, Wanted
from control.settings import API_PORT, NODES_PORT, XDS_PORT, Files, data_folder, parse_address, write_private

Data = Annotated[Path | None, typer.Option("--data", help="folder of the control plane [MESH_DATA, /var/lib/mesh]")]
ValidFor = Annotated[str, typer.Option("--valid-for", help="for example 24h")]


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(backup)
    app.command()(restore)
    generate = typer.Typer(help="Generate tokens and certificates.", no_args_is_help=True)
    generate.command()(dataplane_token)
    generate.command()(node_token)
    generate.command()(admin_token)
    generate.command()(admin_certificate)
    app.add_typer(generate, name="generate")
    ca = typer.Typer(help="Inspect and rotate the CA of a MeshIdentity.", no_args_is_help=True)
    ca.command()(rotate)
    ca.command()(status)
    app.add_typer(ca, name="ca")
    app.command()(revoke)


def _files(data: Path | None) -> Files:
    return Files((data or data_folder()).absolute())


def _passphrase() -> str | None:
    return os.environ.get("MESH_STORE_PASSPHRASE")


def serve(
    data: Data = None,
    api: Annotated[str, typer.Option(help="listening address of the REST API")] = f"127.0.0.1:{API_PORT}",
    xds: Annotated[str, typer.Option(help="listening address for proxies")] = f"0.0.0.0:{XDS_PORT}",
    nodes: Annotated[str, typer.Option(help="listening address for nodes with certificates")] = f"0.0.0.0:{NODES_PORT}",
    name: Annotated[
        list[str] | None, typer.Option(help="a host name or address for its certificate (repeatable)")
    ] = None,
    zone: Annotated[str, typer.Option(help="zone in SPIFFE ids, and of dataplanes without kuma.io/zone")] = "default",
    database: Annotated[
        str | None,
        typer.Option(
            envvar="MESH_DATABASE",
            help="SQLAlchemy URL [SQLite in the data folder]; one with a password goes into MESH_DATABASE, since every "
            "user of the host can read command lines",
        ),
    ] = None,
    offline_after: Annotated[
        float, typer.Option(min=1, help="seconds after which a disconnected proxy gets no traffic")
    ] = OFFLINE_AFTER_S,
    max_connections: Annotated[
        int, typer.Option(min=16, help="connections of proxies and nodes; fewer if the descriptor limit is too low")
    ] = MAX_CONNECTIONS,
    max_connections_per_address: Annotated[
        int, typer.Option(min=16, help="connections of proxies and nodes from one IPv4 address or IPv6 /64")
    ] = PER_ADDRESS,
    audit_log: Annotated[
        Path | None,
        typer.Option(envvar="MESH_AUDIT_LOG", help="file for the audit log, one JSON object a line [the server's log]"),
    ] = None,
) -> None:
    """Run the control plane. Secrets are sealed with <data>/store.key, or with MESH_STORE_PASSPHRASE."""
    # gRPC itself logs every handshake that fails, which anybody can cause; it reads this variable when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from control import logs  # gRPC and its friends take a while to load
    from control.servers import process as service

    logs.configure()

    try:
        addresses = parse_address(api, API_PORT), parse_address(xds, XDS_PORT), parse_address(nodes, NODES_PORT)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not is_rfc1035_label(zone):
        # The zone is part of every SPIFFE id.
        raise typer.BadParameter(f"--zone {RFC1035_RULE}; got {zone!r}")
    settings = service.ServeSettings(
        files=_files(data),
        api=addresses[0],
        xds=addresses[1],
        nodes=addresses[2],
        names=["localhost", "127.0.0.1", *(name or [])],
        zone=zone,
        database=database,
        passphrase=_passphrase(),
        offline_after=offline_after,
        connections=Wanted(max_connections, max_connections_per_address),
        audit_log=audit_log.absolute() if audit_log is not None else None,
    )
    asyncio.run(service.serve(settings))


def backup(
    file: Annotated[Path, typer.Argument(help="must not exist")],
    data: Data = None,
) -> None:
    """Copy the store while it is in use. Keep the key (or passphrase) apart from it: it is needed to restore."""
    from control.store import backup as store  # the database takes a while to load, and other commands need none

    files = _files(data)
    store.backup(files.database, file)
    typer.echo(f"{file} holds the store of {files.folder}; its secrets require {files.key} or the passphrase")


def _user() -> str:
    """Who runs this command; with sudo, the user behind root."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid-{os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")
    return f"{name}(sudo:{behind})" if os.getuid() == 0 and behind.isprintable() and behind.strip() else name


def restore(
    file: Path,
    data: Data = None,
    replace: Annotated[bool, typer.Option("--replace", help="the store that is there")] = False,
) -> None:
    """Put a backup in place. The control plane must not be running."""
    from control.kinds import KINDS
    from control.store import backup as store
    from control.store.database import StoreKey

    files, passphrase = _files(data), _passphrase()
    key = StoreKey(passphrase=passphrase) if passphrase else StoreKey(file=files.key)
    if file.is_file():
        warn_if_exposed(file)
    note = f"{_user()} {file.absolute()}"
    count = store.restore(file, files.database, key, KINDS, replace, note)
    typer.echo(f"{count} resources restored to {files.folder}")


# --- tokens -----------------------------------------------------------------------------------------------------------


def _token(kind: str, body: dict[str, object]) -> None:
    """A file gets the token without a newline: Envoy sends its token file as it is."""
    token = Api().call("POST", f"/tokens/{kind}", body)["token"]
    typer.echo(token, nl=sys.stdout.isatty())


def dataplane_token(
    mesh: Mesh = "default",
    name: Annotated[str, typer.Option(help="name of the only dataplane that may use it")] = "",
    label: Annotated[
        list[str] | None, typer.Option(help="label key=value that the dataplane must have (repeatable)")
    ] = None,
    valid_for: ValidFor = "24h",
) -> None:
    """For a proxy: it may be only the dataplanes that the token names.

    It is valid for 24 h unless --valid-for says otherwise, and is needed at each connection to the control plane: put a
    newer one into the proxy's token file before it expires (see `mesh inspect overview`). No restart is needed.
    """
    labels = {}
    for text in label or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not key=value")
        labels[key] = value
    _token("dataplane", {"mesh": mesh, "name": name, "labels": labels, "validFor": valid_for})


def node_token(name: Annotated[str, typer.Option(help="name of the node")], valid_for: ValidFor = "24h") -> None:
    """For a node's daemon, which exchanges it for a certificate that it renews by itself. It is valid for 24 h."""
    _token("node", {"name": name, "validFor": valid_for})


def admin_token(
    valid_for: ValidFor = "24h",
    name: Annotated[str, typer.Option(help="name of the administrator, for the audit log")] = "",
) -> None:
    """For the API, and for this command on other hosts."""
    _token("admin", {"name": name, "validFor": valid_for})


def admin_certificate(
    name: Annotated[str, typer.Option(help="name of the administrator")],
    certificate: Annotated[Path, typer.Option(help="file to write it to")],
    key: Annotated[Path, typer.Option(help="file to write its key to; the key is generated here and never sent")],
    valid_for: ValidFor = "24h",
) -> None:
    """A client certificate instead of a token: for MESH_CERTIFICATE and MESH_KEY, curl, or a browser."""
    from control.cli.certificate_request import make_request  # cryptography takes a while to load

    key_pem, request = make_request()
    found = Api().call("POST", "/certificates/admin", {"name": name, "request": request, "validFor": valid_for})
    write_private(key, key_pem)
    write_private(certificate, found["certificate"])
    typer.echo(f"{certificate} until {found['notAfter']}; to revoke it earlier: mesh revoke {found['jti']}")


def revoke(
    token: Annotated[
        str,
        typer.Argument(help="the id of a token or an administrator's certificate; or -: the token is on stdin"),
    ],
    reason: Annotated[str, typer.Option(help="recorded for later readers")] = "",
    force: Annotated[
        bool,
        typer.Option("--force", help="also accept an id that is not recorded: version 0.1 did not keep ids"),
    ] = False,
) -> None:
    """Revoke a token from now on. Exit code 1, and nothing is revoked, if it is neither a token nor the id of one.

    A whole token is accepted, too; but every user of this host can read command lines, so prefer: mesh revoke - < FILE.
    """
    if token == "-":  # noqa: S105 (no password)
        token = sys.stdin.read().strip()
    elif token.count(".") == 2:
        warn("every user of this host can read a token on the command line: mesh revoke - reads it from stdin")
    found = Api().call("POST", "/tokens/revocations", {"token": token, "reason": reason, "force": force})
    typer.echo(f"revoked {found['jti']}: {plain(found['what']).plain}")


# --- CA ---------------------------------------------------------------------------------------------------------------

Identity = Annotated[str, typer.Argument(help="the MeshIdentity")]


def _rotation(mesh: str, name: str, body: dict[str, object] | None, output: Form) -> None:
    path = f"/meshes/{segment(mesh)}/meshidentities/{segment(name)}/rotation"
    found = Api().call("GET", path) if body is None else Api().call("POST", path, body)
    end = found.get("problem") or f"until {found['issuerNotAfter'][:16].replace('T', ' ')} UTC"
    rows = [[found["stage"], found["issuer"][:16], end, len(found["bundle"]), found["waitsFor"]]]
    show(found, output, ["stage", "issuer", "", "CAs in the bundle", "waits for"], rows)


def status(name: Identity, mesh: Mesh = "default", output: Output = Form.TABLE) -> None:
    """The stage of the CA's rotation, and when the CA expires."""
    _rotation(mesh, name, None, output)


class Action(StrEnum):
    begin = "begin"
    distributed = "distributed"
    replaced = "replaced"
    retired = "retired"
    abort = "abort"
    reset = "reset"


def rotate(
    name: Identity,
    action: Annotated[Action, typer.Argument(help="the step; docs/guide/identities.md explains them")] = Action.begin,
    force: Annotated[
        bool, typer.Option("--force", help="with reset: although the CA can still sign, because its key is compromised")
    ] = False,
    mesh: Mesh = "default",
    output: Output = Form.TABLE,
) -> None:
    """One step of replacing the CA. A step that proxies are not ready for is rejected, and the message names them.

    `reset` is for a CA that has expired, at any stage: another one signs at once, and is the only one that is trusted.
    """
    _rotation(mesh, name, {"action": action.value, "force": force}, output)
