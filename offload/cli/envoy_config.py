"""`offload envoy-config`: what to put into Envoy so that an identity's key serves its listener or its cluster."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from offload.cli.output import DEFAULT_SOCKET, SocketPath, fail, print_json
from offload.reporting import exit_codes

# What comes from the network is TLS; what an application sends by our identity is not, so only this host may send it.
LISTEN, LISTEN_OUTBOUND = "0.0.0.0:8443", "127.0.0.1:8443"


class Text(StrEnum):
    yaml = "yaml"
    json = "json"


class ClientCertificate(StrEnum):
    off = "off"
    optional = "optional"
    required = "required"


_CLIENT_CERTIFICATE: dict[ClientCertificate, Literal["optional", "required"] | None] = {
    ClientCertificate.off: None,
    ClientCertificate.optional: "optional",
    ClientCertificate.required: "required",
}


def _print_module_path(wanted: bool) -> None:
    """An eager option, so that it needs no identity."""
    if wanted:
        typer.echo(_module_library().parent)
        raise typer.Exit


def _module_library() -> Path:
    from envoy_ext.location import ModuleMissing, module_library

    try:
        return module_library()
    except ModuleMissing as missing:
        fail(f"{missing}; or name the file with --library, or let Envoy find it with --by-name", exit_codes.FAILED)


def envoy_config(
    identity: Annotated[
        list[str],
        typer.Option(
            "--identity", "-i", help="Identity whose certificate to serve; repeatable: SNI selects among several."
        ),
    ],
    upstream: Annotated[str, typer.Option(help="Where the decrypted traffic goes, host:port.")] = "127.0.0.1:8080",
    listen: Annotated[
        str | None,
        typer.Option(help=f"Where Envoy listens, IP:port. Unset: {LISTEN}, with --connect-to {LISTEN_OUTBOUND}."),
    ] = None,
    tcp: Annotated[bool, typer.Option("--tcp", help="Proxy TCP instead of HTTP.")] = False,
    http2_upstream: Annotated[bool, typer.Option("--http2-upstream", help="The upstream speaks HTTP/2.")] = False,
    connect_to: Annotated[
        str | None,
        typer.Option(
            help="Outbound: connections to this host:port present the identity's certificate. "
            "--listen is then where your application connects, in plaintext."
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="With --connect-to: the server's SPIFFE id, or its DNS name. With --client-certificate: the SPIFFE id "
            "of a client to accept; unset: all that verify. May be given several times."
        ),
    ] = None,
    client_certificate: Annotated[
        ClientCertificate, typer.Option(help="Whether clients must present a certificate.")
    ] = ClientCertificate.off,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole/--snippet",
            help="A complete file for `envoy -c`, or only the listener and cluster for your static_resources.",
        ),
    ] = True,
    library: Annotated[
        Path | None,
        typer.Option(help="Path of libtls_offload.so as Envoy sees it, for instance in its container; unset: ours."),
    ] = None,
    by_name: Annotated[
        bool,
        typer.Option(
            "--by-name", help="Refer to the module by name: Envoy finds it in $ENVOY_DYNAMIC_MODULES_SEARCH_PATH."
        ),
    ] = False,
    module_path: Annotated[
        bool,
        typer.Option(
            "--module-path",
            callback=_print_module_path,
            is_eager=True,
            help="Print only the folder of the module, for $ENVOY_DYNAMIC_MODULES_SEARCH_PATH or to copy it.",
        ),
    ] = False,
    socket: SocketPath = DEFAULT_SOCKET,
    output: Annotated[Text, typer.Option("--output", "-o", help="Output format.")] = Text.yaml,
) -> None:
    """Print the Envoy configuration that serves an identity with its key in this daemon.

    Example: `offload envoy-config -i www --upstream localhost:8080 > envoy.yaml`, then `envoy -c envoy.yaml`

    For a cluster: `offload envoy-config -i cart --connect-to prices.example:8443 --peer spiffe://mesh.example/prices`

    The module's folder: `export ENVOY_DYNAMIC_MODULES_SEARCH_PATH=$(offload envoy-config --module-path)`
    """
    del module_path
    if by_name and library is not None:
        fail("--library and --by-name are mutually exclusive", exit_codes.USAGE)
    file = None if by_name else library or _module_library()
    socket = socket.absolute()  # Envoy may have another working directory
    peers = peer or []
    if connect_to is not None:
        where = listen or LISTEN_OUTBOUND
        config = _outbound(identity, connect_to, peers, where, tcp, http2_upstream, whole, file, socket)
    else:
        where = listen or LISTEN
        config = _inbound(
            identity, upstream, peers, client_certificate, where, tcp, http2_upstream, whole, file, socket
        )
    _print(config, output)


def _inbound(
    identity: list[str],
    upstream: str,
    peers: list[str],
    client_certificate: ClientCertificate,
    listen: str,
    tcp: bool,
    http2: bool,
    whole: bool,
    library: Path | None,
    socket: Path,
) -> dict[str, Any]:
    from envoy_ext import authorization, render, settings

    listen_host, listen_port = _listen_address(listen)
    upstream_host, upstream_port = _endpoint("--upstream", upstream)
    knows_clients = client_certificate is not ClientCertificate.off
    if peers and not knows_clients:
        fail("--peer requires --connect-to or --client-certificate", exit_codes.USAGE)
    try:
        tls = settings.TlsSettings(
            identities=tuple(identity),
            daemon_socket=socket,
            alpn=() if tcp else ("h2", "http/1.1"),
            client_certificate=_CLIENT_CERTIFICATE[client_certificate],
            peer_spiffe_ids=tuple(settings.SpiffeMatch("exact", one) for one in peers),
        )
    except ValueError as error:
        fail(f"--peer, --identity: {error}", exit_codes.USAGE)
    name, cluster_name = "tls_offload", "behind_tls_offload"
    if tcp:
        chain = render.filter_chain(tls, [render.tcp_proxy(cluster_name)], library=library)
        listener = render.listener(name, listen_port, [chain], host=listen_host)
    else:
        route = render.route_to_cluster(cluster_name)
        if knows_clients:
            route |= authorization.forwarded_client_cert()
        listener = render.http_listener(name, listen_port, tls, [route], host=listen_host, library=library)
    cluster = render.cluster(cluster_name, upstream_host, upstream_port, http2=http2)
    return render.bootstrap([listener], [cluster]) if whole else {"listeners": [listener], "clusters": [cluster]}


def _outbound(
    identity: list[str],
    connect_to: str,
    peers: list[str],
    listen: str,
    tcp: bool,
    http2: bool,
    whole: bool,
    library: Path | None,
    socket: Path,
) -> dict[str, Any]:
    from envoy_ext import render, settings

    host, port = _endpoint("--connect-to", connect_to)
    ids = [one for one in peers if one.startswith(settings.SPIFFE_SCHEME)]
    try:
        tls = settings.UpstreamTlsSettings(
            identities=tuple(identity),
            daemon_socket=socket,
            alpn=() if tcp else ("h2",) if http2 else ("http/1.1",),
            peer_spiffe_ids=tuple(settings.SpiffeMatch("exact", one) for one in ids),
            peer_dns_names=tuple(one for one in peers if one not in ids),
            server_name=None if _is_ip_address(host) else host,
        )
    except ValueError as error:
        fail(f"--peer, --identity: {error}", exit_codes.USAGE)
    cluster = render.cluster("through_tls_offload", host, port, http2=http2 and not tcp, tls=tls, library=library)
    if not whole:
        return {"clusters": [cluster]}
    route = render.route_to_cluster(cluster["name"])
    manager = (
        render.tcp_proxy(cluster["name"])
        if tcp
        else render.http_connection_manager([route], stat_prefix="outbound", encrypted=False)
    )
    listen_host, listen_port = _listen_address(listen)
    return render.bootstrap(
        [render.listener("outbound", listen_port, [{"filters": [manager]}], host=listen_host)], [cluster]
    )


def _print(config: dict[str, Any], output: Text) -> None:
    from envoy_ext import render

    if output is Text.json:
        print_json(config)
    else:
        typer.echo(render.to_yaml(config), nl=False)


def _listen_address(text: str) -> tuple[str, int]:
    from offload.config.fields import parse_address

    try:
        return parse_address(text)
    except ValueError as error:
        fail(f"--listen {error}", exit_codes.USAGE)


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _endpoint(option: str, text: str) -> tuple[str, int]:
    from offload.config.fields import parse_endpoint

    try:
        return parse_endpoint(text)
    except ValueError as error:
        fail(f"{option} {error}", exit_codes.USAGE)
