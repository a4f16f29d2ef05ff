"""Identities, TLS modes, permissions and proxies of a mesh come, change and go under load."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.control.fleet import Fleet, Load
from tests.faults.mesh_rig import (
    IDENTITY,
    NONE_FAILS,
    OFFLINE_AFTER_S,
    SETTLE_S,
    backend,
    let_in_without_permission,
    scenario,
)


async def _identities(there: Fleet, _: Load) -> None:
    for domain, path in (("one.test", "workload"), ("one.test", "sa"), ("two.test", "sa")):
        await there.running.apply(IDENTITY % (domain, path))
        await asyncio.sleep(SETTLE_S)
    await there.running.control_plane.changes.delete("MeshIdentity", "default", "identity")
    await asyncio.sleep(SETTLE_S)


async def _late(there: Fleet, _: Load) -> None:
    """What one of the two is given comes to it three seconds later."""
    [proxy] = there.running.control_plane.state.proxies.named("default", "two")
    offer, held = proxy.offer, list[Any]()

    def later(*given: Any) -> None:
        if hasattr(proxy, "claims"):
            proxy.claims.offer(given[0].facts)
        held[:] = given

    setattr(proxy, "offer", later)  # noqa: B010
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    await asyncio.sleep(SETTLE_S)
    setattr(proxy, "offer", offer)  # noqa: B010
    offer(*held)
    await asyncio.sleep(SETTLE_S)


async def _label(there: Fleet, _: Load) -> None:
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    await asyncio.sleep(SETTLE_S)
    await there.application("three")
    await there.running.apply(backend(there, "three", "zone: default"))
    there.start("three")
    await asyncio.sleep(2 * SETTLE_S)


async def _modes(there: Fleet, _: Load) -> None:
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    for mode in ("Permissive", "Strict", "Permissive", "Strict"):
        await there.running.apply(f"type: MeshTLS\nname: mode\nspec: {{rules: [{{default: {{mode: {mode}}}}}]}}")
        await asyncio.sleep(SETTLE_S)


async def _killed(there: Fleet, load: Load) -> None:
    """Counted from the end of the grace time on."""
    there.kill("two")
    await asyncio.sleep(OFFLINE_AFTER_S + SETTLE_S)
    load.seen.clear()
    await asyncio.sleep(2 * SETTLE_S)


async def _permission(there: Fleet, load: Load) -> tuple[int, int]:
    """A request that is let in counts as one that failed."""
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    await asyncio.sleep(SETTLE_S)
    return await let_in_without_permission(there, load)


ALL = (
    scenario(
        "identities are added, change path and trust domain, and are removed",
        NONE_FAILS, "mesh_identities", _identities, "264 failed at another trust domain alone",
    ),
    scenario(
        "one of two servers gets its identity 3 s late",
        NONE_FAILS, "mesh_server_is_late", _late, "a third failed while one of three was late",
    ),
    scenario("MeshTLS Permissive and Strict in turn", NONE_FAILS, "mesh_tls_modes", _modes, ""),
    scenario(
        "a third server, without the label of its identity",
        NONE_FAILS, "mesh_label_is_missing", _label, "466 of 466 failed",
    ),
    scenario(
        "a proxy killed, from --offline-after (2 s) on",
        NONE_FAILS, "mesh_proxy_is_killed", _killed, "a third failed, until its Dataplane was deleted",
    ),
    scenario(
        "a permission removed",
        "no request is let in afterwards", "mesh_permission_ends", _permission,
        "one more was let in on each open connection, minutes later",
    ),
)  # fmt: skip
