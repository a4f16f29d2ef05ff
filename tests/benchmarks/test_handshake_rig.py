"""The rig on real parts, with loads that are as short as they can be: every kind of load works on every mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.handshake import results
from benchmarks.handshake.plan import Load, between_envoys, headline, open_loop
from benchmarks.handshake.rig import Rig
from deploy.node.processes import Processes

pytestmark = pytest.mark.envoy
MODES = ("stock", "soft")
LOAD = replace(headline("p256"), concurrency=4)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    logs: Path = tmp_path_factory.mktemp("rig")
    with Processes(logs) as processes:
        yield Rig(processes, logs, MODES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "load",
    [
        LOAD,
        replace(LOAD, tls="1.2"),
        replace(LOAD, mtls=True),
        replace(LOAD, resumed=True),
        replace(LOAD, mtls=True, resumed=True),
        replace(LOAD, tls="1.2", mtls=True, resumed=True),
        replace(between_envoys("p256"), concurrency=4),
        replace(between_envoys("p384", "1.2"), concurrency=4),
        replace(LOAD, key="rsa2048"),
        replace(LOAD, sidecars=2),
    ],
    ids=lambda load: load.name,
)
def test_a_load(rig: Rig, mode: str, load: Load) -> None:
    rig.add_sidecars(load.sidecars)
    if load.two_envoys:
        rig.add_callers()
    cell = results.cell(mode, load, [rig.run(mode, load, 0.4, None)])
    assert cell["handshakes"] > 0
    assert cell["failures_by_reason"] == {}
    assert cell["envoy_cpu_us"] > 0
    if mode == "soft" and not load.resumed:
        assert cell["daemon_cpu_us"] > 0
        assert set(cell["batch_sizes"]) == {str(size) for size in range(1, 9)}


def test_both_ends_of_two_envoys_sign_at_the_daemon_and_both_are_counted(rig: Rig) -> None:
    rig.add_callers()
    load = replace(between_envoys("rsa2048"), concurrency=4)
    one = rig.run("soft", load, 0.4, None)
    assert one.counters is not None
    assert one.counters.answered("rsa2048") == 2 * one.load["handshakes"]
    assert one.caller.cpu_ns > 0
    cell = results.cell("soft", load, [one])
    assert cell["mtls"] is True
    assert 0 < cell["caller_cpu_us"] < cell["envoy_cpu_us"]
    assert cell["total_cpu_us"] == pytest.approx(cell["envoy_cpu_us"] + cell["daemon_cpu_us"], abs=0.1)


def test_an_open_loop_keeps_its_rate(rig: Rig) -> None:
    one = rig.run("soft", open_loop(LOAD, 0.3), 0.5, 100.0)
    assert 20 <= one.load["handshakes"] <= 100
    assert one.counters is not None
    assert one.counters.answered() == one.load["handshakes"]


def test_memory_of_envoy_and_daemon(rig: Rig) -> None:
    assert set(rig.contenders["soft"].memory_kib()) == {"envoy", "daemon"}
    assert rig.contenders["stock"].memory_kib()["envoy"] > 5_000
