"""Documents that are wrong, or of another version, among good ones: whom they hurt while a mesh is under load."""

from __future__ import annotations

import asyncio

from control.kinds import KINDS
from control.model.resource import Resource
from control.model.violation import InvalidResource
from deploy.node.waiting import eventually
from tests.control.another_version import NEW_LOG, write
from tests.control.fleet import Fleet, Load
from tests.faults.mesh_rig import (
    IDENTITY,
    NOBODY,
    NONE_FAILS,
    PERMISSION,
    SETTLE_S,
    backend,
    let_in_without_permission,
    scenario,
)

_FILE = {"path": "/dev/stdout", "format": {"type": "Plain", "plain": "%NO_SUCH_OPERATOR%"}}
_REFUSED_LOG = {"rules": [{"default": {"backends": [{"type": "File", "file": _FILE}]}}]}
HEALTH = """
type: MeshHealthCheck
name: health
spec: {to: [{targetRef: {kind: Mesh}, default: {interval: 1s, timeout: 1s, http: {path: /}}}]}
"""
UNUSABLE = """
type: MeshIdentity
name: identity
spec:
  selector: {dataplane: {matchLabels: {}}}
  spiffeID: {trustDomain: one.test}
  provider:
    type: Bundled
    bundled: {ca: {certificate: {type: File, file: {path: /nonexistent/ca.pem}},
                   privateKey: {type: File, file: {path: /nonexistent/ca-key.pem}}}}
"""


async def _refused_log(there: Fleet, load: Load) -> tuple[int, int]:
    """A request that is let in once the permission is gone counts as one that failed."""
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    await asyncio.sleep(SETTLE_S)
    await _put_refused_log(there)
    return await let_in_without_permission(there, load)


async def _put_refused_log(there: Fleet) -> None:
    """Past the validation, which does not let this in: a newer Envoy may refuse what we know nothing of."""
    kind = KINDS.of_type("MeshAccessLog")
    assert kind is not None
    await there.running.control_plane.changes.put(
        Resource(kind, "default", "refused", kind.spec.model_validate(_REFUSED_LOG))
    )
    quarantines = there.running.control_plane.state.quarantines
    await eventually("the access log is left out", lambda: quarantines.left_out("default", "one"))


async def _another_server(there: Fleet, load: Load) -> None:
    await there.application("three")
    await there.running.apply(backend(there, "three"))
    there.start("three")
    await eventually("the third server is called", lambda: load.texts["three"])
    await asyncio.sleep(SETTLE_S)


async def _refused_log_and_another_server(there: Fleet, load: Load) -> None:
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    await asyncio.sleep(SETTLE_S)
    await _put_refused_log(there)
    await _another_server(there, load)


async def _newer(there: Fleet, load: Load) -> None:
    write(there.running.store, "MeshAccessLog", "newer", NEW_LOG)
    await asyncio.sleep(SETTLE_S)
    await _another_server(there, load)


async def _shadow(there: Fleet, _: Load) -> None:
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    await asyncio.sleep(SETTLE_S)
    denied = PERMISSION % NOBODY
    await there.running.apply(denied.replace("name: all", "name: zz\nlabels: {kuma.io/effect: shadow}"))
    await asyncio.sleep(SETTLE_S)


async def _unusable(there: Fleet, _: Load) -> None:
    try:
        await there.running.apply(UNUSABLE)
    except InvalidResource:
        await asyncio.sleep(SETTLE_S)
    else:
        raise AssertionError("an identity without a CA was taken")


async def _removed(there: Fleet, load: Load) -> tuple[int, int]:
    """A request that is answered by the one that was taken away, which is well, counts as one that failed."""
    await there.running.apply(HEALTH)
    await asyncio.sleep(SETTLE_S)
    await there.running.control_plane.changes.delete("Dataplane", "default", "two")
    await asyncio.sleep(SETTLE_S)
    load.texts.clear()
    await asyncio.sleep(SETTLE_S)
    return load.texts.total(), load.texts["two"]


ALL = (
    scenario(
        "a permission removed while Envoy rejects an access log of the same listener",
        "no request is let in afterwards", "mesh_refused_log", _refused_log,
        "all were let in until the access log was deleted",
    ),
    scenario(
        "a server starts while Envoy rejects an access log",
        f"{NONE_FAILS}; it is called", "mesh_refused_log_at_start", _refused_log_and_another_server,
        "404 from each server that was started again",
    ),
    scenario(
        "a resource of a newer version is stored, and a server starts",
        f"{NONE_FAILS}; it is called", "mesh_newer_version", _newer, "no change and no new stream of the mesh",
    ),
    scenario("a shadow permission that lets nobody in", NONE_FAILS, "mesh_shadow", _shadow, "enforced: all failed"),
    scenario(
        "a MeshIdentity whose CA files do not exist",
        f"it is rejected; {NONE_FAILS}", "mesh_unusable_identity", _unusable, "512 of 600 failed",
    ),
    scenario(
        "a Dataplane is deleted while its health check still passes",
        "no request goes there afterwards", "mesh_removed_endpoint", _removed, "181 of 544 went there",
    ),
)  # fmt: skip
