"""A stored resource of a newer version hurts nobody else: changes go on, streams begin, and it is shown everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from control.kinds import KINDS
from control.model.resource import Resource
from control.reconcile.control_plane import ControlPlane
from control.reconcile.snapshots import Withheld
from control.rest.app import make_app
from control.rest.explain_proxy import overview
from control.store.database import StoreKey
from control.store.store import Store
from control.tokens.tokens import Tokens
from control.xds.encoding.encode import ENDPOINTS
from deploy.node.waiting import eventually
from tests.control.another_version import NEW_LOG, write

Read = Callable[[str], list[Resource]]

DATAPLANE = """
type: Dataplane
name: {name}
labels: {{app: {name}}}
spec:
  networking:
    address: {address}
    inbound: [{{port: 8080, servicePort: 80, protocol: http}}]
    outbound: [{{port: 3000, backendRef: {{kind: MeshService, name: db, port: 80}}}}]
---
"""
MESH = """
type: Mesh
name: default
---
type: MeshService
name: db
spec: {selector: {dataplaneLabels: {matchLabels: {app: db}}}, ports: [{port: 80, targetPort: 8080}]}
---
"""
ALL = MESH + DATAPLANE.format(name="web", address="10.0.0.1") + DATAPLANE.format(name="db", address="10.0.0.2")


@pytest.fixture
async def control_plane(
    tmp_path: Path, read_resources: Read, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ControlPlane]:
    monkeypatch.setattr("control.reconcile.poll.POLL_S", 0.2)
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    control_plane = ControlPlane(store)
    await control_plane.changes.put_all(read_resources(ALL))
    running = asyncio.create_task(control_plane.run())
    yield control_plane
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()


def count(control_plane: ControlPlane, type_name: str, mesh: str = "default") -> float | None:
    return control_plane.state.metrics.registry.get_sample_value(
        "mesh_resources_left_out", {"mesh": mesh, "type": type_name}
    )


async def test_changes_and_new_streams_go_on(control_plane: ControlPlane, read_resources: Read) -> None:
    web = await control_plane.connections.connect("default", "web")
    write(control_plane.state.store, "MeshAccessLog", "logs", NEW_LOG)
    write(control_plane.state.store, "MeshRateLimit", "limits", {})
    await eventually(
        "it is noticed", lambda: count(control_plane, "MeshAccessLog") == 1 == count(control_plane, "MeshRateLimit")
    )
    # A change reaches who is connected, and who comes gets what there is.
    await control_plane.changes.put_all(read_resources(DATAPLANE.format(name="db", address="10.0.0.9")))

    def endpoints(snapshot: Any) -> bytes:
        return next(iter(snapshot.of_type(ENDPOINTS).values())).any_bytes

    await eventually("it is noticed", lambda: b"10.0.0.9" in endpoints(web.snapshot))
    again = await control_plane.connections.connect("default", "web")
    assert endpoints(again.snapshot) == endpoints(web.snapshot)
    view = await control_plane.views.view("default")
    problems = (await overview(control_plane, view, view.dataplanes[1]))["problems"]
    assert any("MeshAccessLog logs is left out" in problem and "Syslog" in problem for problem in problems)
    await control_plane.changes.delete("MeshAccessLog", "default", "logs")
    await eventually("it is noticed", lambda: count(control_plane, "MeshAccessLog") == 0)


async def test_a_mesh_that_cannot_be_read_is_a_mesh(control_plane: ControlPlane) -> None:
    await control_plane.connections.connect("default", "web")
    write(control_plane.state.store, "Mesh", "default", {"newField": 1}, mesh="")
    await eventually("it is noticed", lambda: count(control_plane, "Mesh", mesh="") == 1)
    assert [view.mesh for view in await control_plane.views.all_views()] == ["default"]
    write(control_plane.state.store, "Mesh", "default", {}, mesh="")
    await eventually("it is noticed", lambda: count(control_plane, "Mesh", mesh="") == 0)


async def test_a_proxy_whose_dataplane_cannot_be_read_keeps_what_it_has(control_plane: ControlPlane) -> None:
    web, db = (
        await control_plane.connections.connect("default", "web"),
        await control_plane.connections.connect("default", "db"),
    )
    before, of_db = web.snapshot, db.snapshot
    write(control_plane.state.store, "Dataplane", "web", {"networking": {"address": "10.0.0.1", "newField": 1}})
    write(control_plane.state.store, "Dataplane", "new", {"networking": {"address": "10.0.0.3"}})
    control_plane.state.pending.mark_changed(["default"])
    await eventually("it is noticed", lambda: count(control_plane, "Dataplane") == 1 and db.snapshot is not of_db)
    assert web.snapshot is before
    assert not web.gone
    with pytest.raises(Withheld, match="newField"):
        await control_plane.connections.connect("default", "web")


@pytest.mark.slow(seconds=2)
async def test_it_is_shown(control_plane: ControlPlane) -> None:
    write(control_plane.state.store, "MeshAccessLog", "logs", NEW_LOG)
    write(control_plane.state.store, "MeshAccessLog", "second", NEW_LOG)
    control_plane.state.pending.mark_changed(["default"])
    await control_plane.views.view("default", fresh=True)
    tokens = Tokens(control_plane.state.store)
    transport = httpx.ASGITransport(make_app(control_plane, tokens, names=["mesh"]))
    headers = {"authorization": f"Bearer {tokens.issue('admin', 600)}"}
    async with httpx.AsyncClient(transport=transport, base_url="https://mesh", headers=headers) as client:
        ready = (await client.get("/ready")).json()
        names = ["default/MeshAccessLog/logs", "default/MeshAccessLog/second"]
        assert ready == {"status": "ready", "leftOut": names}
        page = (await client.get("/meshes/default/meshaccesslogs?size=1")).json()
        assert [item["spec"] for item in page["items"]] == [NEW_LOG]
        assert page["next"] == "logs"
        one = await client.get("/meshes/default/meshaccesslogs/logs")
        assert one.headers["etag"] == '"7"'
        assert one.json()["problem"].startswith("MeshAccessLog logs is left out: this version cannot read it: spec.")
        new = {"rules": [{"default": {"backends": [{"type": "File", "file": {"path": "/dev/stdout"}}]}}]}
        document = {"type": "MeshAccessLog", "name": "logs", "mesh": "default", "spec": new}
        put = await client.put("/meshes/default/meshaccesslogs/logs", json=document, headers={"If-Match": '"7"'})
        assert (put.status_code, put.json()["version"]) == (200, 8)
        assert (await client.delete("/meshes/default/meshaccesslogs/second")).status_code == 200
