"""Snapshots that are made with what is left of the view before are those that would have been made without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.mesh.view import MeshView, view_of
from control.model.identity import Credential
from control.model.resource import Resource
from control.xds.builder import SnapshotBuilder
from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER

Read = Callable[[str], list[Resource]]

DATAPLANE = """
type: Dataplane
name: {name}
labels: {{app: {app}, kuma.io/workload: {workload}, kuma.io/zone: {zone}}}
spec:
  networking:
    address: 10.0.0.{address}
    inbound: [{{port: 8080, protocol: http}}]
    outbound:
      - {{port: 3000, backendRef: {{kind: MeshService, name: backend, port: 80}}}}
      - {{port: 3001, backendRef: {{kind: MeshService, name: db, port: 90}}}}
"""
SERVICE = """
type: MeshService
name: {name}
spec: {{selector: {{dataplaneLabels: {{matchLabels: {{app: {app}}}}}}}, ports: [{port}]}}
"""
IDENTITY = """
type: MeshIdentity
name: identity
spec:
  selector: {dataplane: {matchLabels: {}}}
  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}
"""
OTHERS = {
    "identity": IDENTITY,
    "offload": "type: MeshOffload\nname: all\nspec: {default: {mode: Offload}}\n",
    "ring": """
type: MeshLoadBalancingStrategy
name: ring
spec:
  targetRef: {kind: Dataplane, labels: {app: web}}
  to: [{targetRef: {kind: Mesh}, default: {loadBalancer: {type: RingHash}, localityAwareness: {disabled: true}}}]
""",
    "permission": """
type: MeshTrafficPermission
name: p
spec: {rules: [{default: {allow: [{spiffeID: {type: Exact, value: spiffe://default.default.mesh.local/workload/web}}]}}]}
""",
    "canary": """
type: MeshHTTPRoute
name: canary
spec:
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: backend}}
      rules:
        - matches: [{path: {type: PathPrefix, value: /}}]
          default: {backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: db}, port: 90}]}
""",
}
SERVICES = {
    "backend": ["{port: 80, targetPort: 8080, appProtocol: http}", "{port: 80, targetPort: 8080, appProtocol: tcp}"],
    "db": ["{port: 90, targetPort: 8080, appProtocol: tcp}", "{port: 90, targetPort: 8080, appProtocol: http}"],
}

names = st.sampled_from(["dp-1", "dp-2", "dp-3"])
values = st.fixed_dictionaries(
    {
        "app": st.sampled_from(["web", "backend", "db"]),
        "workload": st.sampled_from(["web", "backend"]),
        "zone": st.sampled_from(["east", "west"]),
        "address": st.integers(1, 3),
    }
)
credentials = st.sampled_from([None, Credential("chain 1", "key 1"), Credential("chain 2", "key 2")])
offered = st.fixed_dictionaries({name: st.none() | st.sampled_from(ports) for name, ports in SERVICES.items()})
# One thing changes in a step: a dataplane (None: it goes), what else there is, or nothing.
dataplane_changes = st.tuples(st.just("dataplane"), names, st.none() | values)
other_changes = st.tuples(st.just("others"), st.sets(st.sampled_from(sorted(OTHERS))), offered)
changes = st.lists(st.tuples(dataplane_changes | dataplane_changes | other_changes, credentials), max_size=8)
beginnings = st.dictionaries(names, values, min_size=3)


class Texts:
    """Resources of one text are one object, as the store gives them."""

    def __init__(self, read: Read) -> None:
        self._read, self._known = read, dict[str, Resource]()

    def __call__(self, text: str) -> Resource:
        if text not in self._known:
            (self._known[text],) = self._read(text)
        return self._known[text]


def resources_of(
    texts: Texts, dataplanes: Mapping[str, Any], others: Iterable[str], offered: Mapping[str, str | None]
) -> list[Resource]:
    found = [texts(DATAPLANE.format(name=name, **values)) for name, values in dataplanes.items()]
    found += [texts(OTHERS[name]) for name in others]
    found += [texts(SERVICE.format(name=name, app=name, port=port)) for name, port in offered.items() if port]
    return found


@pytest.mark.slow(seconds=8)
def test_it_is_what_it_would_be_without_the_view_before(read_resources: Read) -> None:
    texts = Texts(read_resources)

    @settings(max_examples=150, deadline=None)
    @given(beginnings, changes)
    def run(dataplanes: dict[str, Any], changes: Sequence[Any]) -> None:
        others, offered = {"identity"}, {name: ports[0] for name, ports in SERVICES.items()}
        builder = SnapshotBuilder()
        for (what, first, second), credential in [(("dataplane", "dp-1", None), None), *changes]:
            if what == "others":
                others, offered = first, second
            elif second is None:
                dataplanes = {name: values for name, values in dataplanes.items() if name != first}
            else:
                dataplanes = dataplanes | {first: second}
            resources = resources_of(texts, dataplanes, others, offered)
            view = view_of("default", resources)
            for dataplane in view.dataplanes:
                with_it = builder.build(view, dataplane, credential)
                without = SnapshotBuilder().build(view, dataplane, credential)
                assert with_it.problems == without.problems
                assert with_it.resources.keys() == without.resources.keys()
                for type_url, expected in without.resources.items():
                    # Equal resources are one object.
                    assert dict(with_it.of_type(type_url)) == dict(expected)

    run()


@pytest.fixture
def view(read_resources: Read) -> Callable[..., MeshView]:
    texts = Texts(read_resources)

    def make(address: int = 2) -> MeshView:
        values = {"app": "web", "workload": "web", "zone": "east"}
        chosen = {"dp-1": values | {"address": 1}, "dp-2": values | {"app": "backend", "address": address}}
        offered = {name: ports[0] for name, ports in SERVICES.items()}
        return view_of("default", resources_of(texts, chosen, {"identity"}, offered))

    return make


def test_a_change_of_endpoints_makes_nothing_else_anew(view: Callable[..., MeshView]) -> None:
    older, builder = view(), SnapshotBuilder()
    (web, _) = older.dataplanes
    first = builder.build(older, web, None)
    second = builder.build(view(address=3), web, None)
    assert second.of_type(CLUSTER) is first.of_type(CLUSTER)
    assert second.of_type(LISTENER) is first.of_type(LISTENER)
    name = "kri_msvc_default___backend_80"
    assert second.of_type(ENDPOINTS)[name] is not first.of_type(ENDPOINTS)[name]


def test_proxies_share_what_is_the_same(view: Callable[..., MeshView]) -> None:
    made, builder = view(), SnapshotBuilder()
    snapshots = [builder.build(made, dataplane, None) for dataplane in made.dataplanes]
    name = "kri_msvc_default___backend_80"
    for type_url in (CLUSTER, ENDPOINTS):
        assert snapshots[0].of_type(type_url)[name] is snapshots[1].of_type(type_url)[name]
