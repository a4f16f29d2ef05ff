"""Policies with the label kuma.io/effect: shadow have no effect, and can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from control.kinds import KINDS
from control.mesh.choice import Choice
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import MeshView
from control.model import documents
from control.model.violation import InvalidResource
from control.policies import POLICIES
from control.rest.explain_proxy import access, config
from tests.control.policies.test_scenarios import NAMES, config_of, text_of

POLICY_TYPES = {policy.type for policy in POLICIES}


def with_labels(name: str, keep: bool) -> str:
    """The scenario with all of its policies as shadows, or without them."""
    found = []
    for document in yaml.safe_load_all(text_of(name)):
        if document["type"] in POLICY_TYPES:
            if not keep:
                continue
            document["labels"] = {**document.get("labels", {}), "kuma.io/effect": "shadow"}
        found.append(yaml.safe_dump(document))
    return "---\n".join(found)


@pytest.mark.parametrize("name", NAMES)
def test_a_shadow_changes_nothing_and_shows_what_it_would(name: str, scenario: Callable[[str], MeshView]) -> None:
    shadows, without = scenario(with_labels(name, keep=True)), scenario(with_labels(name, keep=False))
    assert config_of(shadows) == config_of(without)
    web = shadows.get("Dataplane", "web-1")
    assert web is not None
    assert config(shadows, web, Choice(shadow=True)) == config(scenario(text_of(name)), web)


def test_a_denial_that_is_a_shadow_denies_nobody(scenario: Callable[[str], MeshView]) -> None:
    caller = "spiffe://default.default.mesh.local/workload/web"
    rule = f"{{spiffeID: {{type: Exact, value: {caller}}}}}"
    text = (
        text_of("base")
        + "---\n"
        + "---\n".join(
            f"type: MeshTrafficPermission\nname: {action}\nlabels: {labels}\n"
            f"spec: {{rules: [{{default: {{{action}: [{rule}]}}}}]}}\n"
            for action, labels in (("allow", "{}"), ("deny", "{kuma.io/effect: shadow}"))
        )
    )
    view = scenario(text)
    web = view.get("Dataplane", "web-1")
    assert web is not None
    assert all(answer["allowed"] for answer in access(view, web, caller))
    assert [p.name for p in ProxyPolicies(view, web).of_type("MeshTrafficPermission")] == ["allow"]


def refusal(labels: dict[str, str], type_name: str = "Dataplane") -> str:
    specs: dict[str, Any] = {
        "Dataplane": {"networking": {"address": "10.0.0.1"}},
        "MeshTLS": {"rules": [{"default": {"mode": "Strict"}}]},
        "Mesh": {},
    }
    document: dict[str, Any] = {"type": type_name, "name": "a", "labels": labels, "spec": specs[type_name]}
    if type_name != "Mesh":
        document["mesh"] = "default"
    try:
        documents.read(documents.to_json(document), "test", KINDS)
    except InvalidResource as error:
        return str(error)
    return ""


# As `kumactl export` of Kuma 3.0 writes them, on Universal and on Kubernetes.
EXPORTED = [
    ({"kuma.io/mesh": "default", "kuma.io/origin": "zone", "kuma.io/zone": "default", "kuma.io/env": "universal",
      "kuma.io/display-name": "a", "kuma.io/policy-role": "system"}, "MeshTLS"),
    ({"kuma.io/mesh": "default", "kuma.io/origin": "zone", "kuma.io/proxy-type": "sidecar", "kuma.io/zone": "east-1",
      "kuma.io/workload": "web", "kuma.io/sidecar-injection": "enabled", "k8s.kuma.io/namespace": "shop",
      "k8s.kuma.io/service-account": "web", "app": "web"}, "Dataplane"),
    ({"kuma.io/managed-by": "meshservice-generator", "kuma.io/deletion-grace-period-started-at": ""}, "Dataplane"),
    ({"kuma.io/origin": "global", "kuma.io/display-name": "a"}, "Mesh"),
]  # fmt: skip


@pytest.mark.parametrize(("labels", "type_name"), EXPORTED)
def test_labels_of_exports_are_accepted(labels: dict[str, str], type_name: str) -> None:
    assert refusal(labels, type_name) == ""
