"""Pushes: when they happen, and whom they reach."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from control.kinds import KINDS
from control.mesh.view import MeshView
from control.model.resource import Resource
from control.reconcile.control_plane import ControlPlane
from control.reconcile.proxies import Proxy
from control.reconcile.snapshots import BUILDS_AT_ONCE
from control.store.database import StoreKey
from control.store.errors import StoreUnavailable
from control.store.store import Store
from control.xds.encoding.encode import ENDPOINTS
from control.xds.snapshot import Snapshot
from deploy.node.waiting import eventually

Read = Callable[[str], list[Resource]]

DATAPLANE = """
type: Dataplane
name: {name}
labels: {{app: {app}}}
spec:
  networking:
    address: {address}
    inbound: [{{port: 8080, protocol: http}}]
    outbound: [{{port: 3000, backendRef: {{kind: MeshService, name: backend, port: 80}}}}]
"""
MESH = """
type: Mesh
name: default
---
type: MeshService
name: backend
spec: {selector: {dataplaneLabels: {matchLabels: {app: backend}}}, ports: [{port: 80, targetPort: 8080}]}
---
"""
WEB = DATAPLANE.format(name="web-1", app="web", address="10.0.0.1")


def backend(address: str) -> str:
    return DATAPLANE.format(name="backend-1", app="backend", address=address)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.reconcile.poll.POLL_S", 0.2)


def open_store(folder: Path) -> Store:
    return Store(f"sqlite:///{folder}/mesh.db", StoreKey(file=folder / "key"), KINDS)


@pytest.fixture
async def control_plane(tmp_path: Path, read_resources: Read) -> AsyncIterator[ControlPlane]:
    store = open_store(tmp_path)
    control_plane = ControlPlane(store)
    await control_plane.changes.put_all(read_resources(MESH + WEB + "---" + backend("10.0.0.2")))
    running = asyncio.create_task(control_plane.run())
    yield control_plane
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()


def addresses(snapshot: Snapshot | None) -> str:
    assert snapshot is not None
    (resource,) = snapshot.of_type(ENDPOINTS).values()
    return "".join(chr(byte) if chr(byte).isprintable() else " " for byte in resource.any_bytes)


async def until_it_has(proxy: Proxy, address: str) -> None:
    async with asyncio.timeout(20):
        while proxy.snapshot is None or address not in addresses(proxy.snapshot):
            proxy.wake.clear()
            await proxy.wake.wait()


def builds(control_plane: ControlPlane) -> float:
    (metric,) = control_plane.state.metrics.build.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_count"))


@pytest.mark.slow(seconds=2)
async def test_a_change_made_here_is_built_once(control_plane: ControlPlane, read_resources: Read) -> None:
    proxy = await control_plane.connections.connect("default", "web-1")
    await asyncio.sleep(1)
    before = builds(control_plane)
    await control_plane.changes.put_all(read_resources(backend("10.0.0.3")))
    await until_it_has(proxy, "10.0.0.3")
    await asyncio.sleep(1)  # five looks for changes by others
    assert builds(control_plane) == before + 1


@pytest.mark.slow(seconds=2)
async def test_changes_by_others_are_noticed_and_built_once(
    control_plane: ControlPlane, read_resources: Read, tmp_path: Path
) -> None:
    proxy, other = await control_plane.connections.connect("default", "web-1"), open_store(tmp_path)
    await asyncio.sleep(1)
    before = builds(control_plane)
    other.put_all(read_resources(backend("10.0.0.4")))
    await until_it_has(proxy, "10.0.0.4")
    # Something else in the store changes, which is nothing to this mesh.
    other.put_all(read_resources("type: Mesh\nname: another"))
    await asyncio.sleep(1)
    assert builds(control_plane) == before + 1
    other.close()


async def test_who_connects_during_a_push_keeps_the_newer_snapshot(
    control_plane: ControlPlane, read_resources: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own build began with the view before, and takes longer than the push."""
    started, go_on, build = asyncio.Event(), asyncio.Event(), control_plane.snapshots.of

    async def slow(view: MeshView, name: str) -> Snapshot | None:
        built = await build(view, name)
        started.set()
        await go_on.wait()
        return built

    monkeypatch.setattr(control_plane.snapshots, "of", slow)
    connecting = asyncio.create_task(control_plane.connections.connect("default", "web-1"))
    await started.wait()
    [proxy] = control_plane.state.proxies.named("default", "web-1")
    await control_plane.changes.put_all(read_resources(backend("10.0.0.5")))
    await until_it_has(proxy, "10.0.0.5")  # not the first push after the start, which may come between
    go_on.set()
    assert await connecting is proxy
    assert "10.0.0.5" in addresses(proxy.snapshot)


async def test_a_proxy_that_cannot_be_built_does_not_keep_the_others_from_theirs(
    control_plane: ControlPlane, read_resources: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = (
        await control_plane.connections.connect("default", "web-1"),
        await control_plane.connections.connect("default", "backend-1"),
    )
    build = control_plane.snapshots.build

    def broken(view: MeshView, name: str) -> Snapshot | None:
        if name == "backend-1":
            raise RuntimeError("no")
        return build(view, name)

    kept = bad.snapshot
    monkeypatch.setattr(control_plane.snapshots, "build", broken)
    await control_plane.changes.put_all(read_resources(backend("10.0.0.6")))
    await until_it_has(good, "10.0.0.6")
    assert bad.snapshot is kept


async def test_a_deleted_dataplane_and_a_view_that_stays(control_plane: ControlPlane) -> None:
    proxy = await control_plane.connections.connect("default", "backend-1")
    view = await control_plane.views.view("default")
    assert await control_plane.views.view("default", fresh=True) is view
    await control_plane.changes.delete("Dataplane", "default", "backend-1")
    async with asyncio.timeout(20):
        while not proxy.gone:
            proxy.wake.clear()
            await proxy.wake.wait()
    assert (await control_plane.views.view("default")).get("Dataplane", "backend-1") is None


@pytest.mark.slow(seconds=2)
async def test_many_changes_are_one_push_and_builds_are_bounded(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = [await control_plane.connections.connect("default", "web-1") for _ in range(100)]
    await asyncio.sleep(1)
    before, build, now, most, lock = builds(control_plane), control_plane.snapshots.build, 0, 0, threading.Lock()

    def counted(view: MeshView, name: str) -> Snapshot | None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            time.sleep(0.001)
            return build(view, name)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(control_plane.snapshots, "build", counted)
    for proxy in connected:
        proxy.wake.clear()
    for _ in range(20):
        control_plane.state.pending.mark_changed(["default"])
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        for proxy in connected:
            await proxy.wake.wait()
    await asyncio.sleep(0.5)
    assert builds(control_plane) == before + len(connected)
    assert most == BUILDS_AT_ONCE


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("failure", [StoreUnavailable("away"), RuntimeError("unexpected")])
async def test_a_look_that_fails_is_not_the_last(
    control_plane: ControlPlane,
    read_resources: Read,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
) -> None:
    proxy, other, failed = await control_plane.connections.connect("default", "web-1"), open_store(tmp_path), 0
    await asyncio.sleep(1)

    def fails() -> None:
        nonlocal failed
        failed += 1
        if failed < 3:
            raise failure

    monkeypatch.setattr(control_plane.changes, "publish_all", fails)
    other.put_all(read_resources(backend("10.0.0.7")))
    await until_it_has(proxy, "10.0.0.7")
    assert failed >= 3
    other.close()


async def test_a_reader_that_goes_away_lets_nobody_in_before_its_threads_are_done(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a proxy that hangs up while it connects."""
    read, inside, most, go = control_plane.state.store.read_mesh, 0, 0, threading.Event()

    def slow(*arguments: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        go.wait(60)
        inside -= 1
        return read(*arguments)

    monkeypatch.setattr(control_plane.state.store, "read_mesh", slow)
    leaving = asyncio.create_task(control_plane.views.view("default", fresh=True))
    await eventually("the first reader", lambda: inside == 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    staying = asyncio.create_task(control_plane.views.view("default", fresh=True))
    await asyncio.sleep(0.2)  # time to do it wrong
    go.set()
    assert (await staying).dataplanes
    assert most == 1
