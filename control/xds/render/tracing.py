"""Where a proxy sends its traces, by MeshTrace."""

from __future__ import annotations

from control.mesh.proxy_policies import ProxySettings
from control.mesh.view import MeshView
from control.model.resource import Resource
from control.policies.meshtrace import generate as trace
from control.xds.encoding.encode import CLUSTER
from control.xds.render import provenance, shapes
from control.xds.render.context import ProxyConfig
from envoy_ext.render import Config, endpoint


def add(view: MeshView, dataplane: Resource, settings: ProxySettings, config: ProxyConfig) -> Config | None:
    """The settings that connection managers need; None if nothing is traced."""
    found = trace.tracing(settings.trace, dataplane.name, view.of_type("MeshOpenTelemetryBackend"))
    if found is None:
        if settings.trace is not None and settings.trace.backends:
            config.problems.append("MeshTrace names a MeshOpenTelemetryBackend that does not exist: nothing is traced")
        return None
    config.clusters[trace.CLUSTER] = {
        "name": trace.CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": trace.CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint(found.host, found.port)]}],
        },
        **shapes.http_options("grpc" if found.http2 else "http"),
    }
    config.made_of[CLUSTER][trace.CLUSTER] = provenance.of_proxy(settings.policies, dataplane, "MeshTrace")
    return found.connection_manager
