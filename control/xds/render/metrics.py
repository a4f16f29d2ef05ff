"""The listeners at which a proxy offers its metrics, by MeshMetric: ways to its admin interface."""

from __future__ import annotations

from control.policies.meshmetric import generate as metric
from control.xds.encoding.encode import LISTENER
from control.xds.render import admin, provenance, shapes
from control.xds.render.context import ProxyConfig, ProxyContext
from control.xds.render.shapes import ADMIN_CLUSTER
from envoy_ext.render import Config, socket_address


def add(context: ProxyContext, config: ProxyConfig) -> None:
    """To be called after all other listeners: a port that is taken stays with its owner."""
    routes, networking = metric.routes(context.settings.metric, ADMIN_CLUSTER), context.dataplane.spec.networking
    if not routes:
        return
    if networking.admin is None:
        config.problems.append("MeshMetric needs networking.admin.port on the Dataplane: that port serves the metrics")
        return
    config.clusters[ADMIN_CLUSTER] = admin.cluster(networking.admin.port)
    made = provenance.of_proxy(context.policies, context.dataplane, "MeshMetric")
    for port, route in routes:
        name, address = f"self_metrics_{port}", socket_address(networking.address, port)
        taken = next((other for other, one in config.listeners.items() if one["address"] == address), None)
        if taken is not None:
            config.problems.append(
                f"MeshMetric: {networking.address}:{port} is already used by {taken}: no metrics are served there; "
                f"choose another port"
            )
            continue
        config.made_of[LISTENER][name] = made
        config.listeners[name] = _listener(name, address, route)


def _listener(name: str, address: Config, route: Config) -> Config:
    host = {"name": name, "domains": ["*"], "routes": [route]}
    manager = {"stat_prefix": name, "route_config": {"name": name, "virtual_hosts": [host]}}
    return {
        "name": name,
        "traffic_direction": "INBOUND",
        "address": address,
        "filter_chains": [{"filters": [shapes.http_connection_manager(manager, [], [], None)]}],
    }
