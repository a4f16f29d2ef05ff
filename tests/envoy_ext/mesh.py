"""Two sidecars with mTLS between them: a client Envoy and a server Envoy, all keys in one daemon."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.node.processes import Processes
from envoy_ext import render
from envoy_ext.settings import SpiffeMatch, TlsSettings, UpstreamTlsSettings
from tests.envoy_ext import node
from tests.envoy_ext.node import ME, TRUST_DOMAIN, EnvoyNode
from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import Authority, PrivateKey, make_key, write_pair

CART = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/cart"
PRICES = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/prices"
NAMES = ("cart", "prices")
REQUEST_SECONDS = 30  # of a busy machine


def exactly(*ids: str) -> tuple[SpiffeMatch, ...]:
    return tuple(SpiffeMatch("exact", one) for one in ids)


@dataclass(frozen=True)
class Services:
    """The daemon with identities "cart" (the caller) and "prices" (the called), and the CA of both."""

    folder: Path
    authority: Authority
    daemon: DaemonProcess

    @staticmethod
    def make(
        folder: Path,
        authority: Authority | None = None,
        selectors: Sequence[Mapping[str, Any]] = ME["selectors"],
        identities: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> Services:
        """Not started. `identities`: others beside the two."""
        services = Services(folder, authority or Authority.make(), DaemonProcess(folder))
        for name, uri in zip(NAMES, (CART, PRICES), strict=True):
            services.issue(name, uri)
        services.trust(services.authority)
        rule = {"selectors": list(selectors), "usage": "any"}
        of_files = {name: rule | {"trust_bundles": services.trust_bundles(name)} for name in NAMES}
        services.daemon.configure(**({"identities": of_files | dict(identities or {})} | sections))
        return services

    def bundle(self, name: str) -> Path:
        return self.folder / f"{name}-ca.pem"

    def trust_bundles(self, name: str) -> list[dict[str, str]]:
        return [{"file": str(self.bundle(name)), "trust_domain": TRUST_DOMAIN}]

    def trust(self, *authorities: Authority, who: Sequence[str] = NAMES) -> None:
        """Replaces the trust bundles of these; the daemon looks at them on SIGHUP."""
        for name in who:
            fresh = self.bundle(name).with_suffix(".new")
            fresh.write_bytes(b"".join(one.pem for one in authorities))
            fresh.rename(self.bundle(name))

    def issue(
        self, name: str, uri: str, issuer: Authority | None = None, key: PrivateKey | None = None, **more: Any
    ) -> int:
        """A certificate of this SPIFFE id, for this P-256 key or a new one; gives its serial number."""
        made = key or make_key("p256")
        certificate = (issuer or self.authority).issue(made, name, (f"{name}.test",), uris=(uri,), **more)
        write_pair(self.folder / "keys" / name, "p256", made, certificate)
        return certificate.serial_number

    def server_tls(self, **more: Any) -> TlsSettings:
        settings = {"identities": ("prices",), "client_certificate": "required", "alpn": ("h2", "http/1.1")} | more
        return TlsSettings(daemon_socket=self.daemon.socket, **settings)

    def client_tls(self, **more: Any) -> UpstreamTlsSettings:
        settings = {"identities": ("cart",), "peer_spiffe_ids": exactly(PRICES)} | more
        return UpstreamTlsSettings(daemon_socket=self.daemon.socket, **settings)


def published() -> list[render.Config]:
    """Headers of an answer that tell what the server knows of its client."""
    keys = ("peer_spiffe_id", "peer_serial", "resumed", "alpn", "tls_version", "backend", "server_name")
    return [{"header": {"key": f"x-{key}", "value": render.filter_state(key)}} for key in keys]


def start_server(
    processes: Processes,
    services: Services,
    clusters: Sequence[render.Config] = (),
    routes: Sequence[render.Config] | None = None,
    name: str = "server",
    start: Mapping[str, Any] | None = None,
    **tls: Any,
) -> EnvoyNode:
    """Listener "mtls": answers with what it knows of its client, or goes to `routes`. `start`: for envoy.start."""
    facts = {**render.direct_response("ok\n"), "response_headers_to_add": published()}
    listener = node.http(services.folder, f"{name}-mtls", services.server_tls(**tls), routes or [facts])
    config = render.bootstrap([listener], clusters)
    return node.start_envoy(processes, name, services.folder, services.bundle("cart"), config, **(start or {}))


def plain_listener(name: str, folder: Path, cluster: str) -> render.Config:
    """Where the application calls: plaintext, into a cluster; with a log of what the upstream did."""
    fields = {
        "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "response_code_details": "%RESPONSE_CODE_DETAILS%",
    }
    log = render.access_log(str(folder / f"{name}.log"), fields)
    manager = render.http_connection_manager([render.route_to_cluster(cluster)], stat_prefix=name, access_logs=[log])
    return render.listener(name, 0, [{"filters": [manager]}], host="127.0.0.1")


def start_client(
    processes: Processes,
    services: Services,
    clusters: Mapping[str, render.Config],
    name: str = "client",
    stats: bool = True,
    start: Mapping[str, Any] | None = None,
) -> EnvoyNode:
    """A plaintext listener for each cluster, named like it. `stats`: a listener whose filter shows the module's."""
    listeners = [plain_listener(each, services.folder, each) for each in clusters]
    if stats:
        tls = TlsSettings(identities=("cart",), daemon_socket=services.daemon.socket)
        listeners.append(node.http(services.folder, "statistics", tls, [render.direct_response("ok\n")]))
    config = render.bootstrap(listeners, list(clusters.values()))
    return node.start_envoy(processes, name, services.folder, services.bundle("cart"), config, **(start or {}))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def request(
    port: int, method: str = "GET", path: str = "/", body: bytes | None = None, timeout: float = REQUEST_SECONDS
) -> Answer:
    """One request to a plaintext port, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()
