"""Which policies apply, which of them wins, and how they become one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml

from control.model.mesh_service import ServicePort
from control.model.resource import Resource
from control.model.target_ref import OutboundTargetRef, TopLevelTargetRef
from control.policies.matching import (
    inbound_entries,
    matching,
    merge_patch,
    merged,
    outbound_entries,
    selects,
    selects_inbound,
    selects_service,
)
from control.policies.meshhealthcheck.schema import Conf as HealthCheckConf
from control.policies.meshtls.schema import Conf as TlsConf
from control.policies.meshtrafficpermission.generate import decide

Read = Callable[[str], list[Resource]]


def top(**fields: object) -> TopLevelTargetRef:
    return TopLevelTargetRef.model_validate(fields)


@pytest.mark.parametrize(
    ("ref", "selected"),
    [
        (None, True),
        (top(kind="Mesh"), True),
        (top(kind="Dataplane"), True),
        (top(kind="Dataplane", labels={"app": "web"}), True),
        (top(kind="Dataplane", labels={"kuma.io/display-name": "web-1"}), True),
        (top(kind="Dataplane", labels={"app": "web", "version": "v2"}), False),
        (top(kind="Dataplane", labels={"app": "other"}), False),
    ],
)
def test_top_level(ref: TopLevelTargetRef | None, selected: bool) -> None:
    assert selects(ref, {"app": "web", "kuma.io/display-name": "web-1"}) is selected


def test_sections_are_names_or_ports() -> None:
    assert selects_inbound(top(kind="Dataplane", sectionName="http"), "http", 8080)
    assert selects_inbound(top(kind="Dataplane", sectionName="8080"), "http", 8080)
    assert not selects_inbound(top(kind="Dataplane", sectionName="grpc"), "http", 8080)
    assert selects_inbound(None, "http", 8080)


def test_services_are_selected_by_labels_and_port(read_resources: Read) -> None:
    [service] = read_resources(
        "{type: MeshService, name: backend, labels: {team: a},"
        " spec: {selector: {dataplaneRef: {name: x}}, ports: [{port: 80, name: http}]}}"
    )
    port: ServicePort = service.spec.ports[0]

    def chosen(**fields: object) -> bool:
        return selects_service(OutboundTargetRef.model_validate({"kind": "MeshService", **fields}), service, port)

    assert chosen(labels={"kuma.io/display-name": "backend"})
    assert chosen(labels={"team": "a"}, sectionName="http")
    assert chosen(labels={"team": "a"}, sectionName="80")
    assert not chosen(labels={"team": "a"}, sectionName="81")
    assert not chosen(labels={"team": "b"})
    assert selects_service(OutboundTargetRef(kind="Mesh"), service, port)


def tls(name: str, mode: str, ref: object = None) -> str:
    spec = {"rules": [{"default": {"mode": mode}}], **({"targetRef": ref} if ref else {})}
    return yaml.safe_dump({"type": "MeshTLS", "name": name, "spec": spec})


LABELS = {"app": "web"}


def in_force(policies: list[Resource]) -> str | None:
    conf = merged(inbound_entries(matching(policies, LABELS), "http", 8080), TlsConf)
    return conf.mode if conf else None


def test_the_more_specific_wins_whatever_the_names(read_resources: Read) -> None:
    section = {"kind": "Dataplane", "sectionName": "http"}
    proxy = {"kind": "Dataplane", "labels": {"app": "web"}}
    text = [tls("a", "Strict"), tls("z", "Permissive", proxy)]
    assert in_force(read_resources("---\n".join(text))) == "Permissive"
    assert in_force(read_resources("---\n".join([*text, tls("zz", "Strict", section)]))) == "Strict"


def test_between_equals_the_smaller_name_wins(read_resources: Read) -> None:
    assert in_force(read_resources("---\n".join([tls("b", "Strict"), tls("a", "Permissive")]))) == "Permissive"


def test_no_policy_is_no_configuration() -> None:
    assert in_force([]) is None


def test_to_entries_by_kind_then_port_then_place(read_resources: Read) -> None:
    policy, service = read_resources(
        """
type: MeshHealthCheck
name: a
spec:
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: s}, sectionName: http}
      default: {timeout: 3s, tcp: {}}
    - {targetRef: {kind: MeshService, labels: {kuma.io/display-name: s}}, default: {timeout: 2s, interval: 2s, tcp: {}}}
    - {targetRef: {kind: Mesh}, default: {timeout: 1s, interval: 1s, healthyThreshold: 7, http: {path: /a}}}
    - {targetRef: {kind: Mesh}, default: {healthyThreshold: 8, http: {expectedStatuses: [200]}}}
---
{type: MeshService, name: s, spec: {selector: {dataplaneRef: {name: x}}, ports: [{port: 80, name: http}]}}
"""
    )
    conf = merged(outbound_entries([policy], service, service.spec.ports[0]), HealthCheckConf)
    assert conf is not None
    assert conf.to_data() == {
        "timeout": "3s",
        "interval": "2s",
        "healthyThreshold": 8,
        "http": {"path": "/a", "expectedStatuses": [200]},
        "tcp": {},
    }


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, "bar", "bar"),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_of_rfc_7396_appendix_a(target: object, patch: object, result: object) -> None:
    assert merge_patch(target, patch) == result


# --- permissions ------------------------------------------------------------------------------------------------------

PERMISSIONS = """
type: MeshTrafficPermission
name: mesh
spec: {rules: [{default: {allow: [{spiffeID: {type: Prefix, value: spiffe://a.b}}]}}]}
---
type: MeshTrafficPermission
name: web
spec:
  targetRef: {kind: Dataplane, labels: {app: web}}
  rules:
    - default: {deny: [{spiffeID: {type: Exact, value: spiffe://a.b/batch}}]}
    - default: {allow: [{spiffeID: {type: Exact, value: spiffe://a.b/batch}}]}
    - default: {allowWithShadowDeny: [{spiffeID: {type: Exact, value: spiffe://other/x}}]}
"""


@pytest.mark.parametrize(
    ("caller", "allowed", "why"),
    [
        ("spiffe://a.b/web", True, "MeshTrafficPermission/mesh/rules[0]"),
        ("spiffe://a.b/batch", False, "MeshTrafficPermission/web/rules[0]"),
        ("spiffe://a.b.evil/web", False, "the default is deny"),
        ("spiffe://other/x", True, "MeshTrafficPermission/web/rules[2]"),
        ("spiffe://other/y", False, "the default is deny"),
    ],
)
def test_who_may_call(read_resources: Read, caller: str, allowed: bool, why: str) -> None:
    entries = inbound_entries(matching(read_resources(PERMISSIONS), LABELS), "http", 8080)
    found, reason = decide(entries, caller)
    assert found is allowed
    assert why in reason


def test_without_a_permission_nobody_may() -> None:
    assert decide([], "spiffe://a.b/web") == (False, "no rule matches: the default is deny")
