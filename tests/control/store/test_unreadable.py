"""What a newer version stored: it is left out, named and counted, and everything else goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from control.kinds import KINDS
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import MeshView, view_of
from control.model.resource import Resource
from control.model.unreadable import Unreadable
from control.policies.meshtrafficpermission.generate import decide
from control.store.database import StoreKey
from control.store.errors import IncompatibleStore
from control.store.store import Store
from control.xds.render.inbounds import permission_entries
from tests.control.another_version import NEW_LOG, write

Read = Callable[[str], list[Resource]]

WEB = "spiffe://default.default.mesh.local/workload/web"
MESH = """
type: Mesh
name: default
---
type: Dataplane
name: web-1
labels: {app: web, kuma.io/workload: web}
spec: {networking: {address: 10.0.0.1, inbound: [{port: 80, servicePort: 8080, protocol: http}]}}
---
type: MeshAccessLog
name: logs
spec: {rules: [{default: {backends: [{type: File, file: {path: /dev/stdout}}]}}]}
---
type: MeshIdentity
name: identity
spec: {selector: {dataplane: {matchLabels: {}}}, provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}}
"""


@pytest.fixture
def store(tmp_path: Path, read_resources: Read) -> Store:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    store.put_all(read_resources(MESH))
    return store


def view_in(store: Store, before: MeshView | None = None) -> MeshView:
    known: Sequence[Resource | Unreadable] = (*before.resources, *before.unreadable) if before is not None else ()
    content = store.read_mesh("default", {one.key: one for one in known})
    return view_of("default", content.resources, unreadable=content.unreadable)


def test_an_unknown_field_and_an_unknown_type_are_left_out_and_named(store: Store, read_resources: Read) -> None:
    write(store, "MeshAccessLog", "logs", NEW_LOG)
    write(store, "MeshRateLimit", "limits", {"anything": 1})
    found = view_in(store)
    assert [one.key[::2] for one in found.unreadable] == [("MeshAccessLog", "logs"), ("MeshRateLimit", "limits")]
    assert "backends[0].type: must be File; got 'Syslog'" in found.unreadable[0].message
    assert "MeshRateLimit is not known" in found.unreadable[1].message
    assert [(r.kind.type, r.name) for r in found.resources] == [("Dataplane", "web-1"), ("MeshIdentity", "identity")]
    # Nothing of it is lost, it is told apart in a list, and what is asked for by name says why it is nothing.
    [one] = store.read("MeshAccessLog")
    assert isinstance(one, Unreadable)
    assert (one.to_data()["spec"], one.version) == (NEW_LOG, 7)
    assert store.list("MeshAccessLog") == []
    with pytest.raises(IncompatibleStore, match="MeshAccessLog 'logs' in mesh 'default'"):
        store.get("MeshAccessLog", "default", "logs")
    # This version may write it, and delete it.
    [log] = [r for r in read_resources(MESH) if r.kind.type == "MeshAccessLog"]
    assert store.put(log).version == 8
    assert [one.type for one in view_in(store, found).unreadable] == ["MeshRateLimit"]
    write(store, "MeshAccessLog", "logs", NEW_LOG)
    store.delete("MeshAccessLog", "default", "logs")
    assert [one.type for one in view_in(store).unreadable] == ["MeshRateLimit"]


def test_what_is_unreadable_is_read_once(store: Store) -> None:
    write(store, "MeshAccessLog", "logs", NEW_LOG)
    write(store, "MeshIdentity", "identity", IDENTITY)
    first = view_in(store)
    second = view_in(store, first)
    assert list(map(id, second.unreadable)) == list(map(id, first.unreadable))
    assert list(map(id, second.resources)) == list(map(id, first.resources))
    # What was made of the view before holds while it stays as it is.
    assert second.has_surroundings_of(first)
    write(store, "MeshAccessLog", "logs2", NEW_LOG)
    assert not view_in(store, first).has_surroundings_of(first)


IDENTITY = {
    "selector": {"dataplane": {"matchLabels": {}}},
    "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": True}, "newField": 1}},
}


def test_an_identity_with_an_unknown_field_stays_in_force(store: Store) -> None:
    """Without it the mesh would take plaintext from everybody."""
    write(store, "MeshIdentity", "identity", IDENTITY)
    found = view_in(store)
    web = found.dataplanes[0]
    assert found.identity_of(web) is not None
    assert found.withheld("web-1") is None
    assert store.get("MeshIdentity", "default", "identity").name == "identity"
    assert "newField" in found.unreadable[0].message


@pytest.mark.parametrize(
    ("spec", "is_withheld"),
    [
        ({**IDENTITY, "provider": {"type": "Spire"}}, True),
        ({**IDENTITY, "spiffeID": {"newPath": "/a"}}, True),
        ({**IDENTITY, "selector": {"dataplane": {"matchExpressions": []}}}, True),
        ({**IDENTITY, "selector": {"dataplane": {"matchLabels": {"app": "db"}}}, "provider": {"type": "Spire"}}, False),
    ],
)
def test_who_it_cannot_say_who_it_is_gets_nothing_new(store: Store, spec: object, is_withheld: bool) -> None:
    write(store, "MeshIdentity", "identity", spec)
    assert (view_in(store).withheld("web-1") is not None) == is_withheld


def test_a_dataplane_that_cannot_be_read_gets_nothing_new(store: Store) -> None:
    write(store, "Dataplane", "web-1", {"networking": {"address": "10.0.0.1", "newField": 1}})
    assert "newField" in (view_in(store).withheld("web-1") or "")


def _match(value: str = WEB, **more: object) -> dict[str, Any]:
    return {"spiffeID": {"type": "Exact", "value": value}, **more}


EVERYBODY, NOBODY = (True, True), (False, False)


@pytest.mark.parametrize(
    ("rules", "more", "denied"),
    [
        # (web, another) who would be let in by the permission for all
        ([{"default": {"deny": [_match()]}, "newField": 1}], {}, (True, False)),
        ([{"default": {"deny": [_match(method="GET")]}}], {}, (True, False)),
        ([{"default": {"deny": [{"workload": "web"}]}}], {}, EVERYBODY),
        ([{"default": {"deny": [{"spiffeID": {"type": "Regex", "value": "x"}}]}}], {}, EVERYBODY),
        ([{"default": {"denyUnlessMfa": [_match()]}}], {}, EVERYBODY),
        ([{"default": {"deny": [_match()]}}], {"targetRef": {"kind": "Fleet"}}, (True, False)),
        (
            [{"default": {"deny": [_match()]}}],
            {"targetRef": {"kind": "Dataplane", "labels": {"app": "db"}}, "x": 1},
            NOBODY,
        ),
        ([{"default": {"allow": [_match(method="GET")], "allowWithShadowDeny": []}}], {}, NOBODY),
    ],
)
def test_denials_stay_in_force(
    store: Store, read_resources: Read, rules: object, more: dict[str, object], denied: tuple[bool, bool]
) -> None:
    other = WEB.replace("web", "other")
    allow = f"allow: [{{spiffeID: {{type: Exact, value: {WEB}}}}}, {{spiffeID: {{type: Exact, value: {other}}}}}]"
    store.put_all(
        read_resources(f"type: MeshTrafficPermission\nname: all\nspec: {{rules: [{{default: {{{allow}}}}}]}}")
    )
    write(store, "MeshTrafficPermission", "newer", {"rules": rules, **more})
    found = view_in(store)
    web = found.dataplanes[0]
    entries = permission_entries(ProxyPolicies(found, web), web.spec.networking.inbound[0])
    assert tuple(not decide(entries, caller)[0] for caller in (WEB, other)) == denied
    assert [one.name for one in found.unreadable] == ["newer"]


def test_a_permission_that_cannot_be_read_allows_nobody(store: Store) -> None:
    write(store, "MeshTrafficPermission", "newer", {"rules": [{"default": {"allow": [_match(method="GET")]}}]})
    found = view_in(store)
    web = found.dataplanes[0]
    entries = permission_entries(ProxyPolicies(found, web), web.spec.networking.inbound[0])
    assert decide(entries, WEB)[0] is False


@pytest.mark.parametrize(
    ("spec", "mode"),
    [
        ({"rules": [{"default": {"mode": "Permissive", "newField": 1}}]}, "Permissive"),
        ({"rules": [{"default": {"mode": "Paranoid"}}]}, None),
        ({"rules": [{"default": {"mode": "Permissive"}}], "targetRef": {"kind": "Fleet"}}, "Strict"),
        ({"rules": {}}, "Strict"),
    ],
)
def test_plaintext_is_not_let_in_by_what_cannot_be_read(store: Store, spec: object, mode: str | None) -> None:
    write(store, "MeshTLS", "tls", spec)
    [kept] = store.list("MeshTLS")
    assert [rule.default.mode for rule in kept.spec.rules] == [mode]


def test_keys_do_not_move_by_what_cannot_be_read(store: Store) -> None:
    write(store, "MeshOffload", "all", {"default": {"mode": "Offload", "keyType": "mldsa44", "newField": 1}})
    found = view_in(store)
    assert ProxyPolicies(found, found.dataplanes[0]).offload.mode == "Offload"
