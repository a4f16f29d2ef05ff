"""Typed parameters of the module's transport sockets and companion filter.

Only what differs from the module's own default is rendered, so that the module remains the one place that knows the
defaults. The module validates strictly when Envoy loads the configuration; the checks here cover the most common
mistakes of callers. docs/reference/module-configuration.md explains every field.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

TlsVersion = Literal["1.2", "1.3"]
ClientCertificate = Literal["off", "optional", "required"]
UnknownServerName = Literal["first", "reject"]

DEFAULT_DAEMON_SOCKET = Path("/run/offload/offload.sock")

# Keys of filter state, without their prefix (envoy_ext/module/config/filter_state.h).
FILTER_STATE_PREFIX = "tls_offload."
FILTER_STATE_KEYS = (
    "peer_spiffe_id",
    "peer_sha256",
    "peer_serial",
    "xfcc",
    "identity",
    "local_spiffe_id",
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


SPIFFE_SCHEME = "spiffe://"


@dataclass(frozen=True)
class SpiffeMatch:
    """Accepts one SPIFFE id, or those below a prefix, which ends at a path segment."""

    kind: Literal["exact", "prefix"]
    value: str

    def __post_init__(self) -> None:
        if not self.value.startswith(SPIFFE_SCHEME) or not self.value.removeprefix(SPIFFE_SCHEME).strip("/"):
            raise ValueError(f"peer_spiffe_ids: {self.value!r} is not a SPIFFE id: spiffe://<trust domain>/<path>")


@dataclass(frozen=True, kw_only=True)
class CommonTlsSettings:
    """The settings for both ends of a connection. None, or an empty tuple, means the module's default."""

    identities: tuple[str, ...]
    daemon_socket: Path = DEFAULT_DAEMON_SOCKET
    alpn: tuple[str, ...] = ()
    tls_minimum: TlsVersion | None = None
    tls_maximum: TlsVersion | None = None
    cipher_suites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    operation_timeout_ms: int | None = None
    handshake_wait_ms: int | None = None
    session_tickets: bool | None = None
    session_lifetime_s: int | None = None
    trusted_ca_file: Path | None = None
    trust_domains: tuple[str, ...] = ()
    crl_file: Path | None = None
    clock_skew_s: int | None = None
    # Which peers to accept among those whose certificate verifies.
    peer_spiffe_ids: tuple[SpiffeMatch, ...] = ()

    def __post_init__(self) -> None:
        if not self.identities:
            raise ValueError("identities: at least one name is needed")

    def socket_config(self) -> dict[str, Any]:
        """The transport socket's configuration, as JSON-able values."""
        return {
            f.name: _plain(value)
            for f in fields(self)
            if "filter" not in f.metadata and (value := getattr(self, f.name)) not in (None, ())
        }


@dataclass(frozen=True, kw_only=True)
class TlsSettings(CommonTlsSettings):
    """One downstream TLS configuration: of a listener's filter chain."""

    unknown_server_name: UnknownServerName | None = None
    client_certificate: ClientCertificate | None = None
    # For the companion filter: which facts it publishes; empty means all of FILTER_STATE_KEYS.
    publish: tuple[str, ...] = field(default=(), metadata={"filter": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.publish) - set(FILTER_STATE_KEYS))
        if unknown:
            raise ValueError(f"publish: unknown key: {', '.join(unknown)}; known: {', '.join(FILTER_STATE_KEYS)}")

    def filter_config(self) -> dict[str, Any]:
        """The companion filter's configuration."""
        config: dict[str, Any] = {"daemon_socket": str(self.daemon_socket)}
        return config | ({"publish": list(self.publish)} if self.publish else {})


@dataclass(frozen=True, kw_only=True)
class UpstreamTlsSettings(CommonTlsSettings):
    """One upstream TLS configuration: of a cluster. `identities` has one name, our identity towards the server."""

    server_name: str | None = None
    peer_dns_names: tuple[str, ...] = ()
    sessions_kept: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.identities) != 1:
            raise ValueError("identities: a client has exactly one")
        if not self.peer_spiffe_ids and not self.peer_dns_names:
            raise ValueError("peer_spiffe_ids or peer_dns_names: name the accepted servers")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, SpiffeMatch):
        return {value.kind: value.value}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
