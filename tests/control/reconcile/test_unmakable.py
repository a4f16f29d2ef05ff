"""A policy of which nothing can be made does not keep a proxy from all else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from control.kinds import KINDS
from control.model.resource import Resource
from control.reconcile.control_plane import ControlPlane
from control.rest.explain_proxy import overview
from control.store.database import StoreKey
from control.store.store import Store
from control.xds.encoding.encode import LISTENER, ROUTES
from deploy.node.waiting import eventually
from tests.control.reconcile.test_left_out import ALL

Read = Callable[[str], list[Resource]]

# Validation refuses it, and nobody expects it: a prefix that is not there is to be replaced.
_REWRITE = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}}
ROUTE = {
    "to": [
        {
            "targetRef": {"kind": "MeshService", "labels": {"kuma.io/display-name": "db"}},
            "rules": [{"matches": [{"headers": [{"name": "a", "value": "b"}]}], "default": {"filters": [_REWRITE]}}],
        }
    ]
}
LOG = "type: MeshAccessLog\nname: log\nspec: {rules: [{default: {backends: [{type: File, file: {path: /dev/%s}}]}}]}"


@pytest.fixture
async def control_plane(tmp_path: Path, read_resources: Read) -> AsyncIterator[ControlPlane]:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    control_plane = ControlPlane(store)
    http = ALL.replace(
        "ports: [{port: 80, targetPort: 8080}]", "ports: [{port: 80, targetPort: 8080, appProtocol: http}]"
    )
    await control_plane.changes.put_all(read_resources(http + LOG % "stdout"))
    running = asyncio.create_task(control_plane.run())
    yield control_plane
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()


async def test_the_rest_goes_on(control_plane: ControlPlane, read_resources: Read) -> None:
    web = await control_plane.connections.connect("default", "web")
    kind = KINDS.of_type("MeshHTTPRoute")
    assert kind is not None
    await control_plane.changes.put(Resource(kind, "default", "bad", kind.spec.model_validate(ROUTE)))
    await control_plane.changes.put_all(read_resources(LOG % "stderr"))

    def logs() -> bytes:
        assert web.snapshot is not None
        return b"".join(one.any_bytes for one in web.snapshot.of_type(LISTENER).values())

    await eventually("another policy arrives", lambda: b"/dev/stderr" in logs())
    assert web.snapshot is not None
    assert "kri_msvc_default___db_80" in web.snapshot.of_type(ROUTES)
    view = await control_plane.views.view("default")
    dataplane = view.get("Dataplane", "web")
    assert dataplane is not None
    [one] = (await overview(control_plane, view, dataplane))["leftOut"]
    assert (one["type"], one["name"], one["resources"]) == ("MeshHTTPRoute", "bad", ["its configuration"])
    assert "AssertionError" in one["because"]
    # Who comes gets it too, and it counts again when it is mended.
    await control_plane.connections.connect("default", "web")
    del ROUTE["to"][0]["rules"][0]["default"]["filters"]  # type: ignore[index]
    await control_plane.changes.put(Resource(kind, "default", "bad", kind.spec.model_validate(ROUTE)))
    await eventually("it counts again", lambda: not control_plane.state.quarantines.left_out("default", "web"))
