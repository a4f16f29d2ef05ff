"""Small pieces of Envoy configuration that inbounds and outbounds share, as plain dictionaries (proto JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from envoy_ext.render import filter_state

Config = dict[str, Any]

TYPES = "type.googleapis.com/"
_EXTENSIONS = TYPES + "envoy.extensions."

TLS_INSPECTOR: Config = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {"@type": _EXTENSIONS + "filters.listener.tls_inspector.v3.TlsInspector"},
}
ADS: Config = {"ads": {}, "resource_api_version": "V3"}
_ROUTER: Config = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": _EXTENSIONS + "filters.http.router.v3.Router"},
}


# Of the proxy's own admin interface.
ADMIN_CLUSTER = "self_admin"


def address(host: str, port: int) -> Config:
    return {"socket_address": {"address": host, "port_value": port}}


def unix_socket(path: str) -> Config:
    """For the one user whose process it is."""
    return {"pipe": {"path": path, "mode": 0o600}}


def endpoint(host: str, port: int) -> Config:
    return {"endpoint": {"address": address(host, port)}}


def http_options(protocol: str) -> Config:
    """What a cluster needs to speak `protocol`; nothing for tcp."""
    if protocol == "tcp":
        return {}
    version = "http_protocol_options" if protocol == "http" else "http2_protocol_options"
    typed = {"@type": _EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {version: {}}}
    return {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed}}


@dataclass(frozen=True)
class PeerDetails:
    """How requests are told who the caller is: fields of the connection manager, and of its virtual host."""

    manager: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)


# Nobody has proved who they are: the header of a caller that says so is taken away.
PLAINTEXT = PeerDetails({"forward_client_cert_details": "SANITIZE"})
ENVOY_TLS = PeerDetails(
    {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}
)


def by_module(own_id: str) -> PeerDetails:
    """Envoy does not see the module's TLS: its scheme has to be said, and the header be made from filter state."""
    value = f"By={own_id};URI={filter_state('peer_spiffe_id')}"
    header = {"header": {"key": "x-forwarded-client-cert", "value": value}}
    return PeerDetails(
        {
            "forward_client_cert_details": "SANITIZE_SET",
            "scheme_header_transformation": {"scheme_to_overwrite": "https"},
        },
        {"request_headers_to_add": [header | {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]},
    )


def http_connection_manager(
    manager: Mapping[str, Any], http_filters: Sequence[Config], logs: Sequence[Config], tracing: Config | None
) -> Config:
    typed: Config = {
        "@type": _EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        **manager,
        "http_filters": [*http_filters, _ROUTER],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    if logs:
        typed["access_log"] = [*logs]
    if tracing is not None:
        typed["tracing"] = tracing
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}


def tcp_proxy(stat_prefix: str, cluster: str, logs: Sequence[Config]) -> Config:
    typed: Config = {
        "@type": _EXTENSIONS + "filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": stat_prefix,
        "cluster": cluster,
    }
    if logs:
        typed["access_log"] = [*logs]
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": typed}
