"""Forms of Kuma 2.x that 3.0 no longer has. Kuma drops most of them silently; here each is rejected with its new form.

Everything works on the plain document, before its schema is checked, so that the user reads about the new form and not
about an unknown field. Rules are data where a table suffices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from control.model.target_ref import DISPLAY_NAME
from control.model.violation import Violation

# Types that were removed, and their replacements.
REMOVED_TYPES = {
    "TrafficPermission": "MeshTrafficPermission",
    "TrafficRoute": "MeshHTTPRoute",
    "TrafficLog": "MeshAccessLog",
    "TrafficTrace": "MeshTrace",
    "HealthCheck": "MeshHealthCheck",
    "MeshGateway": None,
    "MeshGatewayRoute": None,
    "MeshGatewayInstance": None,
    "ExternalService": None,
    "VirtualOutbound": None,
    "ProxyTemplate": None,
    "ZoneIngress": None,
    "ZoneEgress": None,
    "Retry": None,
    "Timeout": None,
    "CircuitBreaker": None,
    "FaultInjection": None,
    "RateLimit": None,
}

# Fields of a 2.x Mesh, and their replacements.
_MESH_FIELDS: dict[str, tuple[str, object]] = {
    "mtls": (
        "CAs are configured by MeshIdentity, and permissive mode by MeshTLS",
        {
            "type": "MeshIdentity",
            "name": "identity",
            "mesh": "default",
            "spec": {
                "selector": {"dataplane": {"matchLabels": {}}},
                "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": True}}},
            },
        },
    ),
    "tracing": (
        "tracing is configured by the policy MeshTrace",
        {
            "type": "MeshTrace",
            "name": "tracing",
            "mesh": "default",
            "spec": {
                "default": {"backends": [{"type": "Zipkin", "zipkin": {"url": "http://zipkin:9411/api/v2/spans"}}]}
            },
        },
    ),
    "logging": (
        "access logs are configured by the policy MeshAccessLog",
        {
            "type": "MeshAccessLog",
            "name": "logs",
            "mesh": "default",
            "spec": {"rules": [{"default": {"backends": [{"type": "File", "file": {"path": "/dev/stdout"}}]}}]},
        },
    ),
    "metrics": (
        "metrics are configured by the policy MeshMetric",
        {
            "type": "MeshMetric",
            "name": "metrics",
            "mesh": "default",
            "spec": {"default": {"backends": [{"type": "Prometheus", "prometheus": {"port": 5670}}]}},
        },
    ),
    "routing": (
        "locality is configured by the policy MeshLoadBalancingStrategy",
        {
            "type": "MeshLoadBalancingStrategy",
            "name": "locality",
            "mesh": "default",
            "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"localityAwareness": {"disabled": False}}}]},
        },
    ),
    "networking": ("a Mesh no longer has networking; traffic to external destinations is not passed through", None),
    "constraints": ("a Mesh no longer has constraints; the dataplane token restricts what a proxy may be", None),
    "meshServices": ("services are always MeshServices; leave the field out", None),
}

_INBOUND_POLICIES = frozenset({"MeshTrafficPermission", "MeshTLS", "MeshAccessLog"})
_REMOVED_TOP_KINDS = frozenset({"MeshSubset", "MeshService", "MeshServiceSubset", "MeshGateway"})
_REMOVED_TO_KINDS = frozenset({"MeshSubset", "MeshServiceSubset", "MeshGateway"})
_SERVICE_TAG = "kuma.io/service"


def _yaml(data: object) -> str:
    return yaml.safe_dump(data, sort_keys=False, width=100)


def violations(document: Mapping[str, Any]) -> Iterator[Violation]:
    """Every 2.x form in the document."""
    kind = document.get("type")
    if "apiVersion" in document or ("kind" in document and "type" not in document):
        yield _kubernetes_form(document)
        return
    if isinstance(kind, str) and kind in REMOVED_TYPES:
        yield _removed_type(kind)
        return
    spec = document.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    if kind == "Mesh":
        yield from _mesh({**document, **spec}, "spec." if spec else "")
    elif kind == "Dataplane":
        at_top = isinstance(document.get("networking"), dict)
        networking = document["networking"] if at_top else spec.get("networking")
        if isinstance(networking, dict):
            yield from _dataplane(networking, "networking" if at_top else "spec.networking")
    elif kind == "MeshService":
        yield from _mesh_service(spec)
    elif isinstance(kind, str):
        yield from _policy(kind, spec)


def _kubernetes_form(document: Mapping[str, Any]) -> Violation:
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    labels = dict(metadata.get("labels") or {}) if isinstance(metadata.get("labels"), dict) else {}
    mesh = labels.pop("kuma.io/mesh", "default")
    new = {"type": document.get("kind", "MeshTLS"), "name": metadata.get("name", "example"), "mesh": mesh}
    return Violation(
        "apiVersion",
        "is the Kubernetes form; this control plane reads the universal form",
        _yaml({**new, **({"labels": labels} if labels else {}), "spec": document.get("spec", {})}),
    )


def _removed_type(kind: str) -> Violation:
    replacement = REMOVED_TYPES[kind]
    if replacement is None:
        return Violation("type", f"{kind} was removed in Kuma 3.0 and has no successor in this control plane", "")
    return Violation("type", f"{kind} was removed in Kuma 3.0; use {replacement}", f"type: {replacement}")


def _mesh(document: Mapping[str, Any], prefix: str) -> Iterator[Violation]:
    for name, (message, new_form) in _MESH_FIELDS.items():
        if name in document:
            example = "" if new_form is None else _yaml(new_form)
            yield Violation(prefix + name, f"was removed in Kuma 3.0: {message}", example)


# --- Dataplane and MeshService ----------------------------------------------------------------------------------------


def _entries(owner: Mapping[str, Any], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = owner.get(name)
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield index, entry


def _dataplane(networking: Mapping[str, Any], path: str) -> Iterator[Violation]:
    for index, inbound in _entries(networking, "inbound"):
        if "tags" in inbound:
            yield _inbound_tags(inbound, f"{path}.inbound[{index}].tags")
    for index, outbound in _entries(networking, "outbound"):
        if "tags" in outbound:
            yield _outbound_tags(outbound, f"{path}.outbound[{index}].tags")
    for name in ("gateway", "transparentProxying", "advertisedAddress"):
        if name in networking:
            yield Violation(f"{path}.{name}", "is not supported by this control plane: leave it out", "")


def _inbound_tags(inbound: Mapping[str, Any], path: str) -> Violation:
    tags = dict(inbound["tags"]) if isinstance(inbound["tags"], dict) else {}
    protocol = tags.pop("kuma.io/protocol", inbound.get("protocol"))
    service = tags.pop(_SERVICE_TAG, None)
    labels = {**({"app": service} if service else {}), **tags} or {"app": "backend"}
    kept = {key: value for key, value in inbound.items() if key != "tags"}
    new = {
        "labels": labels,
        "spec": {"networking": {"inbound": [{**kept, **({"protocol": protocol} if protocol else {})}]}},
    }
    return Violation(
        path, "were removed in Kuma 3.0: use labels of the Dataplane, and `protocol` of the inbound", _yaml(new)
    )


def _outbound_tags(outbound: Mapping[str, Any], path: str) -> Violation:
    tags = outbound["tags"] if isinstance(outbound["tags"], dict) else {}
    kept = {key: value for key, value in outbound.items() if key not in ("tags", "backendRef")}
    reference = {"kind": "MeshService", "name": tags.get(_SERVICE_TAG, "backend"), "port": 80}
    return Violation(
        path,
        "were removed in Kuma 3.0: an outbound names a MeshService and its port by backendRef",
        _yaml({"outbound": [{**kept, "backendRef": reference}]}),
    )


def _mesh_service(spec: Mapping[str, Any]) -> Iterator[Violation]:
    selector = spec.get("selector")
    if isinstance(selector, dict) and "dataplaneTags" in selector:
        tags = selector["dataplaneTags"] if isinstance(selector["dataplaneTags"], dict) else {"app": "backend"}
        yield Violation(
            "spec.selector.dataplaneTags",
            "was removed in Kuma 3.0: dataplanes are selected by their labels",
            _yaml({"selector": {"dataplaneLabels": {"matchLabels": tags}}}),
        )
    for index, identity in _entries(spec, "identities"):
        if identity.get("type") == "ServiceTag":
            yield Violation(
                f"spec.identities[{index}].type",
                "ServiceTag was removed in Kuma 3.0: services are known by SPIFFE id",
                _yaml([{"type": "SpiffeID", "value": "spiffe://default.default.mesh.local/workload/backend"}]),
            )


# --- policies ---------------------------------------------------------------------------------------------------------


def _policy(kind: str, spec: Mapping[str, Any]) -> Iterator[Violation]:
    if "from" in spec:
        yield _from(kind, spec)
    top = spec.get("targetRef")
    if isinstance(top, dict):
        yield from _target_ref(top, "spec.targetRef", top_level=True)
    for index, entry in _entries(spec, "to"):
        path = f"spec.to[{index}]"
        if isinstance(entry.get("targetRef"), dict):
            yield from _target_ref(entry["targetRef"], f"{path}.targetRef", top_level=False)
        yield from _to_default(kind, entry.get("default"), f"{path}.default")
        for number, rule in _entries(entry, "rules"):
            yield from _route_rule(rule, f"{path}.rules[{number}].default")
    if kind in ("MeshTrace", "MeshMetric"):
        yield from _backends(spec.get("default"), "spec.default")
    if kind == "MeshAccessLog":
        for index, rule in _entries(spec, "rules"):
            yield from _backends(rule.get("default"), f"spec.rules[{index}].default")


def _from(kind: str, spec: Mapping[str, Any]) -> Violation:
    if kind not in _INBOUND_POLICIES:
        return Violation("spec.from", "was removed in Kuma 3.0; this policy has no inbound rules", "")
    rules = [_rule(kind, entry) for _, entry in _entries(spec, "from")] or [_rule(kind, {})]
    return Violation(
        "spec.from", "was removed in Kuma 3.0: inbound traffic is configured by rules", _yaml({"rules": rules})
    )


def _rule(kind: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    default = entry.get("default")
    default = default if isinstance(default, dict) else {}
    if kind != "MeshTrafficPermission":
        return {"default": default or {"mode": "Strict"}}
    action = {"Deny": "deny", "AllowWithShadowDeny": "allowWithShadowDeny"}.get(str(default.get("action")), "allow")
    target = entry.get("targetRef")
    target = target if isinstance(target, dict) else {}
    tags = target.get("tags")
    service = target.get("name") or (tags.get(_SERVICE_TAG) if isinstance(tags, dict) else None)
    domain = "spiffe://default.default.mesh.local/"
    match = (
        {"type": "Exact", "value": f"{domain}workload/{service}"} if service else {"type": "Prefix", "value": domain}
    )
    return {"default": {action: [{"spiffeID": match}]}}


def _target_ref(ref: Mapping[str, Any], path: str, top_level: bool) -> Iterator[Violation]:
    kind = ref.get("kind")
    removed = _REMOVED_TOP_KINDS if top_level else _REMOVED_TO_KINDS
    new_kind = ("Dataplane" if top_level else "MeshService") if kind in removed else kind
    tags = ref.get("tags")
    labels = {
        **(dict(ref["labels"]) if isinstance(ref.get("labels"), dict) else {}),
        **({key: value for key, value in tags.items() if key != _SERVICE_TAG} if isinstance(tags, dict) else {}),
    }
    service = ref.get("name") or (tags.get(_SERVICE_TAG) if isinstance(tags, dict) else None)
    if service:
        labels["app" if top_level and kind in removed else DISPLAY_NAME] = service
    new = {"kind": new_kind, **({"labels": labels} if labels and new_kind != "Mesh" else {})}
    if ref.get("sectionName") and new_kind != "Mesh":
        new["sectionName"] = ref["sectionName"]
    example = _yaml({"targetRef": new})
    if kind in removed:
        place = (
            "selects proxies by kind Mesh or Dataplane" if top_level else "selects services by kind Mesh or MeshService"
        )
        yield Violation(f"{path}.kind", f"{kind} was removed in Kuma 3.0: targetRef {place}", example)
        return
    for name in ("name", "namespace", "tags", "proxyTypes", "mesh"):
        if name in ref:
            how = "leave it out" if name == "proxyTypes" else "resources are selected by labels"
            yield Violation(f"{path}.{name}", f"was removed in Kuma 3.0: {how}", example)


def _to_default(kind: str, default: object, path: str) -> Iterator[Violation]:
    if not isinstance(default, dict):
        return
    if kind == "MeshHealthCheck" and "healthyPanicThreshold" in default:
        yield Violation(
            f"{path}.healthyPanicThreshold",
            "was removed in Kuma 3.0 (it moved to MeshCircuitBreaker, which is not supported here): leave it out",
            "",
        )
    balancer = default.get("loadBalancer")
    if kind == "MeshLoadBalancingStrategy" and isinstance(balancer, dict):
        for name in ("ringHash", "maglev"):
            inner = balancer.get(name)
            if isinstance(inner, dict) and "hashPolicies" in inner:
                yield Violation(
                    f"{path}.loadBalancer.{name}.hashPolicies",
                    "was removed in Kuma 3.0: hashPolicies belong beside loadBalancer",
                    _yaml(
                        {
                            "default": {
                                "hashPolicies": inner["hashPolicies"],
                                "loadBalancer": {"type": balancer.get("type")},
                            }
                        }
                    ),
                )
    if kind == "MeshAccessLog":
        yield from _backends(default, path)


def _backends(default: object, path: str) -> Iterator[Violation]:
    for index, backend in _entries(default, "backends") if isinstance(default, dict) else ():
        telemetry = backend.get("openTelemetry")
        if isinstance(telemetry, dict) and "endpoint" in telemetry:
            address, _, port = str(telemetry["endpoint"]).rpartition(":")
            endpoint = {"address": address or port, "port": int(port) if port.isdigit() else 4317}
            yield Violation(
                f"{path}.backends[{index}].openTelemetry.endpoint",
                "was removed in Kuma 3.0: the collector is a MeshOpenTelemetryBackend, named by backendRef",
                _yaml(
                    {
                        "type": "MeshOpenTelemetryBackend",
                        "name": "collector",
                        "mesh": "default",
                        "spec": {"endpoint": endpoint},
                    }
                )
                + "---\n"
                + _yaml(
                    {
                        "openTelemetry": {
                            "backendRef": {"kind": "MeshOpenTelemetryBackend", "labels": {DISPLAY_NAME: "collector"}}
                        }
                    }
                ),
            )


def _route_rule(rule: Mapping[str, Any], path: str) -> Iterator[Violation]:
    default = rule.get("default")
    if not isinstance(default, dict):
        return
    for index, reference in _entries(default, "backendRefs"):
        yield from _backend_ref(reference, f"{path}.backendRefs[{index}]")
    for index, entry in _entries(default, "filters"):
        mirror = entry.get("requestMirror")
        if isinstance(mirror, dict) and isinstance(mirror.get("backendRef"), dict):
            yield from _backend_ref(mirror["backendRef"], f"{path}.filters[{index}].requestMirror.backendRef")


def _backend_ref(ref: Mapping[str, Any], path: str) -> Iterator[Violation]:
    tags = ref.get("tags")
    service = ref.get("name") or (tags.get(_SERVICE_TAG) if isinstance(tags, dict) else None) or "backend"
    version = tags.get("version") if isinstance(tags, dict) else None
    new = {"kind": "MeshService", "labels": {DISPLAY_NAME: f"{service}-{version}" if version else service}}
    new |= {key: ref[key] for key in ("port", "weight") if key in ref}
    if ref.get("kind") == "MeshServiceSubset":
        yield Violation(
            f"{path}.kind",
            "MeshServiceSubset was removed in Kuma 3.0: make a MeshService for each subset",
            _yaml({"backendRefs": [new]}),
        )
        return
    for name in ("name", "namespace", "tags"):
        if name in ref:
            yield Violation(
                f"{path}.{name}",
                "was removed in Kuma 3.0: backends are selected by labels",
                _yaml({"backendRefs": [new]}),
            )
