"""The outbound side of a proxy: listeners for what its application calls, routes, and clusters with their endpoints.

All but listeners are the same for every proxy that the same policies select, and are made once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from control.mesh import http_routes
from control.mesh.view import Destination
from control.model.dataplane import Outbound
from control.model.identity import Identity
from control.model.target_ref import WORKLOAD
from control.policies.matching import merged, outbound_entries
from control.policies.meshaccesslog import generate as access_log
from control.policies.meshaccesslog.schema import Conf as AccessLogConf
from control.policies.meshhealthcheck import generate as health_check
from control.policies.meshhealthcheck.schema import Conf as HealthCheckConf
from control.policies.meshloadbalancingstrategy import generate as balancing
from control.policies.meshloadbalancingstrategy.schema import Conf as BalancingConf
from control.policies.meshoffload import generate as offload
from control.policies.meshtls import generate as tls
from control.xds.encoding.encode import CLUSTER, LISTENER, ROUTES
from control.xds.render import provenance, shapes
from control.xds.render.context import ProxyConfig, ProxyContext, Reached
from envoy_ext.render import Config, socket_address, tcp_proxy

_BALANCING, _HEALTH = "MeshLoadBalancingStrategy", "MeshHealthCheck"


def _balancing(context: ProxyContext, destination: Destination) -> BalancingConf | None:
    policies = context.policies.of_type(_BALANCING)
    return merged(outbound_entries(policies, destination.service, destination.port), BalancingConf)


def add(context: ProxyContext, config: ProxyConfig) -> None:
    """Adds all outbounds of the dataplane, and what their routes lead to."""
    reached: dict[str, Destination] = {}
    of_proxy = provenance.of_proxy(context.policies, context.dataplane, "MeshTrace")
    for outbound in context.dataplane.spec.networking.outbound:
        destination = context.view.resolve_outbound(outbound.backend_ref)
        if destination is None:
            config.problems.append(_missing(outbound))
            continue
        of_types = partial(provenance.of_destination, context.shared, context.policies, destination)
        name = _listener_name(outbound)
        config.listeners[name] = _listener(context, outbound, destination)
        config.made_of[LISTENER][name] = of_types("MeshAccessLog") | of_proxy
        if destination.port.is_http:
            config.routes[destination.name], more = _routes(context, destination)
            config.made_of[ROUTES][destination.name] = of_types(http_routes.TYPE, _BALANCING)
            reached |= {found.name: found for found in more}
        else:
            reached[destination.name] = destination
    of_tls = provenance.of_proxy(context.policies, context.dataplane, "MeshTLS", "MeshOffload")
    for name, destination in reached.items():
        config.clusters[name] = _cluster(context, destination)
        of_types = partial(provenance.of_destination, context.shared, context.policies, destination)
        config.made_of[CLUSTER][name] = of_types(_BALANCING, _HEALTH) | of_tls
        aware = balancing.is_locality_aware(_balancing(context, destination))
        by_tls = context.view.calls_by_tls(context.dataplane, destination.service)
        config.reached.append(Reached(destination, aware, by_tls))


def _missing(outbound: Outbound) -> str:
    reference = outbound.backend_ref
    named = reference.name or f"with labels {reference.labels}"
    return f"outbound {outbound.address}:{outbound.port}: there is no MeshService {named} with port {reference.port}"


def _listener(context: ProxyContext, outbound: Outbound, destination: Destination) -> Config:
    """Where the application reaches the service. HTTP gets its routes by RDS, so they change without the listener."""
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
        last = tcp_proxy(name, stat_prefix=name, access_logs=logs)
    return {
        "name": _listener_name(outbound),
        "traffic_direction": "OUTBOUND",
        "address": socket_address(outbound.address, outbound.port),
        "filter_chains": [{"filters": [last]}],
    }


def _listener_name(outbound: Outbound) -> str:
    """Named by address and not by destination: two outbounds may lead to one service."""
    return f"self_outbound_{outbound.address}_{outbound.port}"


def _own_service(context: ProxyContext) -> str:
    """For logs: the first service that the proxy is a member of."""
    for inbound in context.dataplane.spec.networking.inbound:
        services = context.view.services_of(context.dataplane, inbound.section)
        if services:
            return services[0]
    return context.dataplane.name


def _routes(context: ProxyContext, destination: Destination) -> tuple[Config, Sequence[Destination]]:
    """The RouteConfiguration of a destination, and every destination that its routes lead to."""
    key = ("routes", destination.name, context.policies.key(http_routes.TYPE, _BALANCING))
    config, reached = context.shared.made((*key, "reached"), lambda: _find_routes(context, destination))
    return context.shared.made(key, lambda: config), reached


def _find_routes(context: ProxyContext, destination: Destination) -> tuple[Config, Sequence[Destination]]:
    hash_policies = balancing.hash_policies(_balancing(context, destination))
    found, reached = http_routes.routes(context.view, context.policies, destination, hash_policies)
    host = {"name": destination.name, "domains": ["*"], "routes": found}
    config = {"name": destination.name, "virtual_hosts": [host], "validate_clusters": False}
    if _mentions(found, destination.name):
        reached = {**reached, destination.name: destination}
    return config, list(reached.values())


def _mentions(found: list[Config], cluster: str) -> bool:
    actions = [route.get("route", {}) for route in found]
    return any(
        action.get("cluster") == cluster
        or any(weighted["name"] == cluster for weighted in action.get("weighted_clusters", {}).get("clusters", ()))
        for action in actions
    )


def _cluster(context: ProxyContext, destination: Destination) -> Config:
    policies = context.policies.key(_BALANCING, _HEALTH, "MeshOffload", "MeshTLS")
    by_tls, offload = context.view.calls_by_tls(context.dataplane, destination.service), context.settings.offload
    key = ("cluster", destination.name, context.identity, policies, offload.mode, offload.socket, by_tls)
    return context.shared.made(key, lambda: _make_cluster(context, destination))


def _make_cluster(context: ProxyContext, destination: Destination) -> Config:
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
        # Without this a removed endpoint is kept for as long as it passes its checks.
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


def _tls(context: ProxyContext, identity: Identity, server: offload.Server) -> Config:
    settings, conf = context.settings.offload, context.settings.client_tls
    if settings.mode == "EnvoyTLS":
        return tls.upstream_socket(conf, server.sni, server.spiffe_ids, server.alpn, context.view.trust_domains)
    domains = context.view.trust_domains or (identity.trust_domain,)
    return offload.upstream(settings, conf, identity.spiffe_id, domains, server)
