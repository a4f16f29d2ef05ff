"""The proxy's statistics for the control plane, which may be on another host: a way to its admin interface.

Envoy's own admin interface takes everybody who reaches it, and can do more than show numbers. So it listens on a Unix
socket of the proxy's user (or on 127.0.0.1, with --admin-port), and a listener stands before it on the address that
others reach, with the proxy's own mutual TLS: it lets in the control plane and nobody else, for reading statistics and
nothing else. The control plane shows a certificate of the mesh's CA, which it keeps.

Only the bootstrap knows where the socket is, and has a static cluster for it. Envoy ignores what ADS brings under the
name of a static cluster, so that the one of this file counts only for proxies that have none: those with --admin-port.
"""

from __future__ import annotations

from typing import Any

from control.mesh.facts import Identity
from control.model.base import is_ip
from control.model.dataplane import ADMIN_HOST, Networking
from control.policies.meshtrafficpermission import generate as permission
from control.xds.render import shapes
from control.xds.render.inbounds import InboundContext, secured

Config = dict[str, Any]

CLUSTER = shapes.ADMIN_CLUSTER
LISTENER = "self_admin"
PATHS = ("/stats", "/stats/prometheus")
# Of the SPIFFE id that the control plane takes for itself; no workload gets it (ca/identities.py).
CONTROL_PLANE_PATH = "/mesh-control-plane"


def control_plane_id(trust_domain: str) -> str:
    return f"spiffe://{trust_domain}{CONTROL_PLANE_PATH}"


def is_offered(networking: Networking) -> bool:
    """Not where the listener would be in the admin interface's own place: then both are on one host."""
    return networking.admin is not None and is_ip(networking.address) and networking.address != ADMIN_HOST


def cluster(port: int) -> Config:
    """For a proxy whose bootstrap has no such cluster."""
    return {
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{"lb_endpoints": [shapes.endpoint(ADMIN_HOST, port)]}],
        },
    }


def listener(context: InboundContext, identity: Identity) -> Config:
    """Of a proxy whose admin interface is_offered."""
    networking = context.dataplane.spec.networking
    by = secured(context, identity, context.policies.client_tls)
    judge = permission.only(control_plane_id(identity.trust_domain), by.source, "control plane")
    method = {"name": ":method", "string_match": {"exact": "GET"}}
    routes = [{"match": {"path": path, "headers": [method]}, "route": {"cluster": CLUSTER}} for path in PATHS]
    host = {"name": LISTENER, "domains": ["*"], "routes": routes, **by.details.host}
    manager = {
        "stat_prefix": LISTENER,
        "route_config": {"name": LISTENER, "virtual_hosts": [host], "validate_clusters": False},
        **by.details.manager,
    }
    return {
        "name": LISTENER,
        "traffic_direction": "INBOUND",
        "address": shapes.address(networking.address, networking.admin.port),
        "filter_chains": [by.chain([shapes.http_connection_manager(manager, [judge], [], None)])],
    }
