"""Typed parameters of the module's transport socket and companion filter.

Only what differs from the module's own default is rendered, so that the module stays the one place that knows the
defaults. The module validates strictly when Envoy loads the configuration; what is checked here as well is what a
renderer's caller gets wrong most easily. docs/envoy.md explains every field.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

TlsVersion = Literal["1.2", "1.3"]
ClientCertificate = Literal["off", "optional", "required"]
UnknownServerName = Literal["first", "reject"]

DEFAULT_DAEMON_SOCKET = Path("/run/offload/offload.sock")

# Keys of filter state, without their prefix (envoy_ext/module/filter_state.h).
FILTER_STATE_PREFIX = "tls_offload."
FILTER_STATE_KEYS = (
    "peer_spiffe_id",
    "peer_sha256",
    "peer_serial",
    "identity",
    "server_name",
    "tls_version",
    "cipher",
    "group",
    "alpn",
    "resumed",
    "key_type",
    "backend",
    "batch_size",
    "operation_us",
)


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """One downstream TLS configuration. None, or an empty tuple, leaves the module's default."""

    identities: tuple[str, ...]
    daemon_socket: Path = DEFAULT_DAEMON_SOCKET
    alpn: tuple[str, ...] = ()
    tls_minimum: TlsVersion | None = None
    tls_maximum: TlsVersion | None = None
    cipher_suites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    unknown_server_name: UnknownServerName | None = None
    operation_timeout_ms: int | None = None
    handshake_wait_ms: int | None = None
    session_tickets: bool | None = None
    session_lifetime_s: int | None = None
    client_certificate: ClientCertificate | None = None
    trusted_ca_file: Path | None = None
    trust_domains: tuple[str, ...] = ()
    # Of the companion filter: which facts it publishes; empty: all of FILTER_STATE_KEYS.
    publish: tuple[str, ...] = field(default=(), metadata={"filter": True})

    def __post_init__(self) -> None:
        if not self.identities:
            raise ValueError("identities: at least one name is needed")
        unknown = sorted(set(self.publish) - set(FILTER_STATE_KEYS))
        if unknown:
            raise ValueError(f"publish: no such key: {', '.join(unknown)}; known: {', '.join(FILTER_STATE_KEYS)}")

    def socket_config(self) -> dict[str, Any]:
        """The transport socket's configuration, as JSON-able values."""
        return {
            f.name: _plain(value)
            for f in fields(self)
            if "filter" not in f.metadata and (value := getattr(self, f.name)) not in (None, ())
        }

    def filter_config(self) -> dict[str, Any]:
        """The companion filter's configuration."""
        config: dict[str, Any] = {"daemon_socket": str(self.daemon_socket)}
        return config | ({"publish": list(self.publish)} if self.publish else {})


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
