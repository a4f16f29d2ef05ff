"""Pure functions that render Envoy configuration using the module: plain dicts, ready for YAML, JSON or xDS.

Everything is a function of its arguments. `to_yaml` makes a file for `envoy -c`; tests run `envoy --mode validate` on
the results.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from envoy_ext.location import MODULE_NAME
from envoy_ext.settings import FILTER_STATE_PREFIX, CommonTlsSettings, TlsSettings, UpstreamTlsSettings

Config = dict[str, Any]

ALL_INTERFACES = "0.0.0.0"  # noqa: S104  (what a sidecar's listener is for)

_TYPES = "type.googleapis.com/"
_EXTENSIONS = _TYPES + "envoy.extensions."
_SOCKET = _EXTENSIONS + "transport_sockets.dynamic_modules.v3.DynamicModuleTransportSocket"
_FILTER = _EXTENSIONS + "filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter"
HTTP_CONNECTION_MANAGER = _EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager"
_TCP_PROXY = _EXTENSIONS + "filters.network.tcp_proxy.v3.TcpProxy"
_FILE_LOG = _EXTENSIONS + "access_loggers.file.v3.FileAccessLog"
_HTTP_OPTIONS = _EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions"


def router() -> Config:
    """The HTTP filter that must be the last."""
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": _EXTENSIONS + "filters.http.router.v3.Router"},
    }


def tls_inspector() -> Config:
    """The listener filter that filter chains need if they match on server names or on TLS."""
    return {
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {"@type": _EXTENSIONS + "filters.listener.tls_inspector.v3.TlsInspector"},
    }


def _struct(value: Mapping[str, Any]) -> Config:
    return {"@type": _TYPES + "google.protobuf.Struct", "value": dict(value)}


def module_config(library: Path | None = None) -> Config:
    """DynamicModuleConfig: by name (found on Envoy's search path), or by the file's path.

    `do_not_close` is needed: the module has a thread, whose code must not be unmapped when a listener is removed.
    """
    where: Config = {"name": MODULE_NAME} if library is None else {"module": {"local": {"filename": str(library)}}}
    return where | {"do_not_close": True, "metrics_namespace": MODULE_NAME}


def transport_socket(tls: CommonTlsSettings, library: Path | None = None) -> Config:
    """The `transport_socket` of a filter chain, which then needs `companion_filter`, or of a cluster."""
    return {
        "name": "envoy.transport_sockets.dynamic_modules",
        "typed_config": {
            "@type": _SOCKET,
            "dynamic_module_config": module_config(library),
            "transport_socket_name": MODULE_NAME,
            "transport_socket_config": _struct(tls.socket_config()),
            "implements_secure_transport": True,
        },
    }


def companion_filter(tls: TlsSettings, library: Path | None = None) -> Config:
    """The first network filter of a filter chain that has `transport_socket`."""
    return {
        "name": MODULE_NAME,
        "typed_config": {
            "@type": _FILTER,
            "dynamic_module_config": module_config(library),
            "filter_name": MODULE_NAME,
            "filter_config": _struct(tls.filter_config()),
        },
    }


def filter_chain(
    tls: TlsSettings,
    filters: Sequence[Config],
    *,
    library: Path | None = None,
    match: Config | None = None,
    connect_timeout_s: float | None = 15,
) -> Config:
    """A filter chain whose connections use the module.

    `connect_timeout_s` is Envoy's own bound on the handshake as a whole; it also ends clients that send nothing: the
    module has no timeout for them, since it waits for bytes and not for the daemon.
    """
    chain: Config = {
        "transport_socket": transport_socket(tls, library),
        "filters": [companion_filter(tls, library), *filters],
    }
    if connect_timeout_s is not None:
        chain["transport_socket_connect_timeout"] = f"{connect_timeout_s:g}s"
    if match is not None:
        chain["filter_chain_match"] = match
    return chain


def permissive_filter_chains(
    tls: TlsSettings,
    filters: Sequence[Config],
    plaintext_filters: Sequence[Config],
    *,
    library: Path | None = None,
) -> list[Config]:
    """TLS and plaintext on one port, told apart by the TLS inspector: for the transition, until all clients use TLS."""
    return [
        filter_chain(tls, filters, library=library, match={"transport_protocol": "tls"}),
        {"filters": [*plaintext_filters], "filter_chain_match": {"transport_protocol": "raw_buffer"}},
    ]


def access_log(path: str, fields: Mapping[str, str] | None = None) -> Config:
    """A JSON access log with the TLS facts; `fields` adds to or replaces them."""
    standard = {
        "time": "%START_TIME%",
        "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "tls_failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": _FILE_LOG,
            "path": path,
            "log_format": {"json_format": standard | access_log_fields() | dict(fields or {})},
        },
    }


LOGGED_FACTS = (
    "peer_spiffe_id",
    "peer_serial",
    "identity",
    "server_name",
    "tls_version",
    "cipher",
    "alpn",
    "resumed",
    "backend",
    "batch_size",
    "operation_us",
)


def access_log_fields(keys: Sequence[str] = LOGGED_FACTS) -> dict[str, str]:
    """Facts of the handshake as a `json_format`, for access logs of any kind. Missing ones are null."""
    return {key: filter_state(key) for key in keys}


def filter_state(key: str) -> str:
    """The format operator for a published fact, for access logs and headers."""
    return f"%FILTER_STATE({FILTER_STATE_PREFIX}{key}:PLAIN)%"


def http_connection_manager(
    routes: Sequence[Config],
    *,
    stat_prefix: str = "https",
    access_logs: Sequence[Config] = (),
    http_filters: Sequence[Config] = (),
    encrypted: bool = True,
) -> Config:
    """An HTTP connection manager behind the module's TLS: routes of one virtual host for all names.

    Envoy does not see that the connection is encrypted (its `ssl()` is null), so the scheme is overwritten: otherwise
    upstreams would get `x-forwarded-proto: http`. Without `encrypted` it is the plain side of a permissive listener,
    whose clients must not be able to claim https either.
    """
    hosts = {"name": "all", "domains": ["*"], "routes": [*routes]}
    manager: Config = {
        "@type": HTTP_CONNECTION_MANAGER,
        "stat_prefix": stat_prefix,
        "scheme_header_transformation": {"scheme_to_overwrite": "https" if encrypted else "http"},
        "route_config": {"name": stat_prefix, "virtual_hosts": [hosts]},
        "http_filters": [*http_filters, router()],
    }
    if access_logs:
        manager["access_log"] = [*access_logs]
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def tcp_proxy(cluster_name: str, *, stat_prefix: str = "tcp", access_logs: Sequence[Config] = ()) -> Config:
    proxy: Config = {"@type": _TCP_PROXY, "stat_prefix": stat_prefix, "cluster": cluster_name}
    if access_logs:
        proxy["access_log"] = [*access_logs]
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}


def route_to_cluster(cluster_name: str, prefix: str = "/") -> Config:
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster_name, "timeout": "0s"}}


def direct_response(body: str, prefix: str = "/", status: int = 200) -> Config:
    response = {"status": status, "body": {"inline_string": body}}
    return {"match": {"prefix": prefix}, "direct_response": response}


def socket_address(host: str, port: int) -> Config:
    return {"socket_address": {"address": host, "port_value": port}}


def endpoint(host: str, port: int) -> Config:
    """An endpoint of a locality."""
    return {"endpoint": {"address": socket_address(host, port)}}


def listener(
    name: str,
    port: int,
    filter_chains: Sequence[Config],
    *,
    host: str = ALL_INTERFACES,
    access_logs: Sequence[Config] = (),
) -> Config:
    """A listener; if a filter chain matches on server names or on TLS, it gets the TLS inspector.

    `access_logs` are the listener's own: they also log connections whose handshake failed.
    """
    result: Config = {"name": name, "address": socket_address(host, port), "filter_chains": [*filter_chains]}
    inspected = {"server_names", "transport_protocol"}
    if any(inspected & set(chain.get("filter_chain_match", {})) for chain in filter_chains):
        result["listener_filters"] = [tls_inspector()]
    if access_logs:
        result["access_log"] = [*access_logs]
    return result


def http_listener(
    name: str,
    port: int,
    tls: TlsSettings,
    routes: Sequence[Config],
    *,
    host: str = ALL_INTERFACES,
    library: Path | None = None,
    access_logs: Sequence[Config] = (),
) -> Config:
    """An HTTPS listener with one filter chain."""
    manager = http_connection_manager(routes, stat_prefix=name, access_logs=access_logs)
    chain = filter_chain(tls, [manager], library=library)
    return listener(name, port, [chain], host=host, access_logs=access_logs)


def pipe_address(path: Path) -> Config:
    return {"pipe": {"path": str(path)}}


def cluster(
    name: str, host: str, port: int, *, http2: bool = False, tls: UpstreamTlsSettings | None = None, **more: Any
) -> Config:
    """A cluster of one endpoint, as `cluster_of`: an IP address is static, a host name is resolved by Envoy.

    IPv4 is preferred, since Envoy would try ::1 for localhost, where most upstreams do not listen.
    """
    result = cluster_of(name, [socket_address(host, port)], http2=http2, tls=tls, **more)
    return result if _is_ip_address(host) else result | {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def cluster_of(
    name: str,
    addresses: Sequence[Config],
    *,
    http2: bool = False,
    tls: UpstreamTlsSettings | None = None,
    library: Path | None = None,
    connect_timeout_s: float = 5,
) -> Config:
    """A cluster of static endpoints: in plaintext, or, with `tls`, by the module.

    ALPN follows from `http2` if `tls` names none. `connect_timeout_s` bounds connection and handshake together,
    including the wait for the daemon. `auto_config` is not possible: Envoy requires its own transport socket for that.
    """
    endpoints = [{"endpoint": {"address": address}} for address in addresses]
    result: Config = {
        "name": name,
        "connect_timeout": f"{connect_timeout_s:g}s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }
    if tls is not None:
        settings = tls if tls.alpn or not http2 else replace(tls, alpn=("h2",))
        result["transport_socket"] = transport_socket(settings, library)
    return result | http_options(http2=True) if http2 else result


def http_options(*, http2: bool = False, requests_per_connection: int | None = None) -> Config:
    """HTTP version of a cluster, and how many requests a connection carries; None: any number."""
    options: Config = {
        "@type": _HTTP_OPTIONS,
        "explicit_http_config": {f"http{'2' if http2 else ''}_protocol_options": {}},
    }
    if requests_per_connection is not None:
        options["common_http_protocol_options"] = {"max_requests_per_connection": requests_per_connection}
    return {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}


def bootstrap(
    listeners: Sequence[Config],
    clusters: Sequence[Config] = (),
    *,
    admin_port: int | None = None,
    listeners_file: Path | None = None,
    node_id: str = "node",
) -> Config:
    """A whole configuration file. `listeners_file` is watched for more listeners (`listeners_document`)."""
    result: Config = {
        "node": {"id": node_id, "cluster": node_id},
        "static_resources": {"listeners": [*listeners], "clusters": [*clusters]},
    }
    if admin_port is not None:
        result["admin"] = {"address": socket_address("127.0.0.1", admin_port)}
    if listeners_file is not None:
        source = {"path_config_source": {"path": str(listeners_file)}, "resource_api_version": "V3"}
        result["dynamic_resources"] = {"lds_config": source}
    return result


def listeners_document(listeners: Sequence[Config]) -> Config:
    """The content of a `listeners_file`. Replace the file by renaming a new one over it."""
    kind = _TYPES + "envoy.config.listener.v3.Listener"
    return {"resources": [{"@type": kind, **entry} for entry in listeners]}


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(config, sort_keys=False, default_flow_style=False)
