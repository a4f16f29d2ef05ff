"""`offload envoy-config`: what to put into Envoy so that an identity's key serves its listener or its cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from offload import exit_codes
from offload.cli.output import DEFAULT_SOCKET, SocketPath, fail, print_json


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


def envoy_config(
    identity: Annotated[
        list[str], typer.Option("--identity", "-i", help="Whose certificates to serve; several are chosen by SNI.")
    ],
    upstream: Annotated[str, typer.Option(help="Where the decrypted traffic goes, IP:port.")] = "127.0.0.1:8080",
    listen: Annotated[str, typer.Option(help="Where Envoy listens, IP:port.")] = "0.0.0.0:8443",
    tcp: Annotated[bool, typer.Option("--tcp", help="Pass bytes on instead of HTTP requests.")] = False,
    http2_upstream: Annotated[bool, typer.Option("--http2-upstream", help="The upstream speaks HTTP/2.")] = False,
    connect_to: Annotated[
        str | None,
        typer.Option(help="Print a cluster instead: connections to this IP:port show the identity's certificate."),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="With --connect-to: the server's SPIFFE id, or its DNS name. With --client-certificate: the SPIFFE id "
            "of a client to accept; unset: all that verify. May be given several times."
        ),
    ] = None,
    client_certificate: Annotated[
        ClientCertificate, typer.Option(help="Whether clients have to show a certificate of their own.")
    ] = ClientCertificate.off,
    whole: Annotated[
        bool, typer.Option("--whole", help="A complete file for `envoy -c`, instead of a snippet for static_resources.")
    ] = False,
    library: Annotated[
        Path | None, typer.Option(help="Path of libtls_offload.so; unset: found on ENVOY_DYNAMIC_MODULES_SEARCH_PATH.")
    ] = None,
    socket: SocketPath = DEFAULT_SOCKET,
    output: Annotated[Text, typer.Option("--output", "-o", help="How to print it.")] = Text.yaml,
) -> None:
    """Print the Envoy configuration that serves an identity with its key in this daemon.

    Example: `offload envoy-config -i www --upstream 127.0.0.1:8080 --whole > envoy.yaml`

    A cluster's side: `offload envoy-config -i cart --connect-to 10.0.0.7:8443 --peer spiffe://mesh.example/prices`
    """
    try:
        from envoy_ext import authorization, render, settings
    except ImportError as error:
        fail(f"the Envoy renderer is not installed: {error}", exit_codes.FAILED)
    listen_host, listen_port = _address("--listen", listen)
    if connect_to is not None:
        cluster = _cluster(identity, connect_to, peer or [], tcp, http2_upstream, library, socket)
        if whole:
            manager = (
                render.tcp_proxy(cluster["name"])
                if tcp
                else render.http_connection_manager(
                    [render.route_to_cluster(cluster["name"])], stat_prefix="outbound", encrypted=False
                )
            )
            plain = render.listener("outbound", listen_port, [{"filters": [manager]}], host=listen_host)
            _print(render.bootstrap([plain], [cluster]), output)
        else:
            _print({"clusters": [cluster]}, output)
        return
    knows_clients = client_certificate is not ClientCertificate.off
    if peer and not knows_clients:
        fail("--peer goes with --connect-to, or with --client-certificate", exit_codes.USAGE)
    upstream_host, upstream_port = _address("--upstream", upstream)
    try:
        tls = settings.TlsSettings(
            identities=tuple(identity),
            daemon_socket=socket,
            alpn=() if tcp else ("h2", "http/1.1"),
            client_certificate=_CLIENT_CERTIFICATE[client_certificate],
            peer_spiffe_ids=tuple(settings.SpiffeMatch("exact", one) for one in peer or []),
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
    cluster = render.cluster(cluster_name, upstream_host, upstream_port, http2=http2_upstream)
    config: dict[str, Any] = (
        render.bootstrap([listener], [cluster]) if whole else {"listeners": [listener], "clusters": [cluster]}
    )
    _print(config, output)


def _print(config: dict[str, Any], output: Text) -> None:
    from envoy_ext import render

    if output is Text.json:
        print_json(config)
    else:
        typer.echo(render.to_yaml(config), nl=False)


def _cluster(
    identity: list[str],
    connect_to: str,
    peers: list[str],
    tcp: bool,
    http2: bool,
    library: Path | None,
    socket: Path,
) -> dict[str, Any]:
    from envoy_ext import render, settings

    host, port = _address("--connect-to", connect_to)
    ids = [one for one in peers if one.startswith(settings.SPIFFE_SCHEME)]
    try:
        tls = settings.UpstreamTlsSettings(
            identities=tuple(identity),
            daemon_socket=socket,
            alpn=() if tcp else ("h2",) if http2 else ("http/1.1",),
            peer_spiffe_ids=tuple(settings.SpiffeMatch("exact", one) for one in ids),
            peer_dns_names=tuple(one for one in peers if one not in ids),
        )
    except ValueError as error:
        fail(f"--peer, --identity: {error}", exit_codes.USAGE)
    return render.cluster("through_tls_offload", host, port, http2=http2 and not tcp, tls=tls, library=library)


def _address(option: str, text: str) -> tuple[str, int]:
    from offload.config_fields import parse_address

    try:
        return parse_address(text)
    except ValueError as error:
        fail(f"{option} {error}", exit_codes.USAGE)
