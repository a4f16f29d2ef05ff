"""The node that is looked at: stock Envoy with our transport socket, and beside it the same Envoy's own TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from deploy.node import envoy
from deploy.node.certificates import Leaf
from deploy.node.processes import Processes
from envoy_ext import render
from envoy_ext.settings import TlsSettings, UpstreamTlsSettings
from tests.conformance.authority import Authority
from tests.envoy_ext import node
from tests.envoy_ext.node import ME, TRUST_DOMAIN
from tests.envoy_ext.tls_clients import TIMEOUT, Client
from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import key_pem, make_key, pem, write_pair

SERVER_NAME = "conformance.test"
CLIENT_ID = f"spiffe://{TRUST_DOMAIN}/client"
KEYS = ("rsa2048", "p256")
SIDES = ("ours", "stock")
RSA_KEY_EXCHANGE = "rsakx"  # an identity, and a listener: TLS 1.2 without forward secrecy, which is off by default
HTTP_ONE = ("http/1.1",)


@dataclass(frozen=True)
class Upstream:
    """Where the Envoy is the client: calls to the port `calls` make it connect to `listening`."""

    calls: int
    listening: socket.socket
    folder: Path

    def pair(self, name: str) -> Path:
        """Certificate and key of a server, but for the suffix."""
        return self.folder / "servers" / name


@dataclass(frozen=True)
class Target:
    """The listeners of one side and one kind of key."""

    side: str
    key: str
    port: int
    mtls: int  # where client certificates are required
    upstream: Upstream
    rsakx: int  # with an RSA key, for RSA key exchange and nothing else
    ca: Path
    client_certificate: Path
    client_key: Path

    def healthy(self) -> None:
        """A normal client is served, whatever happened before."""
        client = Client(self.port, self.ca, SERVER_NAME)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with client.connect(client.context(version)) as connection:
                assert b" 200 " in client.get(connection).split(b"\r\n")[0]


@dataclass(frozen=True)
class Rig:
    targets: Mapping[tuple[str, str], Target]  # by side and key
    processes: Processes


def _leaf(folder: Path, name: str) -> Leaf:
    pair = folder / "keys" / name
    return Leaf(name, name, None, pair / "pair.crt", pair / "pair.key")  # type: ignore[arg-type]


def _make_keys(folder: Path) -> None:
    authority = Authority.make()
    (folder / "ca.pem").write_bytes(pem(authority.certificate))
    for name, algorithm in (*zip(KEYS, KEYS, strict=True), (RSA_KEY_EXCHANGE, "rsa2048")):
        key = make_key(algorithm)
        write_pair(folder / "keys" / name, "pair", key, authority.issue(key, x509.DNSName(SERVER_NAME)))
    key = make_key("p256")
    certificate = authority.issue(key, x509.UniformResourceIdentifier(CLIENT_ID))
    (folder / "client.pem").write_bytes(pem(certificate))
    (folder / "client.key").write_bytes(key_pem(key))
    for name, issuer, known in (
        ("server", authority, SERVER_NAME),
        ("stranger", Authority.make(), SERVER_NAME),
        ("other", authority, "other.test"),
    ):
        key = make_key("p256")
        write_pair(folder / "servers", name, key, issuer.issue(key, x509.DNSName(known)))


def _ours(folder: Path, socket: Path) -> list[render.Config]:
    routes = [render.direct_response("ok\n")]
    ca = folder / "ca.pem"

    def listener(name: str, identity: str, **more: object) -> render.Config:
        tls = TlsSettings(identities=(identity,), daemon_socket=socket, alpn=HTTP_ONE, **more)  # type: ignore[arg-type]
        return node.http(folder, f"ours-{name}", tls, routes)

    kx = {"tls_maximum": "1.2", "cipher_suites": ("AES128-GCM-SHA256",)}
    mtls = {"client_certificate": "required", "trusted_ca_file": ca}
    return [
        *(listener(key, key) for key in KEYS),
        *(listener(f"{key}-mtls", key, **mtls) for key in KEYS),
        listener(RSA_KEY_EXCHANGE, RSA_KEY_EXCHANGE, **kx),
    ]


def _stock(folder: Path) -> list[render.Config]:
    routes = [render.direct_response("ok\n")]

    def listener(name: str, identity: str, ca: Path | None = None) -> render.Config:
        tls = envoy.stock_tls(_leaf(folder, identity), ca, HTTP_ONE)
        return envoy.https_listener(f"stock-{name}", tls, routes)

    kx = listener(RSA_KEY_EXCHANGE, RSA_KEY_EXCHANGE)
    context = kx["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    context["tls_params"] = {"tls_maximum_protocol_version": "TLSv1_2", "cipher_suites": ["AES128-GCM-SHA256"]}
    return [
        *(listener(key, key) for key in KEYS),
        *(listener(f"{key}-mtls", key, folder / "ca.pem") for key in KEYS),
        kx,
    ]


def _listen() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    listening.settimeout(TIMEOUT)
    return listening


def _upstream_ours(folder: Path, daemon: Path, key: str) -> render.Config:
    tls = UpstreamTlsSettings(
        identities=(key,),
        daemon_socket=daemon,
        server_name=SERVER_NAME,
        peer_dns_names=(SERVER_NAME,),
        trusted_ca_file=folder / "ca.pem",
        session_tickets=False,
    )
    return render.transport_socket(tls)


def _upstream_stock(folder: Path, key: str) -> render.Config:
    name = {"san_type": "DNS", "matcher": {"exact": SERVER_NAME}}
    context = envoy.stock_tls(_leaf(folder, key))["typed_config"]["common_tls_context"] | {
        "alpn_protocols": [],
        "validation_context": {
            "trusted_ca": {"filename": str(folder / "ca.pem")},
            "match_typed_subject_alt_names": [name],
        },
    }
    kind = envoy.TYPES + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    typed = {"@type": kind, "sni": SERVER_NAME, "common_tls_context": context, "max_session_keys": 0}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def _calls(name: str, port: int, transport_socket: render.Config) -> tuple[render.Config, render.Config]:
    """A plaintext listener and the cluster behind it."""
    cluster = render.cluster(name, "127.0.0.1", port) | {"transport_socket": transport_socket}
    manager = render.http_connection_manager([render.route_to_cluster(name)], stat_prefix=name)
    return render.listener(name, 0, [{"filters": [manager]}], host="127.0.0.1"), cluster


@contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """Everything started; at the end Envoy must still be there, whatever was sent to it."""
    _make_keys(folder)
    daemon = DaemonProcess(folder)
    bundles = [{"file": str(folder / "ca.pem"), "trust_domain": TRUST_DOMAIN}]
    identity = ME | {"trust_bundles": bundles, "usage": "tls12+13"}
    identities = dict.fromkeys(KEYS, identity) | {RSA_KEY_EXCHANGE: identity | {"decrypt": True}}
    daemon.configure(identities=identities)
    daemon.start()
    try:
        with Processes(folder) as processes:
            listeners = [*_ours(folder, daemon.socket), *_stock(folder)]
            for listener in listeners:  # or each connection that Envoy closes would be there for a second more
                manager = listener["filter_chains"][0]["filters"][-1]["typed_config"]
                manager["delayed_close_timeout"] = "0.1s"
            listening = {(side, key): _listen() for side in SIDES for key in KEYS}
            clusters = []
            for (side, key), server in listening.items():
                tls = _upstream_ours(folder, daemon.socket, key) if side == "ours" else _upstream_stock(folder, key)
                listener, cluster = _calls(f"{side}-{key}-upstream", server.getsockname()[1], tls)
                listeners.append(listener)
                clusters.append(cluster)
            config = render.bootstrap(listeners, clusters)
            ports = node.start_envoy(processes, "envoy", folder, folder / "ca.pem", config).running.ports
            yield Rig({place: _target(folder, ports, *place, server) for place, server in listening.items()}, processes)
            processes.check()
    finally:
        daemon.stop()


def _target(folder: Path, ports: Mapping[str, int], side: str, key: str, server: socket.socket) -> Target:
    return Target(
        side,
        key,
        upstream=Upstream(ports[f"{side}-{key}-upstream"], server, folder),
        port=ports[f"{side}-{key}"],
        mtls=ports[f"{side}-{key}-mtls"],
        rsakx=ports[f"{side}-{RSA_KEY_EXCHANGE}"],
        ca=folder / "ca.pem",
        client_certificate=folder / "client.pem",
        client_key=folder / "client.key",
    )
