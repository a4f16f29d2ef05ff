"""Everything one proxy gets, as plain dictionaries: a pure function of the mesh and the proxy's name.

Only what the proxy references is in it: its own inbounds, the services it calls, and where their routes lead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import Destination, MeshView
from control.model.resource import Resource
from control.policies.meshmetric import generate as metric
from control.policies.meshtls import generate as tls
from control.policies.meshtrace import generate as trace
from control.xds.encoding.encode import CLUSTER, LISTENER, ROUTES
from control.xds.quarantine import IN_FORCE, Choice, Made
from control.xds.render import admin, inbounds, outbounds, provenance, shapes
from control.xds.render.inbounds import InboundContext
from control.xds.render.outbounds import OutboundContext, Reached

Config = dict[str, Any]


@dataclass(frozen=True)
class Credential:
    """A certificate with its key, for Envoy's own TLS: PEM, leaf first."""

    chain_pem: str
    key_pem: str = field(repr=False)


@dataclass
class ProxyConfig:
    """By name, for each type of xDS; and what could not be configured, in words."""

    clusters: dict[str, Config] = field(default_factory=dict)
    endpoints: dict[str, Config] = field(default_factory=dict)
    listeners: dict[str, Config] = field(default_factory=dict)
    routes: dict[str, Config] = field(default_factory=dict)
    secrets: dict[str, Config] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    # Where the endpoints come from.
    reached: list[Reached] = field(default_factory=list)
    # By type of xDS and name; nothing for endpoints and secrets, which no policy is in.
    made_of: dict[str, dict[str, Made]] = field(default_factory=lambda: {CLUSTER: {}, LISTENER: {}, ROUTES: {}})


def render(
    view: MeshView, dataplane: Resource, credential: Credential | None = None, choice: Choice = IN_FORCE
) -> ProxyConfig:
    """`credential` goes into the secret of the proxy's identity; without it Envoy waits for the secret."""
    config, policies = ProxyConfig(), ProxyPolicies(view, dataplane, choice)
    identity = view.identity_of(dataplane)
    problem = view.identity_problem(dataplane)
    if problem is not None:
        config.problems.append(problem)
    tracing = _tracing(view, dataplane, policies, config)
    inbound = InboundContext(view, dataplane, policies, identity, tracing)
    _add_inbounds(inbound, config)
    _add_admin(inbound, config)
    _add_outbounds(OutboundContext(view, dataplane, policies, identity, tracing), config)
    _add_metrics(dataplane, policies, config)
    if identity is not None:
        if not view.trust_bundles:
            config.problems.append("there is no MeshTrust in the mesh: no peer can be verified")
        elif identity.trust_domain not in view.trust_domains:
            config.problems.append(
                f"there is no MeshTrust of {identity.trust_domain}, the trust domain of this proxy: no peer accepts it"
            )
        if view.trust_bundles and policies.offload.mode == "EnvoyTLS":
            is_server = bool(inbound.dataplane.spec.networking.inbound) or admin.LISTENER in config.listeners
            config.secrets |= tls.trust_secrets(view.trust_bundles, config.clusters.values(), is_server)
        if credential is not None:
            config.secrets[tls.IDENTITY_SECRET] = tls.identity_secret(credential.chain_pem, credential.key_pem)
    return config


def _tracing(view: MeshView, dataplane: Resource, policies: ProxyPolicies, config: ProxyConfig) -> Config | None:
    conf = policies.trace
    found = trace.tracing(conf, dataplane.name, view.of_type("MeshOpenTelemetryBackend"))
    if found is None:
        if conf is not None and conf.backends:
            config.problems.append("MeshTrace names a MeshOpenTelemetryBackend that does not exist: nothing is traced")
        return None
    config.clusters[trace.CLUSTER] = {
        "name": trace.CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": trace.CLUSTER,
            "endpoints": [{"lb_endpoints": [shapes.endpoint(found.host, found.port)]}],
        },
        **shapes.http_options("grpc" if found.http2 else "http"),
    }
    config.made_of[CLUSTER][trace.CLUSTER] = provenance.of_proxy(policies, dataplane, "MeshTrace")
    return found.connection_manager


def _add_inbounds(context: InboundContext, config: ProxyConfig) -> None:
    for inbound in context.dataplane.spec.networking.inbound:
        name = inbounds.name_of(inbound)
        config.listeners[name] = inbounds.listener(context, inbound)
        config.clusters[name] = inbounds.cluster(inbound)
        routes = inbounds.routes(context, inbound)
        config.routes |= routes
        closed = inbounds.is_closed(context.policies, inbound)
        of_types = partial(provenance.of_inbound, context.policies, context.dataplane, inbound, closed)
        of_all = provenance.of_proxy(context.policies, context.dataplane, "MeshTrace", "MeshOffload")
        made = of_types("MeshAccessLog", "MeshTLS", "MeshTrafficPermission") | of_all
        config.made_of[LISTENER][name], config.made_of[CLUSTER][name] = made, of_types()
        config.made_of[ROUTES] |= dict.fromkeys(routes, of_types("MeshTrafficPermission"))


def _add_admin(context: InboundContext, config: ProxyConfig) -> None:
    networking = context.dataplane.spec.networking
    if context.identity is not None and admin.is_offered(networking):
        config.listeners[admin.LISTENER] = admin.listener(context, context.identity)
        config.clusters[admin.CLUSTER] = admin.cluster(networking.admin.port)
        made = provenance.of_proxy(context.policies, context.dataplane, "MeshTLS", "MeshOffload")
        config.made_of[LISTENER][admin.LISTENER] = config.made_of[CLUSTER][admin.CLUSTER] = made


def _add_outbounds(context: OutboundContext, config: ProxyConfig) -> None:
    reached: dict[str, Destination] = {}
    of_proxy = provenance.of_proxy(context.policies, context.dataplane, "MeshTrace")
    for outbound in context.dataplane.spec.networking.outbound:
        destination = context.view.resolve_outbound(outbound.backend_ref)
        if destination is None:
            reference = outbound.backend_ref
            named = reference.name or f"with labels {reference.labels}"
            place = f"{outbound.address}:{outbound.port}"
            config.problems.append(f"outbound {place}: there is no MeshService {named} with port {reference.port}")
            continue
        of_types = partial(provenance.of_destination, context.view, context.policies, destination)
        name = outbounds.listener_name(outbound)
        config.listeners[name] = outbounds.listener(context, outbound, destination)
        config.made_of[LISTENER][name] = of_types("MeshAccessLog") | of_proxy
        if destination.port.is_http:
            config.routes[destination.name], more = outbounds.routes(context, destination)
            config.made_of[ROUTES][destination.name] = of_types("MeshHTTPRoute", "MeshLoadBalancingStrategy")
            reached |= {found.name: found for found in more}
        else:
            reached[destination.name] = destination
    zone = context.view.zone_of(context.dataplane)
    of_tls = provenance.of_proxy(context.policies, context.dataplane, "MeshTLS", "MeshOffload")
    for name, destination in reached.items():
        config.clusters[name] = outbounds.cluster(context, destination)
        of_types = partial(provenance.of_destination, context.view, context.policies, destination)
        config.made_of[CLUSTER][name] = of_types("MeshLoadBalancingStrategy", "MeshHealthCheck") | of_tls
        needed = outbounds.reach(context, destination)
        config.endpoints[name] = outbounds.load_assignment(context.view, needed, zone)
        config.reached.append(needed)


def _add_metrics(dataplane: Resource, policies: ProxyPolicies, config: ProxyConfig) -> None:
    routes, networking = metric.routes(policies.metric, admin.CLUSTER), dataplane.spec.networking
    if not routes:
        return
    if networking.admin is None:
        config.problems.append("MeshMetric needs networking.admin.port on the Dataplane: that is where the numbers are")
        return
    config.clusters[admin.CLUSTER] = admin.cluster(networking.admin.port)
    made = provenance.of_proxy(policies, dataplane, "MeshMetric")
    for port, route in routes:
        name, address = f"self_metrics_{port}", shapes.address(networking.address, port)
        taken = next((other for other, one in config.listeners.items() if one["address"] == address), None)
        if taken is not None:
            config.problems.append(
                f"MeshMetric: {networking.address}:{port} is where {taken} is: no metrics there; choose another port"
            )
            continue
        host = {"name": name, "domains": ["*"], "routes": [route]}
        manager = {"stat_prefix": name, "route_config": {"name": name, "virtual_hosts": [host]}}
        config.made_of[LISTENER][name] = made
        config.listeners[name] = {
            "name": name,
            "traffic_direction": "INBOUND",
            "address": address,
            "filter_chains": [{"filters": [shapes.http_connection_manager(manager, [], [], None)]}],
        }
