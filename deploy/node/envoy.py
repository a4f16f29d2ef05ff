"""Stock Envoy processes: their configuration as plain data, and how they are started."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.node.certificates import Leaf
from deploy.node.processes import NodeError, Process, Processes
from envoy_ext import location, render
from envoy_ext.settings import TlsSettings

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / ".cache" / "envoy" / "envoy" / "_bin" / "envoy"
# A proxy named in the environment cannot reach this host's own addresses.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
TYPES = "type.googleapis.com/"

Config = dict[str, Any]


def binary() -> Path:
    """The stock Envoy: $ENVOY_BINARY, else what `make setup` installs. NodeError if there is none."""
    configured = os.environ.get("ENVOY_BINARY")
    path = Path(configured) if configured else INSTALLED
    if not os.access(path, os.X_OK):
        raise NodeError(f"no stock Envoy at {path}; install it with: make setup   (or set ENVOY_BINARY)")
    return path


def stock_tls(leaf: Leaf, ca_file: Path | None = None, alpn: Sequence[str] = ("h2", "http/1.1")) -> Config:
    """Envoy's own TLS, with the key in Envoy. `ca_file` makes client certificates required."""
    common: Config = {
        "alpn_protocols": list(alpn),
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(leaf.certificate_file)},
                "private_key": {"filename": str(leaf.key_file)},
            }
        ],
    }
    if ca_file:
        common["validation_context"] = {"trusted_ca": {"filename": str(ca_file)}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": TYPES + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": ca_file is not None,
            "common_tls_context": common,
        },
    }


def stock_upstream_tls(leaf: Leaf, ca_file: Path, server_name: str, version: str, groups: Sequence[str]) -> Config:
    """Envoy's own TLS as a client with a certificate, one version and no resumption; the server must have that name."""
    tls_version = f"TLSv{version.replace('.', '_')}"
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": TYPES + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": server_name,
            "max_session_keys": 0,
            "common_tls_context": {
                "tls_params": {
                    "tls_minimum_protocol_version": tls_version,
                    "tls_maximum_protocol_version": tls_version,
                    "ecdh_curves": list(groups),
                },
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(leaf.certificate_file)},
                        "private_key": {"filename": str(leaf.key_file)},
                    }
                ],
                "validation_context": {
                    "trusted_ca": {"filename": str(ca_file)},
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": server_name}}],
                },
            },
        },
    }


def https_listener(name: str, transport_socket: Config, routes: Sequence[Config]) -> Config:
    """A listener with Envoy's own TLS, on a port that the system chooses; `Envoy.ports` has it."""
    chain = {
        "transport_socket": transport_socket,
        "filters": [render.http_connection_manager(routes, stat_prefix=name)],
    }
    return render.listener(name, 0, [chain], host="127.0.0.1")


def offloaded_listener(name: str, tls: TlsSettings, routes: Sequence[Config]) -> Config:
    """The same with the module: its key is in the daemon."""
    return render.http_listener(name, 0, tls, routes, host="127.0.0.1")


@dataclass(frozen=True)
class HotRestart:
    """Position in a series of Envoys: `epoch` 0 is the first, and the next one with the same `base_id` takes its
    listening sockets, and ends it after `parent_seconds`."""

    base_id: Path  # a file; the first one chooses a number that is free, and writes it there
    epoch: int = 0
    parent_seconds: int = 3

    def options(self) -> list[str | Path]:
        times: list[str | Path] = ["--restart-epoch", str(self.epoch), "--drain-strategy", "immediate"]
        times += ["--drain-time-s", "1", "--parent-shutdown-time-s", str(self.parent_seconds)]
        if self.epoch == 0:
            return [*times, "--use-dynamic-base-id", "--base-id-path", self.base_id]
        return [*times, "--base-id", self.base_id.read_text().strip()]


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    process: Process
    admin: str  # host:port
    ports: Mapping[str, int]  # by listener; those on TCP

    @property
    def pid(self) -> int:
        return self.process.pid

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    def page(self, path: str) -> str:
        """A page of its admin interface, for example /config_dump."""
        return _get(self.admin, path)

    def stats(self, prefix: str = "") -> dict[str, int]:
        """Counters and gauges whose name starts with `prefix`."""
        lines = _get(self.admin, "/stats").splitlines()
        pairs = (line.split(": ", 1) for line in lines if line.startswith(prefix) and ": " in line)
        return {name: int(value) for name, value in pairs if value.isdigit()}


def start(
    processes: Processes,
    name: str,
    config: Config,
    concurrency: int = 1,
    module: bool = False,
    environment: Mapping[str, str] | None = None,
    hot_restart: HotRestart | None = None,
    options: Sequence[str] = (),
) -> Envoy:
    """Starts Envoy with `config` and waits until it serves. NodeError with the end of its log if it does not.

    `options` are added to its command line."""
    variables = {**(environment or {}), **({location.SEARCH_PATH_VARIABLE: str(_module_directory())} if module else {})}
    folder = processes.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    config_file = folder / "envoy.json"
    config_file.write_text(json.dumps(config, indent=1))
    admin_file = folder / "admin"
    admin_file.unlink(missing_ok=True)
    line: list[str | Path] = [binary(), "-c", config_file, "--admin-address-path", admin_file]
    # Access logs are read while Envoy runs; by default it flushes them every 10 s.
    line += hot_restart.options() if hot_restart else ["--disable-hot-restart"]
    line += ["--concurrency", str(concurrency), "-l", "warning", "--file-flush-interval-msec", "50", *options]
    process = processes.start(name, line, variables)
    process.wait_until(lambda: admin_file.is_file() and admin_file.read_text().count(":") == 1, "open its admin port")
    admin = admin_file.read_text().strip()
    process.wait_until(lambda: ready(admin), "ready")
    return Envoy(process, admin, _listener_ports(admin))


def _module_directory() -> Path:
    try:
        return location.module_directory()
    except location.ModuleMissing as missing:
        raise NodeError(str(missing)) from missing


def ready(admin: str) -> bool:
    """Whether the Envoy with this admin page (host:port) serves; False while there is none."""
    try:
        return _get(admin, "/ready").strip() == "LIVE"
    except OSError:
        return False  # 503 until it is ready


def _get(admin: str, path: str) -> str:
    with _DIRECTLY.open(f"http://{admin}{path}", timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def _listener_ports(admin: str) -> dict[str, int]:
    status = json.loads(_get(admin, "/listeners?format=json"))
    addresses = ((one["name"], one["local_address"]) for one in status.get("listener_statuses", []))
    return {name: address["socket_address"]["port_value"] for name, address in addresses if "socket_address" in address}
