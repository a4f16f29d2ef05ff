"""Every metric of the control plane, as Prometheus reads it, after something has happened that moves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from control.ca import authority
from control.ca.rotation import Event
from control.kinds import KINDS
from control.metrics import Metrics
from control.model.resource import Resource
from control.reconcile.control_plane import ControlPlane
from control.store.database import StoreKey
from control.store.store import Store
from tests.control.resources import MESH_WITH_IDENTITY

Read = Callable[[str], list[Resource]]

MESH = (
    MESH_WITH_IDENTITY
    + """---
type: Dataplane
name: web-1
labels: {kuma.io/workload: web}
spec: {networking: {address: 10.0.0.1}}
"""
)


def values(metrics: Metrics) -> dict[str, float]:
    """By name and labels: name{a=b}."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()) if key != "le")
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.mark.slow(seconds=2)
async def test_what_prometheus_reads(tmp_path: Path, read_resources: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS, metrics.observe_store)
    control_plane = ControlPlane(store, metrics=metrics)
    running = asyncio.create_task(control_plane.run())

    async def until(wanted: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        for _ in range(200):
            if wanted(found := values(metrics)):
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(found)

    await control_plane.changes.put_all(read_resources(MESH))
    generation = store.generation()
    found = await until(lambda now: now["mesh_config_generation"] == generation and now["mesh_push_seconds_count"] > 0)
    assert found["mesh_store_up"] == 1
    for operation in ("put", "list", "generation", "probe", "put_secret"):
        assert found[f"mesh_store_seconds_count{{operation={operation}}}"] > 0, operation
    proxy = await control_plane.connections.connect("default", "web-1")
    found = values(metrics)
    assert (found["mesh_connected_proxies{mesh=default}"], found["mesh_snapshot_build_seconds_count"] > 0) == (1, True)
    control_plane.connections.disconnect(proxy)
    assert values(metrics)["mesh_connected_proxies{mesh=default}"] == 0

    # The end of a CA follows its rotation, and goes with what it is of.
    end = "mesh_certificate_expiry_timestamp_seconds{certificate=default/identity}"
    before = values(metrics)[end]
    identity = store.get("MeshIdentity", "default", "identity")
    await control_plane.changes.delete("Dataplane", "default", "web-1")
    monkeypatch.setattr(authority, "AUTHORITY_LIFETIME", authority.AUTHORITY_LIFETIME + timedelta(days=100))
    await control_plane.rotations.rotate(identity, Event.BEGIN)
    assert values(metrics)[end] == before, "the old one signs as yet"
    await control_plane.rotations.rotate(identity, Event.DISTRIBUTED)
    assert values(metrics)[end] == pytest.approx(before + 100 * 24 * 3600, abs=60)
    await control_plane.changes.delete("Mesh", "", "default")
    assert end not in values(metrics)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()
