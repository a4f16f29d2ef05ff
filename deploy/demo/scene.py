"""The demo's node: backend, daemon, and a stock Envoy with two listeners."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.node import daemon, envoy
from deploy.node.certificates import Authority, Leaf
from deploy.node.processes import Process, Processes
from envoy_ext import render
from envoy_ext.settings import TlsSettings

KEY_TYPES: Mapping[str, str] = {"rsa": "rsa2048", "ecdsa": "p256"}  # listener (and identity): type of its key
ALPN = ("h2", "http/1.1")
WORKERS = 2


@dataclass(frozen=True)
class Certificates:
    authority: Authority
    leaves: tuple[Leaf, ...]


def make_certificates(folder: Path) -> Certificates:
    authority = Authority(folder / "ca")
    leaves = (authority.issue(name, key_type, folder / "keys") for name, key_type in KEY_TYPES.items())
    return Certificates(authority, tuple(leaves))


@dataclass(frozen=True)
class Backend:
    process: Process
    port: int


def start_backend(processes: Processes) -> Backend:
    port_file = processes.folder / "backend.port"
    port_file.unlink(missing_ok=True)
    process = processes.start("backend", [sys.executable, "-m", "deploy.demo.backend", port_file])
    process.wait_until(port_file.is_file, "ready")
    return Backend(process, int(port_file.read_text()))


def start_daemon(processes: Processes, certificates: Certificates, sockets: Path) -> daemon.Daemon:
    return daemon.start(processes, "daemon", certificates.leaves, sockets)


def start_offloaded_envoy(
    processes: Processes, certificates: Certificates, backend: Backend, socket: Path
) -> envoy.Envoy:
    """Stock Envoy with the module: it knows the daemon's socket and the identities' names, and no key."""
    listeners = [
        envoy.offloaded_listener(
            leaf.name,
            TlsSettings(identities=(leaf.name,), daemon_socket=socket, alpn=ALPN),
            [render.route_to_cluster("backend")],
        )
        for leaf in certificates.leaves
    ]
    config = render.bootstrap(listeners, [render.cluster("backend", "127.0.0.1", backend.port)], admin_port=0)
    return envoy.start(processes, "envoy", config, WORKERS, module=True)


def start_control_envoy(processes: Processes, certificates: Certificates, backend: Backend) -> envoy.Envoy:
    """The same Envoy with the keys in its own TLS contexts: what the search must find."""
    listeners = [
        envoy.https_listener(leaf.name, envoy.stock_tls(leaf, alpn=ALPN), [render.route_to_cluster("backend")])
        for leaf in certificates.leaves
    ]
    config = render.bootstrap(listeners, [render.cluster("backend", "127.0.0.1", backend.port)], admin_port=0)
    return envoy.start(processes, "envoy-control", config, WORKERS)
