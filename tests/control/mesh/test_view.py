"""A view of a mesh is a value: what it has said it goes on saying, and nobody can change it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from control.mesh.facts import Plan
from control.mesh.view import MeshView, view_of
from control.mesh.wanted import Wants
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


def test_what_an_earlier_view_knew_is_used_only_while_it_holds(
    view: MeshView, read_resources: Callable[[str], list[Resource]]
) -> None:
    (web,) = view.dataplanes
    rest = [resource for resource in view.resources if resource is not web]
    moved = read_resources(MESH.rpartition("---")[2].replace("kuma.io/workload: web", "kuma.io/workload: shop"))[0]
    other = read_resources(MESH.partition("---")[0].replace("name: identity", "name: other"))[0]
    unused = [resource for resource in rest if resource.kind.type != "MeshIdentity"]
    for resources in ([*rest, web], [*rest, moved], [*unused, web], [*unused, other, web], [*rest, other, moved]):
        alone, later = view_of("default", resources), view_of("default", resources, before=view)
        assert [later.wanted_identity(one) for one in later.dataplanes] == [
            alone.wanted_identity(one) for one in alone.dataplanes
        ]
        assert later.trust_bundles == alone.trust_bundles
    assert view_of("default", [*rest, web], before=view).wanted_identity(web) is view.wanted_identity(web)
    assert view_of("default", [*rest, web], "east", before=view).wanted_identity(web) is not view.wanted_identity(web)


def test_threads_that_overlap_never_mix_what_two_views_want(
    view: MeshView, read_resources: Callable[[str], list[Resource]]
) -> None:
    """The second is asked while the first looks at what was before."""
    tls = "type: MeshTLS\nname: tls\nspec: {rules: [{default: {mode: %s}}]}"
    strict, permissive = (
        view_of("default", [*view.resources, *read_resources(tls % mode)]) for mode in ("Strict", "Permissive")
    )
    wants = Wants()
    wanted = {id(view): Wants().of(view).proxies for view in (strict, permissive)}
    assert wanted[id(strict)] != wanted[id(permissive)]

    class Interrupted(MeshView):
        def has_surroundings_of(self, before: MeshView) -> bool:
            wants.of(permissive)
            return super().has_surroundings_of(before)

    interrupted = Interrupted(**{each.name: getattr(strict, each.name) for each in dataclasses.fields(strict)})
    wants.of(strict)
    assert wants.of(interrupted).proxies == wanted[id(strict)]
    assert wants.of(strict).proxies == wanted[id(strict)]
    assert wants.of(permissive).proxies == wanted[id(permissive)]
