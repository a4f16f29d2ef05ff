"""The benchmark of the control plane, small: real control plane, real streams."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.control.mesh import CALLS, SHARED, Mesh


def test_everybody_calls_the_shared_service() -> None:
    mesh = Mesh(50, 20)
    for proxy in range(mesh.proxies):
        called = mesh.calls(proxy)
        assert SHARED in called
        assert len(called) <= CALLS
        assert all(0 <= number < mesh.services for number in called)
    assert len(mesh.documents()) == 3 + 20 + 50


@pytest.mark.long
def test_a_small_run(tmp_path: Path) -> None:
    file = tmp_path / "control.json"
    line = [sys.executable, "-m", "benchmarks.control", "--proxies", "12", "--services", "5", "--json", str(file)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(file.read_text())["runs"]
    assert (run["proxies"], run["services"]) == (12, 5)
    for name in ("connect_s", "change_s", "reconnect_s"):
        assert 0 < run[name] < 180
