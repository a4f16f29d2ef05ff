"""What operators do on purpose: the next daemon, the next Envoy, one after another and under load."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.node.envoy import HotRestart
from deploy.node.waiting import wait_for
from tests.envoy_ext import node
from tests.envoy_ext.node import EnvoyNode
from tests.faults.rig import SETTLED, Result, Rig, none_failed, rig

UPGRADES = 2


def daemon_upgraded(folder: Path) -> Result:
    with rig(folder) as there:
        for number in range(UPGRADES):
            before = there.daemon
            there.daemon = before.upgrade(number)
            there.daemon.wait_log("serving")
            assert before.wait(60) == 0
            there.load.wait_successes()
    return none_failed(
        there.judge(Result(f"{UPGRADES} upgrades of the daemon (offload serve --take-over)", "no request fails"))
    )


def _hot_restarted(there: Rig, folder: Path, name: str, before: EnvoyNode) -> EnvoyNode:
    """The next epoch of that Envoy, on the ports of the one before, which has ended."""
    config = json.loads((folder / name / "envoy.json").read_text())
    for listener in config["static_resources"]["listeners"]:
        listener["address"]["socket_address"]["port_value"] = before.running.ports[listener["name"]]
    restart = HotRestart(folder / f"{name}.base-id", epoch=1)
    after = node.start_envoy(there.processes, f"{name}-1", folder, before.ca, config, hot_restart=restart)
    assert after.running.ports == before.running.ports
    process = before.running.process
    wait_for("the end of the Envoy before", lambda: not process.running())
    assert process.status == 0, f"Envoy ended with status {process.status}"
    there.processes.stop(process)
    return after


def envoy_hot_restarted(folder: Path) -> Result:
    """The server's Envoy, then the client's: each new one has the module, and its own connection to the daemon."""
    with rig(folder, hot_restart=True) as there:
        there.server = _hot_restarted(there, folder, "server", there.server)
        signed = there.server.stats()["operations_ok"]  # those of the one before are in it
        there.load.wait_successes()
        assert there.server.stats()["operations_ok"] >= signed + SETTLED, "the new one signs"
        there.client = _hot_restarted(there, folder, "client", there.client)
        there.load.wait_successes()
    return none_failed(there.judge(Result("hot restart of both Envoys, one after the other", "no request fails")))


ALL = (daemon_upgraded, envoy_hot_restarted)
