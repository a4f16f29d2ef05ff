"""The demo's second half: two sidecars, mTLS between them, both private keys in one daemon.

    client --plaintext--> Envoy "cart" ====mTLS====> Envoy "prices" --plaintext--> backend

Each request is a new connection, so each is a handshake with two signatures by the daemon.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from deploy.demo.backend import GREETING
from deploy.demo.scene import Backend
from deploy.demo.traffic import traffic, wait_for_requests
from deploy.node import daemon, envoy, memory_search
from deploy.node.certificates import Authority, Leaf
from deploy.node.envoy import Config, Envoy
from deploy.node.processes import NodeError, Processes
from envoy_ext import authorization, render
from envoy_ext.settings import SpiffeMatch, TlsSettings, UpstreamTlsSettings

TRUST_DOMAIN = "demo.mesh"
SERVER, CALLER, INTRUDER = "prices", "cart", "intruder"
CALLS = 200  # by each caller
ROTATIONS = 4
BETWEEN_ROTATIONS = 60  # requests
SECONDS = 20
SERIAL_HEADER = "x-caller-serial"


def spiffe_id(name: str) -> str:
    return f"spiffe://{TRUST_DOMAIN}/{name}"


@dataclass
class SidecarFindings:
    """Filled step by step."""

    answers: dict[str, dict[int, int]] = field(default_factory=dict)  # caller: HTTP status (0: none) -> count
    during_rotation: dict[int, int] = field(default_factory=dict)
    rotations: int = 0
    mtls_handshakes: int = 0
    rbac_denied: int = 0  # by Envoy's own count
    keys_in_envoys: list[str] = field(default_factory=list)

    @property
    def failed_during_rotation(self) -> int:
        return sum(count for status, count in self.during_rotation.items() if status != 200)

    def as_data(self) -> dict[str, object]:
        return {
            "mtls_handshakes": self.mtls_handshakes,
            "mtls_requests": sum(sum(one.values()) for one in (*self.answers.values(), self.during_rotation)),
            "rbac_allowed": self.answers.get(CALLER, {}).get(200, 0),
            "rbac_denied": self.rbac_denied,
            "rotations": self.rotations,
            "requests_during_rotation": sum(self.during_rotation.values()),
            "failed_during_rotation": self.failed_during_rotation,
        }

    def problems(self) -> list[str]:
        found = []
        for caller, wanted in ((CALLER, 200), (INTRUDER, 403)):
            others = {status: n for status, n in self.answers.get(caller, {}).items() if status != wanted}
            if others or not self.answers.get(caller):
                found.append(f"'{caller}' should get {wanted} each time, and got {others or 'nothing'}")
        if self.rbac_denied != self.answers.get(INTRUDER, {}).get(403, 0):
            found.append(f"Envoy counts {self.rbac_denied} denied requests")
        if self.failed_during_rotation:
            found.append(f"{self.failed_during_rotation} requests failed while certificates rotated")
        if self.rotations < ROTATIONS:
            found.append(f"only {self.rotations} of {ROTATIONS} rotations were seen")
        return found + self.keys_in_envoys


class Sidecars:
    def __init__(self, processes: Processes, folder: Path, backend: Backend) -> None:
        self._folder = folder
        self._authority = Authority(folder / "ca")
        self.leaves = {name: self._issue(name) for name in (SERVER, CALLER, INTRUDER)}
        settings = daemon.Settings(usage="tls13", trust_bundle=(self._authority.ca_file, TRUST_DOMAIN))
        self.daemon = daemon.start(processes, "daemon-sidecars", list(self.leaves.values()), folder / "run", settings)
        self.server = self._start_server(processes, backend)
        self.client = self._start_client(processes)

    def _issue(self, name: str) -> Leaf:
        return self._authority.issue(name, "p256", self._folder / "keys", spiffe_id(name))

    def _start_server(self, processes: Processes, backend: Backend) -> Envoy:
        tls = TlsSettings(identities=(SERVER,), daemon_socket=self.daemon.socket, client_certificate="required")
        guard = authorization.rbac_filter("http", {"callers": [SpiffeMatch("exact", spiffe_id(CALLER))]})
        route = render.route_to_cluster("backend")
        route |= authorization.forwarded_client_cert()
        shown = {"key": SERIAL_HEADER, "value": render.filter_state("peer_serial")}
        route["response_headers_to_add"] = [{"header": shown}]
        manager = render.http_connection_manager([route], stat_prefix=SERVER, http_filters=[guard])
        listener = render.listener("mtls", 0, [render.filter_chain(tls, [manager])], host="127.0.0.1")
        cluster = render.cluster("backend", "127.0.0.1", backend.port)
        return envoy.start(
            processes, "envoy-prices", render.bootstrap([listener], [cluster], admin_port=0), module=True
        )

    def _start_client(self, processes: Processes) -> Envoy:
        """A plaintext listener for each caller, as which Envoy then calls the server."""
        port = self.server.ports["mtls"]
        clusters = [self._cluster(name, port) for name in (CALLER, INTRUDER)]
        listeners = [_plain_listener(name) for name in (CALLER, INTRUDER)]
        return envoy.start(processes, "envoy-cart", render.bootstrap(listeners, clusters, admin_port=0), module=True)

    def _cluster(self, caller: str, port: int) -> Config:
        tls = UpstreamTlsSettings(
            identities=(caller,),
            daemon_socket=self.daemon.socket,
            peer_spiffe_ids=(SpiffeMatch("exact", spiffe_id(SERVER)),),
            session_tickets=False,  # every connection must be a full handshake here
        )
        cluster = render.cluster(caller, "127.0.0.1", port, tls=tls)
        return cluster | render.http_options(http2=False, requests_per_connection=1)

    # ---- what happens ----

    def call(self, caller: str, count: int) -> dict[int, int]:
        """Requests one after the other, each through a new mTLS connection; returns the number of each status."""
        answers: dict[int, int] = {}
        for _ in range(count):
            status, _ = _request(self.client.ports[caller])
            answers[status] = answers.get(status, 0) + 1
        return answers

    def rotate(self, name: str) -> None:
        """A new key and certificate on disk; returns when new connections show it."""
        updates = self._updates()
        self.leaves[name] = self._issue(name)
        serial = x509.load_pem_x509_certificate(self.leaves[name].certificate_file.read_bytes()).serial_number
        deadline = time.monotonic() + SECONDS
        while True:
            shown = self._updates() > updates if name == SERVER else self._serial_of(name) == serial
            if shown:
                return
            if time.monotonic() > deadline:
                raise NodeError(f"the new certificate of '{name}' is not in use after {SECONDS} s")
            time.sleep(0.02)

    def _updates(self) -> int:
        """How many updates of its identity the server's Envoy has received."""
        return self.server.stats("tls_offload.identity_updates").get("tls_offload.identity_updates", 0)

    def _serial_of(self, caller: str) -> int:
        """Serial number of the certificate that the server is shown in a new connection."""
        _, headers = _request(self.client.ports[caller])
        return int(headers.get(SERIAL_HEADER, "0"), 16)

    def handshakes(self) -> int:
        return self.server.stats("tls_offload.handshakes").get("tls_offload.handshakes", 0)

    def denied(self) -> int:
        name = f"http.{SERVER}.rbac.denied"
        return self.server.stats(name).get(name, 0)

    def search(self, leaves: Mapping[str, Leaf]) -> list[str]:
        """Where a private key was found in one of the Envoys; empty if all is well."""
        found = []
        for sidecar, running in (("cart", self.client), ("prices", self.server)):
            for name, leaf in leaves.items():
                search = memory_search.search(running.pid, memory_search.patterns(leaf.key))
                found += [
                    f"the key of '{name}' is in the memory of Envoy '{sidecar}': {f.pattern}" for f in search.findings
                ]
        return found


def _plain_listener(cluster: str) -> Config:
    manager = render.http_connection_manager([render.route_to_cluster(cluster)], stat_prefix=f"to-{cluster}")
    return render.listener(cluster, 0, [{"filters": [manager]}], host="127.0.0.1")


def _request(port: int) -> tuple[int, Mapping[str, str]]:
    """Status and headers; 0 if there was no valid answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return (answer.status if answer.status != 200 or body == GREETING else 0), headers
    except (OSError, http.client.HTTPException):
        return 0, {}
    finally:
        connection.close()


def rotate_under_traffic(sidecars: Sidecars, findings: SidecarFindings) -> None:
    """New keys and certificates for both ends in turn, while requests go on."""
    with traffic(lambda: sidecars.call(CALLER, 1)) as statuses:
        for number in range(ROTATIONS):
            wait_for_requests(statuses, BETWEEN_ROTATIONS)
            sidecars.rotate((SERVER, CALLER)[number % 2])
            findings.rotations += 1
        wait_for_requests(statuses, BETWEEN_ROTATIONS)
    findings.during_rotation = statuses
