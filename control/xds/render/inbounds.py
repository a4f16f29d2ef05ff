"""The inbound side of a proxy: a listener and a cluster for each port that its application serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from control.mesh.proxy_policies import ProxyPolicies
from control.model.dataplane import Inbound, ServiceProbe
from control.model.identity import Identity
from control.model.target_ref import WORKLOAD
from control.policies.matching import Entry, inbound_entries, merged
from control.policies.meshaccesslog import generate as access_log
from control.policies.meshaccesslog.schema import Conf as AccessLogConf
from control.policies.meshhealthcheck.generate import seconds
from control.policies.meshoffload import generate as offload
from control.policies.meshtls import generate as tls
from control.policies.meshtls.schema import Conf as TlsConf
from control.policies.meshtrafficpermission import generate as permission
from control.xds.encoding.encode import CLUSTER, LISTENER, ROUTES
from control.xds.render import peer_details, provenance, shapes
from control.xds.render.context import ProxyConfig, ProxyContext
from control.xds.render.peer_details import PeerDetails
from envoy_ext.render import Config, endpoint, socket_address, tcp_proxy, tls_inspector

# Kuma's defaults for a local probe: an application that crashed is noticed within ten seconds.
_PROBE_INTERVAL = timedelta(seconds=10)
_PROBE_TIMEOUT = timedelta(seconds=3)


SOURCES: tuple[permission.PeerSource, ...] = ("uri_san", "filter_state")


def name_of(inbound: Inbound) -> str:
    return f"self_inbound_{inbound.section}"


def add(context: ProxyContext, config: ProxyConfig) -> None:
    """Adds all inbounds of the dataplane."""
    of_all = provenance.of_proxy(context.policies, context.dataplane, "MeshTrace", "MeshOffload")
    for inbound in context.dataplane.spec.networking.inbound:
        name = name_of(inbound)
        config.listeners[name] = _listener(context, inbound)
        config.clusters[name] = _cluster(inbound)
        routes = _routes_of(context, inbound)
        config.routes |= routes
        closed = is_closed(context.policies, inbound)
        of_types = partial(provenance.of_inbound, context.policies, context.dataplane, inbound, closed)
        made = of_types("MeshAccessLog", "MeshTLS", "MeshTrafficPermission") | of_all
        config.made_of[LISTENER][name], config.made_of[CLUSTER][name] = made, of_types()
        config.made_of[ROUTES] |= dict.fromkeys(routes, of_types("MeshTrafficPermission"))


def _cluster(inbound: Inbound) -> Config:
    """The cluster for the application, on the proxy's own host."""
    name = name_of(inbound)
    application = endpoint(inbound.service_address or "127.0.0.1", inbound.service_port or inbound.port)
    result: Config = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [application]}]},
        **shapes.http_options(inbound.protocol),
    }
    if inbound.service_probe is not None:
        result["health_checks"] = [_probe(inbound.service_probe)]
        # With one endpoint, panic mode would send requests to an application that is known to be down.
        result["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}}
    return result


def _probe(probe: ServiceProbe) -> Config:
    interval = seconds(probe.interval or _PROBE_INTERVAL)
    return {
        "interval": interval,
        # Interval while nobody has called the application; the default is a minute.
        "no_traffic_interval": interval,
        "timeout": seconds(probe.timeout or _PROBE_TIMEOUT),
        "unhealthy_threshold": probe.unhealthy_threshold or 3,
        "healthy_threshold": probe.healthy_threshold or 1,
        "tcp_health_check": {},
    }


def _listener(context: ProxyContext, inbound: Inbound) -> Config:
    """With an identity: TLS with a permission filter, and plaintext beside it if MeshTLS is permissive."""
    networking, name = context.dataplane.spec.networking, name_of(inbound)
    conf = merged(_entries(context, "MeshTLS", inbound), TlsConf)
    result: Config = {
        "name": name,
        "traffic_direction": "INBOUND",
        "address": socket_address(inbound.address or networking.address, inbound.port),
    }
    if context.identity is None:
        return result | {"filter_chains": [_plain_chain(context, inbound)]}
    chains = [_tls_chain(context, inbound, context.identity, conf)]
    planned = context.view.takes_plaintext(context.dataplane, inbound.section)
    if planned if planned is not None else tls.is_permissive(conf):
        chains.append(_plain_chain(context, inbound))
        chains[0]["filter_chain_match"] = {"transport_protocol": "tls"}
        chains[1]["filter_chain_match"] = {"transport_protocol": "raw_buffer"}
        result["listener_filters"] = [tls_inspector()]
    return result | {"filter_chains": chains}


def _entries(context: ProxyContext, type_name: str, inbound: Inbound) -> list[Entry]:
    if type_name == "MeshTLS" and is_closed(context.policies, inbound):
        return []
    return inbound_entries(context.policies.of_type(type_name), inbound.section, inbound.port)


def is_closed(policies: ProxyPolicies, inbound: Inbound) -> bool:
    """Whether the proxy rejects the permissions of the inbound (quarantine.py): then all callers are rejected."""
    names = [name_of(inbound), *(_routes_name(inbound, source) for source in SOURCES)]
    return not policies.choice.closed.isdisjoint(names)


def permission_entries(policies: ProxyPolicies, inbound: Inbound) -> list[Entry]:
    """The permissions in force for an inbound; also for `mesh inspect`."""
    if is_closed(policies, inbound):
        return []
    return inbound_entries(policies.of_type("MeshTrafficPermission"), inbound.section, inbound.port)


@dataclass(frozen=True)
class Secured:
    """Mutual TLS of a filter chain, by Envoy or by the module, and how later filters learn who the peer is."""

    socket: Config
    # What must be first in the chain.
    filters: Sequence[Config]
    source: permission.PeerSource
    details: PeerDetails

    def chain(self, filters: Sequence[Config]) -> Config:
        return {
            "name": "tls",
            "transport_socket": self.socket,
            # Also ends clients that connect and send nothing.
            "transport_socket_connect_timeout": "15s",
            "filters": [*self.filters, *filters],
        }


def secured(context: ProxyContext, identity: Identity, conf: TlsConf | None) -> Secured:
    settings = context.settings.offload
    # Never an empty list, which would mean everyone.
    domains = context.view.trust_domains or (identity.trust_domain,)
    if settings.mode == "Offload":
        module = offload.tls_settings(settings, conf, identity.spiffe_id, domains)
        socket, companion = offload.downstream(module)
        return Secured(socket, [companion], "filter_state", peer_details.by_module(identity.spiffe_id))
    return Secured(tls.downstream_socket(conf, domains), [], "uri_san", peer_details.ENVOY_TLS)


def _tls_chain(context: ProxyContext, inbound: Inbound, identity: Identity, conf: TlsConf | None) -> Config:
    by = secured(context, identity, conf)
    if inbound.is_http:
        source = {"rds": {"route_config_name": _routes_name(inbound, by.source), "config_source": shapes.ADS}}
        return by.chain([_http_manager(context, inbound, [permission.http_filter()], by.details, source)])
    judge = permission.network_filter(permission_entries(context.policies, inbound), by.source, name_of(inbound))
    return by.chain([judge, _tcp_proxy(context, inbound)])


def _routes_name(inbound: Inbound, source: permission.PeerSource) -> str:
    return name_of(inbound) + ("_module" if source == "filter_state" else "")


def _routes_of(context: ProxyContext, inbound: Inbound) -> dict[str, Config]:
    """What follows the mutual TLS of an HTTP inbound, with its permissions; empty if it has none.

    Always for both kinds of TLS; the proxy requests what its listeners name. While it moves from one to the other,
    connections of both are open.
    """
    if context.identity is None or not inbound.is_http:
        return {}
    entries, found = permission_entries(context.policies, inbound), {}
    sources: dict[permission.PeerSource, PeerDetails] = {
        "uri_san": peer_details.ENVOY_TLS,
        "filter_state": peer_details.by_module(context.identity.spiffe_id),
    }
    for source, details in sources.items():
        name = _routes_name(inbound, source)
        config = found[name] = _routes(inbound, details, name)
        config["virtual_hosts"][0]["typed_per_filter_config"] = permission.of_routes(entries, source)
    return found


def _plain_chain(context: ProxyContext, inbound: Inbound) -> Config:
    if not inbound.is_http:
        proxy = _tcp_proxy(context, inbound)
        return {"name": "plaintext", "filters": [proxy]}
    source = {"route_config": _routes(inbound, peer_details.PLAINTEXT, name_of(inbound))}
    return {"name": "plaintext", "filters": [_http_manager(context, inbound, [], peer_details.PLAINTEXT, source)]}


def _tcp_proxy(context: ProxyContext, inbound: Inbound) -> Config:
    name = name_of(inbound)
    return tcp_proxy(name, stat_prefix=name, access_logs=_logs(context, inbound))


def _logs(context: ProxyContext, inbound: Inbound) -> list[Config]:
    conf = merged(_entries(context, "MeshAccessLog", inbound), AccessLogConf)
    services = context.view.services_of(context.dataplane, inbound.section)
    traffic = access_log.Traffic(
        mesh=context.view.mesh,
        zone=context.view.zone_of(context.dataplane),
        source="unknown",
        destination=services[0] if services else "unknown",
        direction="INBOUND",
        address=context.dataplane.spec.networking.address,
        workload=context.dataplane.labels.get(WORKLOAD, ""),
    )
    return access_log.access_logs(conf, traffic, http=inbound.is_http)


def _routes(inbound: Inbound, details: PeerDetails, name: str) -> Config:
    """Routes everything to the application."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": name_of(inbound), "timeout": "0s"}}
    host = {"name": name, "domains": ["*"], "routes": [route], **details.host}
    return {"name": name, "virtual_hosts": [host], "validate_clusters": False}


def _http_manager(
    context: ProxyContext,
    inbound: Inbound,
    http_filters: Sequence[Config],
    details: PeerDetails,
    routes_from: Config,
) -> Config:
    manager = {"stat_prefix": name_of(inbound), **routes_from, **details.manager}
    return shapes.http_connection_manager(manager, http_filters, _logs(context, inbound), context.tracing)
