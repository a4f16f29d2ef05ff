"""The proxy's statistics for the control plane, which may be on another host: a way to its admin interface.

Envoy's own admin interface accepts everybody who reaches it, and can do more than show numbers. So it listens on a Unix
socket of the proxy's user (or on 127.0.0.1, with --admin-port), and a listener is put before it on the address that
others reach, with the proxy's own mutual TLS: it admits only the control plane, for reading statistics and nothing
else. The control plane presents a certificate of the mesh's CA, which it keeps.

Only the bootstrap knows where the socket is, and has a static cluster for it. Envoy ignores what ADS brings under the
name of a static cluster, so that the one of this file counts only for proxies that have none: those with --admin-port.
"""

from __future__ import annotations

from control.model.base import is_ip
from control.model.dataplane import ADMIN_HOST, Networking
from control.model.identity import Identity, control_plane_id
from control.policies.meshtrafficpermission import generate as permission
from control.xds.encoding.encode import CLUSTER, LISTENER
from control.xds.render import provenance, shapes
from control.xds.render.context import ProxyConfig, ProxyContext
from control.xds.render.inbounds import secured
from control.xds.render.shapes import ADMIN_CLUSTER
from envoy_ext.render import Config, endpoint, socket_address

ADMIN_LISTENER = "self_admin"
PATHS = ("/stats", "/stats/prometheus")


def is_offered(networking: Networking) -> bool:
    """False if the listener would conflict with the admin interface itself: then both are on one host."""
    return networking.admin is not None and is_ip(networking.address) and networking.address != ADMIN_HOST


def add(context: ProxyContext, config: ProxyConfig) -> None:
    """Adds the way to the admin interface, if one is possible."""
    networking = context.dataplane.spec.networking
    if context.identity is None or not is_offered(networking):
        return
    config.listeners[ADMIN_LISTENER] = _listener(context, context.identity)
    config.clusters[ADMIN_CLUSTER] = cluster(networking.admin.port)
    made = provenance.of_proxy(context.policies, context.dataplane, "MeshTLS", "MeshOffload")
    config.made_of[LISTENER][ADMIN_LISTENER] = config.made_of[CLUSTER][ADMIN_CLUSTER] = made


def cluster(port: int) -> Config:
    """The cluster for a proxy whose bootstrap has none."""
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint(ADMIN_HOST, port)]}],
        },
    }


def _listener(context: ProxyContext, identity: Identity) -> Config:
    networking = context.dataplane.spec.networking
    by = secured(context, identity, context.settings.client_tls)
    judge = permission.only(control_plane_id(identity.trust_domain), by.source, "control plane")
    method = {"name": ":method", "string_match": {"exact": "GET"}}
    routes = [{"match": {"path": path, "headers": [method]}, "route": {"cluster": ADMIN_CLUSTER}} for path in PATHS]
    host = {"name": ADMIN_LISTENER, "domains": ["*"], "routes": routes, **by.details.host}
    manager = {
        "stat_prefix": ADMIN_LISTENER,
        "route_config": {"name": ADMIN_LISTENER, "virtual_hosts": [host], "validate_clusters": False},
        **by.details.manager,
    }
    return {
        "name": ADMIN_LISTENER,
        "traffic_direction": "INBOUND",
        "address": socket_address(networking.address, networking.admin.port),
        "filter_chains": [by.chain([shapes.http_connection_manager(manager, [judge], [], None)])],
    }
