"""MeshHealthCheck as `health_checks` of a cluster."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import timedelta

from control.policies.meshhealthcheck.schema import (
    Conf,
    GrpcHealthCheck,
    HeaderModifier,
    HttpHealthCheck,
    TcpHealthCheck,
)
from envoy_ext.render import Config

# Kuma's default: slow enough for a large mesh, where every client checks every endpoint.
DEFAULT_INTERVAL = timedelta(minutes=1)
DEFAULT_TIMEOUT = timedelta(seconds=15)
DEFAULT_UNHEALTHY = 5
DEFAULT_HEALTHY = 1

_FILE_SINK = "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"


def seconds(value: timedelta) -> str:
    """The JSON form of google.protobuf.Duration: "1.5s"."""
    return f"{value.total_seconds():.9f}".rstrip("0").rstrip(".") + "s"


def health_checks(conf: Conf, protocol: str, cluster: str) -> list[Config]:
    """The checks for the service's protocol: grpc, else http, else tcp, as in Kuma; empty if all are disabled."""
    http = protocol in ("http", "http2", "grpc")
    checker: Config | None = None
    if protocol == "grpc" and conf.grpc is not None and not conf.grpc.disabled:
        checker = {"grpc_health_check": _grpc(conf.grpc, cluster)}
    elif http and conf.http is not None and not conf.http.disabled:
        checker = {"http_health_check": _http(conf.http, protocol, cluster)}
    elif conf.tcp is not None and not conf.tcp.disabled:
        checker = {"tcp_health_check": _tcp(conf.tcp)}
    return [] if checker is None else [{**_common(conf), **checker}]


def _common(conf: Conf) -> Config:
    interval = seconds(conf.interval or DEFAULT_INTERVAL)
    result: Config = {
        "timeout": seconds(conf.timeout or DEFAULT_TIMEOUT),
        "interval": interval,
        # Interval for a cluster without traffic so far; with Envoy's default of a minute, a mesh that starts would keep
        # the first result, from before its endpoints were up.
        "no_traffic_interval": interval,
        "unhealthy_threshold": conf.unhealthy_threshold or DEFAULT_UNHEALTHY,
        "healthy_threshold": conf.healthy_threshold or DEFAULT_HEALTHY,
    }
    durations = {
        "initial_jitter": conf.initial_jitter,
        "interval_jitter": conf.interval_jitter,
        "no_traffic_interval": conf.no_traffic_interval,
        "unhealthy_interval": conf.unhealthy_interval,
    }
    result |= {name: seconds(value) for name, value in durations.items() if value is not None}
    if conf.interval_jitter_percent is not None:
        result["interval_jitter_percent"] = conf.interval_jitter_percent
    if conf.always_log_health_check_failures is not None:
        result["always_log_health_check_failures"] = conf.always_log_health_check_failures
    if conf.reuse_connection is not None:
        result["reuse_connection"] = conf.reuse_connection
    if conf.event_log_path is not None:
        sink = {"@type": _FILE_SINK, "event_log_path": conf.event_log_path}
        result["event_logger"] = [{"name": "envoy.health_check.event_sink.file", "typed_config": sink}]
    return result


def _http(conf: HttpHealthCheck, protocol: str, cluster: str) -> Config:
    result: Config = {"host": cluster, "path": conf.path or "/"}
    if protocol != "http":
        result["codec_client_type"] = "HTTP2"
    if conf.expected_statuses:
        result["expected_statuses"] = [{"start": s, "end": s + 1} for s in _in_order(conf.expected_statuses)]
    if conf.request_headers_to_add is not None:
        result["request_headers_to_add"] = headers_to_add(conf.request_headers_to_add)
    return result


def _in_order(statuses: Sequence[int]) -> list[int]:
    return sorted(set(statuses))


def headers_to_add(modifier: HeaderModifier) -> list[Config]:
    actions = (("OVERWRITE_IF_EXISTS_OR_ADD", modifier.set), ("APPEND_IF_EXISTS_OR_ADD", modifier.add))
    return [
        {"header": {"key": header.name, "value": header.value}, "append_action": action}
        for action, headers in actions
        for header in headers or ()
    ]


def _tcp(conf: TcpHealthCheck) -> Config:
    result: Config = {}
    if conf.send is not None:
        result["send"] = {"text": base64.b64decode(conf.send).hex()}
    if conf.receive:
        result["receive"] = [{"text": base64.b64decode(block).hex()} for block in conf.receive]
    return result


def _grpc(conf: GrpcHealthCheck, cluster: str) -> Config:
    result: Config = {"authority": conf.authority or cluster}
    if conf.service_name:
        result["service_name"] = conf.service_name
    return result
