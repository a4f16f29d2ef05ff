"""The node under test: the real daemon, stock Envoy with the module, and what is behind it."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.node import envoy
from deploy.node.certificates import named, unsigned, uri_names
from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import location, render
from envoy_ext.settings import TlsSettings
from tests.envoy_ext.tls_clients import Client
from tests.json_lines import read_json_lines
from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import Authority, PrivateKey, key_pem, pem, shared_key, write_pair

ME: dict[str, Any] = {"selectors": [{"uid": os.getuid()}], "usage": "any"}
TLS12 = ssl.TLSVersion.TLSv1_2
TLS13 = ssl.TLSVersion.TLSv1_3
T = TypeVar("T")

TRUST_DOMAIN = "mesh.test"

# Identity: (server names, key types, more of its configuration).
IDENTITIES: Mapping[str, tuple[Sequence[str], Sequence[str], Mapping[str, Any]]] = {
    "web": (("web.test",), ("rsa2048", "p256"), {}),
    "shop": (("shop.test", "*.shop.test"), ("p384",), {"usage": "tls13"}),
    "old": (("old.test",), ("rsa2048",), {"usage": "tls12+13", "decrypt": True}),
    "edge": (("edge.test",), ("ed25519",), {}),
}


@dataclass(frozen=True)
class Material:
    """CA and key files; `folder`/keys is the daemon's directory."""

    authority: Authority
    ca: Path

    @staticmethod
    def make(folder: Path) -> Material:
        authority = Authority.make()
        ca = folder / "ca.pem"
        ca.write_bytes(authority.pem)
        for name, (dns, algorithms, _) in IDENTITIES.items():
            for algorithm in algorithms:
                key = shared_key(algorithm, hash(name))
                write_pair(folder / "keys" / name, algorithm, key, authority.issue(key, name, dns))
        return Material(authority, ca)

    def client_certificate(
        self, path: Path, uris: Sequence[str], valid: bool = True, issuer: Authority | None = None
    ) -> Path:
        """A combined PEM file of a client with these URI names."""
        signer = issuer or self.authority
        key: PrivateKey = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        ends = now + datetime.timedelta(days=1) if valid else now - datetime.timedelta(minutes=5)
        builder = unsigned(
            named("client"),
            signer.certificate.subject,
            key.public_key(),
            serial=0x1234ABCD,
            ends=ends,
            names=uri_names(uris),
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        path.write_bytes(pem(builder.sign(signer.key, hashes.SHA256())) + key_pem(key))
        return path


def make_daemon(folder: Path, material: Material, **sections: Any) -> DaemonProcess:
    """Configured with IDENTITIES, not started."""
    daemon = DaemonProcess(folder)
    bundles = [{"file": str(material.ca), "trust_domain": TRUST_DOMAIN}]
    identities = {name: ME | {"trust_bundles": bundles} | dict(more) for name, (_, _, more) in IDENTITIES.items()}
    daemon.configure(**({"identities": identities} | sections))
    return daemon


class EnvoyNode:
    """One Envoy. `stats` are those of the module."""

    def __init__(self, running: envoy.Envoy, folder: Path, ca: Path) -> None:
        self.running = running
        self.folder = folder
        self.ca = ca

    def client(self, listener: str, name: str | None = "web.test") -> Client:
        return Client(self.running.ports[listener], self.ca, name)

    def stats(self) -> dict[str, int]:
        prefix = location.MODULE_NAME + "."
        return {key.removeprefix(prefix): value for key, value in self.running.stats(prefix).items()}

    def log(self) -> str:
        return self.running.process.log.read_text(errors="replace")

    def access_log(self, listener: str) -> list[dict[str, Any]]:
        return read_json_lines(self.folder / f"{listener}.log")

    def failures(self, listener: str) -> list[str]:
        """The transport failure reasons in the listener's access log, where Envoy writes spaces as underscores."""
        reasons = (entry["tls_failure"] for entry in self.access_log(listener))
        return [reason.replace("_", " ") for reason in reasons if reason not in (None, "-")]

    def wait_failure(self, listener: str, text: str) -> str:
        """The first reason that contains `text`; Envoy writes its log a moment later."""
        text = text.replace("_", " ")
        return wait_for(
            f"'{text}' among the failures", lambda: next((r for r in self.failures(listener) if text in r), "")
        )

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.running.pid}/fd"))

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def listener_log(folder: Path, name: str) -> render.Config:
    return render.access_log(str(folder / f"{name}.log"))


def http(folder: Path, name: str, tls: TlsSettings, routes: Sequence[render.Config]) -> render.Config:
    """An HTTPS listener on a port the system chooses, with an access log of its own."""
    manager = render.http_connection_manager(routes, stat_prefix=name)
    chain = render.filter_chain(tls, [manager])
    return render.listener(name, 0, [chain], host="127.0.0.1", access_logs=[listener_log(folder, name)])


def tcp(folder: Path, name: str, tls: TlsSettings, cluster: str) -> render.Config:
    chain = render.filter_chain(tls, [render.tcp_proxy(cluster)])
    return render.listener(name, 0, [chain], host="127.0.0.1", access_logs=[listener_log(folder, name)])


def start_envoy(
    processes: Processes, name: str, folder: Path, ca: Path, config: render.Config, concurrency: int = 2, **more: Any
) -> EnvoyNode:
    """`more`: as envoy.start takes it."""
    config = config | {"admin": {"address": render.socket_address("127.0.0.1", 0)}}
    return EnvoyNode(envoy.start(processes, name, config, concurrency=concurrency, module=True, **more), folder, ca)
