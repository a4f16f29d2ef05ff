"""What Envoy would reject in a policy, before any proxy has it: the policy alone in a small mesh that it selects fully.

The mesh is made for the policy: a dataplane with its labels, an inbound and a service of each protocol. What is
generated is checked against the rules of the API. It takes some milliseconds, however large the real mesh is, and needs
no control plane; so `mesh validate` does it as well. What only several policies together cause shows when they meet
(quarantine.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format

from control.kinds import DATAPLANE, MESH_IDENTITY, MESH_SERVICE, MESH_TRUST
from control.mesh.view import view_of
from control.model.resource import Kind, Resource
from control.model.target_ref import WORKLOAD, OutboundTargetRef, TopLevelTargetRef
from control.model.violation import InvalidResource, Violation
from control.xds.encoding import encode
from control.xds.encoding.encode import CLUSTER, LISTENER, ROUTES
from control.xds.render import proxy

# http2 is treated as grpc.
_PROTOCOLS = ("http", "tcp", "grpc")
_WORDS = {CLUSTER: "cluster", LISTENER: "listener", ROUTES: "routes"}
_LABELS = {"app": "a", WORKLOAD: "a"}
_IDENTITY = {
    "selector": {"dataplane": {"matchLabels": {}}},
    "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": True}}},
}


def check(resource: Resource) -> None:
    """Raises InvalidResource."""
    found = list(violations(resource)) if resource.kind.is_policy else []
    if found:
        raise InvalidResource(f"{resource.kind.type} {resource.name}", found)


def violations(policy: Resource) -> Iterator[Violation]:
    """Each violation once, however many resources it is in."""
    dataplane, others = _around(policy)
    view = view_of(policy.mesh, [policy, dataplane, *others])
    config = proxy.render(view, dataplane)
    seen: set[str] = set()
    for type_url, configs in ((LISTENER, config.listeners), (ROUTES, config.routes), (CLUSTER, config.clusters)):
        for name, one in configs.items():
            for problem in _problems(type_url, name, one):
                if problem not in seen:
                    seen.add(problem)
                    yield Violation("spec", f"Envoy would reject the {_WORDS[type_url]} generated from it: {problem}")


def _problems(type_url: str, name: str, config: Mapping[str, Any]) -> Sequence[str]:
    try:
        return encode.encode(type_url, name, dict(config)).broken
    except json_format.ParseError as error:  # a number out of range, for example
        return [str(error)]


def _around(policy: Resource) -> tuple[Resource, list[Resource]]:
    """A dataplane that the policy selects, and the resources that it needs."""
    top: TopLevelTargetRef | None = policy.spec.target_ref
    services = [*_services(policy)]
    section = top.section_name if top is not None and top.section_name else "first"
    first = (
        {"port": int(section)} if section.isdigit() and 0 < int(section) < 65536 else {"port": 61000, "name": section}
    )
    networking = {
        "address": "10.0.0.1",
        "admin": {"port": 60999},
        "inbound": [
            {**(first if place == 0 else {"port": 61000 + place}), "servicePort": 1, "protocol": protocol}
            for place, protocol in enumerate(_PROTOCOLS)
        ],
        "outbound": [
            {"port": 62000 + place, "backendRef": {"kind": "MeshService", "name": service.name, "port": 80}}
            for place, service in enumerate(services)
        ],
    }
    labels = {**_LABELS, **((top.labels or {}) if top is not None else {})}
    trust = {"trustDomain": "a", "caBundles": [{"type": "Pem", "pem": {"value": "-"}}]}
    dataplane = _made(policy, DATAPLANE, "a", {"networking": networking}, labels)
    return dataplane, [
        *services,
        _made(policy, MESH_IDENTITY, "a", _IDENTITY),
        _made(policy, MESH_TRUST, "a", trust),
    ]


def _services(policy: Resource) -> Iterator[Resource]:
    """One of each protocol for each destination of the policy, at most as many as a dataplane may call."""
    refs: list[OutboundTargetRef] = [to.target_ref for to in getattr(policy.spec, "to", None) or ()]
    wanted: dict[str, tuple[dict[str, str], str | None]] = {}
    for ref in refs[:400]:
        wanted.setdefault(repr((ref.labels, ref.section_name)), (dict(ref.labels or {}), ref.section_name))
    for number, (labels, section) in enumerate(wanted.values() or [({}, None)]):
        for protocol in _PROTOCOLS:
            port: dict[str, Any] = {"port": 80, "targetPort": 61000, "appProtocol": protocol}
            if section is not None:
                port |= {"port": int(section)} if section.isdigit() else {"name": section}
            spec = {"selector": {"dataplaneLabels": {"matchLabels": {"app": "a"}}}, "ports": [port]}
            yield _made(policy, MESH_SERVICE, f"s{number}-{protocol}", spec, labels)


def _made(
    policy: Resource, kind: Kind, name: str, spec: Mapping[str, Any], labels: Mapping[str, str] | None = None
) -> Resource:
    return Resource(kind, policy.mesh, name, kind.spec.model_validate(spec), labels or {})
