"""MeshTrace as the `tracing` of HTTP connection managers, and the cluster of the collector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import urlsplit

from control.model.opentelemetry_backend import MeshOpenTelemetryBackendSpec
from control.model.resource import Resource
from control.policies.meshtrace.schema import Backend, Conf, Tag, ZipkinBackend
from envoy_ext.render import Config

_TRACE = "type.googleapis.com/envoy.config.trace.v3."
CLUSTER = "self_tracing_collector"


@dataclass(frozen=True)
class Tracing:
    """The settings of connection managers, and the address of the collector."""

    connection_manager: Config
    host: str
    port: int
    http2: bool


def tracing(conf: Conf | None, service_name: str, collectors: Sequence[Resource]) -> Tracing | None:
    """None if nothing is configured, or if the named collector does not exist."""
    if conf is None or not conf.backends:
        return None
    provider = _provider(conf.backends[0], service_name, collectors)
    if provider is None:
        return None
    name, typed, host, port, http2 = provider
    manager: Config = {"provider": {"name": name, "typed_config": typed}}
    sampling = conf.sampling
    if sampling is not None:
        rates = {"overall": sampling.overall, "client": sampling.client, "random": sampling.random}
        manager |= {f"{key}_sampling": {"value": _number(rate)} for key, rate in rates.items() if rate is not None}
    if conf.tags:
        manager["custom_tags"] = [_tag(tag) for tag in conf.tags]
    return Tracing(manager, host, port, http2)


def _number(rate: Decimal) -> float:
    return float(rate)


def _tag(tag: Tag) -> Config:
    if tag.header is not None:
        header = {"name": tag.header.name}
        return {
            "tag": tag.name,
            "request_header": header | ({"default_value": tag.header.default} if tag.header.default else {}),
        }
    return {"tag": tag.name, "literal": {"value": tag.literal}}


def _provider(
    backend: Backend, service_name: str, collectors: Sequence[Resource]
) -> tuple[str, Config, str, int, bool] | None:
    if backend.zipkin is not None:
        url = urlsplit(backend.zipkin.url)
        return ("envoy.tracers.zipkin", _zipkin(backend.zipkin), url.hostname or "", url.port or 80, False)
    assert backend.open_telemetry is not None
    endpoint = _collector(backend.open_telemetry.backend_ref.labels, collectors)
    if endpoint is None:
        return None
    typed = {
        "@type": _TRACE + "OpenTelemetryConfig",
        "grpc_service": {"envoy_grpc": {"cluster_name": CLUSTER}, "timeout": "0.5s"},
        "service_name": service_name,
    }
    return ("envoy.tracers.opentelemetry", typed, endpoint.endpoint.address, endpoint.endpoint.port, True)


def _zipkin(backend: ZipkinBackend) -> Config:
    url = urlsplit(backend.url)
    return {
        "@type": _TRACE + "ZipkinConfig",
        "collector_cluster": CLUSTER,
        "collector_endpoint": url.path + (f"?{url.query}" if url.query else ""),
        "collector_hostname": url.netloc,
        "collector_endpoint_version": "HTTP_PROTO" if backend.api_version == "httpProto" else "HTTP_JSON",
        "trace_id_128bit": backend.trace_id_128_bit,
        "shared_span_context": backend.shared_span_context,
    }


def _collector(labels: dict[str, str], collectors: Sequence[Resource]) -> MeshOpenTelemetryBackendSpec | None:
    """The oldest collector that the labels select, as in Kuma; then the smaller name."""
    chosen = [c for c in collectors if labels.items() <= c.effective_labels.items()]
    first = min(chosen, key=lambda c: (c.creation_time, c.name), default=None)
    return None if first is None else first.spec
