"""A view of a mesh is a value: what it has said it goes on saying, and nobody can change it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from control.mesh.facts import Plan
from control.mesh.view import MeshView, view_of
from control.model.resource import Resource

MESH = """
type: MeshIdentity
name: identity
spec:
  selector: {dataplane: {matchLabels: {}}}
  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}
---
type: MeshService
name: web
spec: {selector: {dataplaneLabels: {matchLabels: {app: web}}}, ports: [{port: 80, targetPort: 8080}]}
---
type: Dataplane
name: web-1
labels: {app: web, kuma.io/workload: web}
spec: {networking: {address: 10.0.0.1, inbound: [{port: 8080}]}}
"""


@pytest.fixture
def view(scenario: Callable[[str], MeshView]) -> MeshView:
    return scenario(MESH)


def test_a_view_cannot_be_changed(view: MeshView) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.plan = Plan()  # type: ignore[misc]
    found: Any = view
    for mapping in (found.without_ca, found._index.by_type, found._index.by_type["Dataplane"], found._index.members):
        with pytest.raises(TypeError):
            mapping["web-2"] = None


def test_questions_leave_nothing_behind(view: MeshView) -> None:
    def state() -> dict[str, Any]:
        return {name: getattr(value, "__dict__", value) for name, value in vars(view).items()}

    before = {name: dict(value) if isinstance(value, dict) else value for name, value in state().items()}
    (web,), (service,) = view.dataplanes, view.of_type("MeshService")
    assert view.members(service) == (web,)
    assert view.server_ids(service) == ("spiffe://default.default.mesh.local/workload/web",)
    assert view.services_of(web, "8080") == ["web"]
    assert view.identity_problem(web) is None
    assert state() == before


def test_a_plan_makes_another_view(view: MeshView) -> None:
    planned = view.with_plan(Plan(retained={"a.example": "PEM"}))
    assert (view.plan, planned.wanted) == (None, view)
    assert planned.trust_domains == ("a.example", *view.trust_domains)
    assert planned.has_surroundings_of(view)


def test_dataplanes_are_no_surroundings(view: MeshView, read_resources: Callable[[str], list[Resource]]) -> None:
    others = [resource for resource in view.resources if resource.kind.type != "Dataplane"]
    assert view_of("default", others).has_surroundings_of(view)
    assert not view_of(
        "default", [*others, *read_resources("type: MeshTrace\nname: t\nspec: {default: {}}")]
    ).has_surroundings_of(view)
