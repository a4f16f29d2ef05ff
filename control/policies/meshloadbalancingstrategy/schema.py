"""MeshLoadBalancingStrategy: how the endpoints of a service share requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from control.model.base import Duration, Model, PositiveDecimal
from control.model.http import CookieName, HeaderName, Line, ParameterName
from control.model.target_ref import OutboundTargetRef, TopLevelTargetRef, check_outbound, check_top_level
from control.model.violation import Violation
from control.policies.policy import Policy


class LocalityAwareness(Model):
    # By default endpoints of the proxy's own zone come first, and the others if those fail; true uses all zones alike.
    disabled: bool | None = None


class RoundRobin(Model):
    pass


class LeastRequest(Model):
    choice_count: Annotated[int, Field(ge=2, le=100)] | None = None
    active_request_bias: PositiveDecimal | None = None


class RingHash(Model):
    hash_function: Literal["XXHash", "MurmurHash2"] | None = None
    min_ring_size: Annotated[int, Field(ge=1, le=8_000_000)] | None = None
    max_ring_size: Annotated[int, Field(ge=1, le=8_000_000)] | None = None


class LoadBalancer(Model):
    type: Literal["RoundRobin", "LeastRequest", "RingHash"] = Field(examples=["RoundRobin"])
    round_robin: RoundRobin | None = None
    least_request: LeastRequest | None = None
    ring_hash: RingHash | None = None


class Header(Model):
    name: HeaderName = Field(examples=["x-user"])


class Cookie(Model):
    name: CookieName = Field(examples=["session"])
    ttl: Duration | None = None
    path: Line | None = Field(default=None, examples=["/"])


class Connection(Model):
    source_ip: bool = Field(alias="sourceIP", examples=[True])


class QueryParameter(Model):
    name: ParameterName = Field(examples=["user"])


class HashPolicy(Model):
    type: Literal["Header", "Cookie", "Connection", "QueryParameter"] = Field(examples=["Header"])
    # Whether a hash computed so far is final: later entries are only tried if there is none.
    terminal: bool | None = None
    header: Header | None = Field(default=None, examples=[{"name": "x-user"}])
    cookie: Cookie | None = Field(default=None, examples=[{"name": "session", "ttl": "1h"}])
    connection: Connection | None = Field(default=None, examples=[{"sourceIP": True}])
    query_parameter: QueryParameter | None = Field(default=None, examples=[{"name": "user"}])


class Conf(Model):
    locality_awareness: LocalityAwareness | None = None
    load_balancer: LoadBalancer | None = Field(default=None, examples=[{"type": "RoundRobin"}])
    hash_policies: list[HashPolicy] | None = Field(default=None, max_length=16)


class To(Model):
    target_ref: OutboundTargetRef = Field(examples=[{"kind": "Mesh"}])
    default: Conf = Field(examples=[{"loadBalancer": {"type": "LeastRequest"}}])


class Spec(Model):
    target_ref: TopLevelTargetRef | None = None
    to: list[To] = Field(min_length=1, max_length=1000)


_BALANCER_FIELD = {"RoundRobin": "roundRobin", "LeastRequest": "leastRequest", "RingHash": "ringHash"}
_HASH_FIELD = {"Header": "header", "Cookie": "cookie", "Connection": "connection", "QueryParameter": "queryParameter"}
_HASH_EXAMPLE = {
    "Header": "header: {name: x-user}",
    "Cookie": "cookie: {name: session, ttl: 1h}",
    "Connection": "connection: {sourceIP: true}",
    "QueryParameter": "queryParameter: {name: user}",
}


def validate(spec: Spec) -> Iterator[Violation]:
    yield from check_top_level(spec.target_ref, configures_inbounds=False)
    for index, to in enumerate(spec.to):
        path = f"spec.to[{index}]"
        yield from check_outbound(to.target_ref, f"{path}.targetRef")
        if to.default.load_balancer is not None:
            yield from _check_balancer(to.default.load_balancer, f"{path}.default.loadBalancer")
        for number, policy in enumerate(to.default.hash_policies or ()):
            yield from _check_hash(policy, f"{path}.default.hashPolicies[{number}]")


def _check_balancer(balancer: LoadBalancer, path: str) -> Iterator[Violation]:
    data = balancer.to_data()
    for kind, name in _BALANCER_FIELD.items():
        if kind != balancer.type and name in data:
            yield Violation(f"{path}.{name}", f"must not be set with type {balancer.type}", f"type: {kind}")
    ring = balancer.ring_hash
    if ring is not None and (ring.min_ring_size or 1024) > (ring.max_ring_size or 8_000_000):
        yield Violation(
            f"{path}.ringHash.minRingSize",
            "must not exceed maxRingSize (minRingSize defaults to 1024)",
            "minRingSize: 1024",
        )


def _check_hash(policy: HashPolicy, path: str) -> Iterator[Violation]:
    given = [name for name in _HASH_FIELD.values() if name in policy.to_data()]
    if given != [_HASH_FIELD[policy.type]]:
        yield Violation(
            path,
            f"must have exactly the field {_HASH_FIELD[policy.type]} with type {policy.type}",
            _HASH_EXAMPLE[policy.type],
        )
    elif policy.cookie is not None and policy.cookie.path is not None and not policy.cookie.path.startswith("/"):
        yield Violation(f"{path}.cookie.path", f"must be an absolute path; got {policy.cookie.path!r}", "/")
    elif policy.connection is not None and not policy.connection.source_ip:
        yield Violation(
            f"{path}.connection.sourceIP",
            "must be true: the source IP is the only hashable attribute of a connection",
            "sourceIP: true",
        )


POLICY = Policy(
    "MeshLoadBalancingStrategy", "meshloadbalancingstrategies", "mlbs", frozenset({"outbound"}), Spec, validate
)
