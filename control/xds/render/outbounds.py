"""The outbound side of a proxy: listeners for what its application calls, routes, and clusters with their endpoints.

All but listeners are the same for every proxy that the same policies select, and are made once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control.mesh.facts import Identity
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import Destination, MeshView
from control.model.dataplane import Outbound
from control.model.reference import WORKLOAD, BackendRef
from control.model.resource import Resource
from control.policies.matching import merged, outbound_entries
from control.policies.meshaccesslog import generate as access_log
from control.policies.meshaccesslog.schema import Conf as AccessLogConf
from control.policies.meshhealthcheck import generate as health_check
from control.policies.meshhealthcheck.schema import Conf as HealthCheckConf
from control.policies.meshhttproute import generate as http_route
from control.policies.meshloadbalancingstrategy import generate as balancing
from control.policies.meshloadbalancingstrategy.schema import Conf as BalancingConf
from control.policies.meshoffload import generate as offload
from control.policies.meshtls import generate as tls
from control.xds.render import shapes

Config = dict[str, Any]

_BALANCING, _ROUTES, _HEALTH = "MeshLoadBalancingStrategy", "MeshHTTPRoute", "MeshHealthCheck"


@dataclass(frozen=True)
class OutboundContext:
    view: MeshView
    dataplane: Resource
    policies: ProxyPolicies
    identity: Identity | None
    tracing: Config | None


def _balancing(context: OutboundContext, destination: Destination) -> BalancingConf | None:
    policies = context.policies.of_type(_BALANCING)
    return merged(outbound_entries(policies, destination.service, destination.port), BalancingConf)


def listener(context: OutboundContext, outbound: Outbound, destination: Destination) -> Config:
    """Where the application reaches the service. HTTP gets its routes by RDS: they change without the listener."""
    name, http = destination.name, destination.port.is_http
    policies = context.policies.of_type("MeshAccessLog")
    conf = merged(outbound_entries(policies, destination.service, destination.port), AccessLogConf)
    traffic = access_log.Traffic(
        mesh=context.view.mesh,
        zone=context.view.zone_of(context.dataplane),
        source=_own_service(context),
        destination=destination.service.name,
        direction="OUTBOUND",
        address=context.dataplane.spec.networking.address,
        workload=context.dataplane.labels.get(WORKLOAD, ""),
    )
    logs = access_log.access_logs(conf, traffic, http=http)
    if http:
        manager = {"stat_prefix": name, "rds": {"route_config_name": name, "config_source": shapes.ADS}}
        last = shapes.http_connection_manager(manager, [], logs, context.tracing)
    else:
        last = shapes.tcp_proxy(name, name, logs)
    return {
        "name": listener_name(outbound),
        "traffic_direction": "OUTBOUND",
        "address": shapes.address(outbound.address, outbound.port),
        "filter_chains": [{"filters": [last]}],
    }


def listener_name(outbound: Outbound) -> str:
    """By address and not by destination: two outbounds may lead to one service."""
    return f"self_outbound_{outbound.address}_{outbound.port}"


def _own_service(context: OutboundContext) -> str:
    """For logs: the first service that the proxy is a member of."""
    for inbound in context.dataplane.spec.networking.inbound:
        services = context.view.services_of(context.dataplane, inbound.section)
        if services:
            return services[0]
    return context.dataplane.name


def routes(context: OutboundContext, destination: Destination) -> tuple[Config, Sequence[Destination]]:
    """The RouteConfiguration of a destination, and every destination that its routes lead to."""
    key, shared = ("routes", destination.name, context.policies.key(_ROUTES, _BALANCING)), context.view.shared
    config, reached = shared.made((*key, "reached"), lambda: _routes(context, destination))
    return shared.config(key, lambda: config), reached


def _routes(context: OutboundContext, destination: Destination) -> tuple[Config, Sequence[Destination]]:
    reached: dict[str, Destination] = {}

    def resolve(reference: BackendRef) -> str | None:
        found = context.view.resolve_backend(reference, destination.port.section)
        if found is not None:
            reached[found.name] = found
        return found.name if found is not None else None

    policies = context.policies.of_type(_ROUTES)
    entries = outbound_entries(policies, destination.service, destination.port)
    where = http_route.Destination(destination.name, balancing.hash_policies(_balancing(context, destination)))
    found = http_route.routes(entries, where, resolve)
    host = {"name": destination.name, "domains": ["*"], "routes": found}
    config = {"name": destination.name, "virtual_hosts": [host], "validate_clusters": False}
    if _mentions(found, destination.name):
        reached[destination.name] = destination
    return config, list(reached.values())


def _mentions(found: list[Config], cluster: str) -> bool:
    actions = [route.get("route", {}) for route in found]
    return any(
        action.get("cluster") == cluster
        or any(weighted["name"] == cluster for weighted in action.get("weighted_clusters", {}).get("clusters", ()))
        for action in actions
    )


def cluster(context: OutboundContext, destination: Destination) -> Config:
    policies = context.policies.key(_BALANCING, _HEALTH, "MeshOffload", "MeshTLS")
    by_tls, offload = context.view.calls_by_tls(context.dataplane, destination.service), context.policies.offload
    key = ("cluster", destination.name, context.identity, policies, offload.mode, offload.socket, by_tls)
    return context.view.shared.config(key, lambda: _cluster(context, destination))


def _cluster(context: OutboundContext, destination: Destination) -> Config:
    protocol, name = destination.port.app_protocol, destination.name
    policies = context.policies.of_type(_HEALTH)
    checks = merged(outbound_entries(policies, destination.service, destination.port), HealthCheckConf)
    result: Config = {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": shapes.ADS},
        "connect_timeout": "5s",
        **balancing.cluster_fields(_balancing(context, destination)),
        **shapes.http_options(protocol),
    }
    if checks is not None:
        result["health_checks"] = health_check.health_checks(checks, protocol, name)
        # An endpoint that is taken away is not kept for as long as it passes its checks.
        result["ignore_health_on_host_removal"] = True
        if checks.fail_traffic_on_panic is not None:
            zone_aware = {"fail_traffic_on_panic": checks.fail_traffic_on_panic}
            result["common_lb_config"] = {"zone_aware_lb_config": zone_aware}
    server_ids = context.view.server_ids(destination.service)
    if context.identity is not None and context.view.calls_by_tls(context.dataplane, destination.service):
        alpn = {"tcp": (), "http": ("http/1.1",)}.get(protocol, ("h2",))
        server = offload.Server(server_ids, destination.sni, alpn)
        result["transport_socket"] = _tls(context, context.identity, server)
    return result


def _tls(context: OutboundContext, identity: Identity, server: offload.Server) -> Config:
    settings, conf = context.policies.offload, context.policies.client_tls
    if settings.mode == "EnvoyTLS":
        return tls.upstream_socket(conf, server.sni, server.spiffe_ids, server.alpn, context.view.trust_domains)
    domains = context.view.trust_domains or (identity.trust_domain,)
    return offload.upstream(settings, conf, identity.spiffe_id, domains, server)


@dataclass(frozen=True)
class Reached:
    """A destination that a proxy needs endpoints of. `aware`: of its own zone first; `tls`: which it calls by TLS."""

    destination: Destination
    aware: bool
    tls: bool


def reach(context: OutboundContext, destination: Destination) -> Reached:
    aware = balancing.is_locality_aware(_balancing(context, destination))
    return Reached(destination, aware, context.view.calls_by_tls(context.dataplane, destination.service))


def load_assignment(view: MeshView, reached: Reached, zone: str) -> Config:
    """For proxies of this zone."""
    name, endpoints = reached.destination.name, view.endpoints(reached.destination, reached.tls)

    def make() -> Config:
        return balancing.load_assignment(name, endpoints, zone, reached.aware)

    return view.shared.config(("endpoints", name, zone, reached.aware, reached.tls), make)
