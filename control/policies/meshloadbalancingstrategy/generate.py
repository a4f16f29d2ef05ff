"""MeshLoadBalancingStrategy: the balancer of a cluster, hash policies of routes, and localities of endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control.policies.meshhealthcheck.generate import seconds
from control.policies.meshloadbalancingstrategy.schema import Conf, HashPolicy, LeastRequest, LoadBalancer, RingHash
from envoy_ext.render import Config

_HASH_FUNCTIONS = {"XXHash": "XX_HASH", "MurmurHash2": "MURMUR_HASH_2"}


@dataclass(frozen=True, order=True)
class Endpoint:
    """The address of one inbound of one dataplane."""

    address: str
    port: int
    zone: str


def cluster_fields(conf: Conf | None) -> Config:
    """`lb_policy` and its settings, for a Cluster."""
    balancer = conf.load_balancer if conf else None
    if balancer is None:
        return {"lb_policy": "ROUND_ROBIN"}
    return _BALANCERS[balancer.type](balancer)


def _round_robin(_: LoadBalancer) -> Config:
    return {"lb_policy": "ROUND_ROBIN"}


def _least_request(balancer: LoadBalancer) -> Config:
    conf, settings = balancer.least_request or LeastRequest(), Config()
    if conf.choice_count is not None:
        settings["choice_count"] = conf.choice_count
    if conf.active_request_bias is not None:
        bias = float(conf.active_request_bias)
        settings["active_request_bias"] = {"default_value": bias, "runtime_key": "mesh.active_request_bias"}
    return {"lb_policy": "LEAST_REQUEST", **({"least_request_lb_config": settings} if settings else {})}


def _ring_hash(balancer: LoadBalancer) -> Config:
    conf, settings = balancer.ring_hash or RingHash(), Config()
    if conf.hash_function is not None:
        settings["hash_function"] = _HASH_FUNCTIONS[conf.hash_function]
    if conf.min_ring_size is not None:
        settings["minimum_ring_size"] = conf.min_ring_size
    if conf.max_ring_size is not None:
        settings["maximum_ring_size"] = conf.max_ring_size
    return {"lb_policy": "RING_HASH", **({"ring_hash_lb_config": settings} if settings else {})}


_BALANCERS = {"RoundRobin": _round_robin, "LeastRequest": _least_request, "RingHash": _ring_hash}


def hash_policies(conf: Conf | None) -> list[Config]:
    """`hash_policy` of a route; empty if none is configured."""
    return [_hash_policy(policy) for policy in (conf.hash_policies if conf else None) or ()]


def _hash_policy(policy: HashPolicy) -> Config:
    result: Config = {"terminal": True} if policy.terminal else {}
    if policy.header is not None:
        result["header"] = {"header_name": policy.header.name}
    elif policy.cookie is not None:
        result["cookie"] = {"name": policy.cookie.name}
        if policy.cookie.ttl is not None:
            result["cookie"]["ttl"] = seconds(policy.cookie.ttl)
        if policy.cookie.path is not None:
            result["cookie"]["path"] = policy.cookie.path
    elif policy.query_parameter is not None:
        result["query_parameter"] = {"name": policy.query_parameter.name}
    else:
        result["connection_properties"] = {"source_ip": True}
    return result


def is_locality_aware(conf: Conf | None) -> bool:
    """On unless a policy turns it off, as in Kuma."""
    awareness = conf.locality_awareness if conf else None
    return awareness is None or not awareness.disabled


def load_assignment(cluster: str, endpoints: Sequence[Endpoint], zone: str, locality_aware: bool) -> Config:
    """A ClusterLoadAssignment: the proxy's own zone at priority 0 and all others at 1, or all of them alike.

    Priorities must begin at 0 without gaps: if the own zone has no endpoint, the others are at 0.
    """
    zones = sorted({endpoint.zone for endpoint in endpoints}, key=lambda name: (name != zone, name))
    localities = []
    for name in zones:
        locality: Config = {"locality": {"zone": name}}
        if locality_aware and name != zone and zone in zones:
            locality["priority"] = 1
        locality["lb_endpoints"] = [_endpoint(e) for e in sorted(endpoints) if e.zone == name]
        localities.append(locality)
    return {"cluster_name": cluster, "endpoints": localities}


def _endpoint(endpoint: Endpoint) -> Config:
    address = {"socket_address": {"address": endpoint.address, "port_value": endpoint.port}}
    return {"endpoint": {"address": address}}
