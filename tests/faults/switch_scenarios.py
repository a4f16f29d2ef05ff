"""A mesh goes over to the daemon's keys and back to Envoy's own TLS, with many new connections all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from deploy.node.waiting import eventually
from tests.conftest import envoy_path
from tests.control.fleet import Load
from tests.control.offloaded_pair import IN_ENVOY, PERMISSION, Pair, Ports, are_in, offloaded, offloaded_pair
from tests.control.scene import until
from tests.faults.mesh_rig import NONE_FAILS, SETTLE_S, read
from tests.faults.rig import Result, Scenario
from tests.offload.daemon_process import DaemonProcess

SWITCHES = 6
Steps = Callable[[Pair, str], Awaitable[None]]


def _scenario(name: str, function: str, steps: Steps, before: str) -> Scenario:
    """`steps` has the two proxies, whose keys are in Envoy at first, and the policy that has them in the daemon."""

    async def play(folder: Path) -> Result:
        binary, ports = envoy_path(), Ports()
        if binary is None:
            raise RuntimeError("the stock Envoy binary is missing: make setup")
        in_daemon = offloaded(DaemonProcess(folder).socket, "p256")
        async with offloaded_pair(folder, read, binary, ports, "---\n" + IN_ENVOY) as pair:
            await pair.control_plane.apply(PERMISSION)
            async with httpx.AsyncClient(timeout=10) as client:
                await until(client, lambda status, _: status == 200, ports.call)
            async with Load(ports.call) as load:
                await steps(pair, in_daemon)
                await load.more(200)
        failed = sum(load.failed.values())
        result = Result(f"mesh: {name}", NONE_FAILS, tried=load.seen["200"] + failed, failed=failed, before=before)
        assert failed == 0, f"{name}: {load.failed}"
        return result

    def run(folder: Path) -> Result:
        return asyncio.run(play(folder))

    run.__name__ = function
    return run


async def _switches(pair: Pair, in_daemon: str) -> None:
    for policy, place in ((in_daemon, True), (IN_ENVOY, False)) * (SWITCHES // 2):
        await pair.control_plane.apply(policy)
        await eventually(policy, lambda wanted=place: are_in(pair.control_plane, wanted))


async def _daemon_is_away(pair: Pair, in_daemon: str) -> None:
    await asyncio.to_thread(pair.daemon.stop)
    await pair.control_plane.apply(in_daemon)
    await asyncio.sleep(2 * SETTLE_S)
    assert are_in(pair.control_plane, offloaded=False), "a proxy went over to a daemon that is not there"


ALL = (
    _scenario(
        f"{SWITCHES} switches between Envoy's own TLS and the daemon", "mesh_switches", _switches,
        "18 of 43,000 failed in 20 switches",
    ),
    _scenario("a switch to a daemon that does not run", "mesh_daemon_is_away", _daemon_is_away, "all failed"),
)  # fmt: skip
