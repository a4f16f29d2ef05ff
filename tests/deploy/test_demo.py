"""The demo itself, small: real daemon, real Envoy, real clients. Its mesh: test_mesh_demo.py."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.envoy


def demo(output: Path, *arguments: str) -> list[str]:
    line = [sys.executable, "-m", "deploy.demo", "--part", "node", "--connections", "100"]
    return [*line, "--output", str(output), *arguments]


def test_succeeds_and_reports(tmp_path: Path) -> None:
    done = subprocess.run(demo(tmp_path / "demo"), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["handshakes"] == 208
    assert report["failures"] == 0
    assert report["operations"] == 208
    assert sum(int(size) * count for size, count in report["batch_size_histogram"].items()) == 208
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert sum(report["backends"].values()) == 208
    assert report["key_found_in_envoy"] is False
    assert report["key_found_in_envoy_control"] is True
    assert report["mtls_handshakes"] >= report["mtls_requests"] > 400
    assert (report["rbac_allowed"], report["rbac_denied"]) == (200, 200)
    assert report["rotations"] == 4
    assert report["failed_during_rotation"] == 0
    assert report["problems"] == []
    assert "not there" in done.stdout


def test_says_what_failed_and_where_the_logs_are(tmp_path: Path) -> None:
    done = subprocess.run(
        demo(tmp_path / "demo"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "ENVOY_BINARY": "/bin/false"},
    )
    assert done.returncode == 1
    assert "envoy ended with status 1" in done.stdout
    assert "envoy.log" in done.stdout


def test_keeps_running_until_it_is_interrupted(tmp_path: Path) -> None:
    log = tmp_path / "output"
    with log.open("w") as output:
        process = subprocess.Popen(demo(tmp_path / "demo", "--keep"), stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 60
        while "try: curl" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        found = re.search(r"try: curl --cacert (\S+) (https://\S+)", log.read_text())
        assert found
        line = ["curl", "--silent", "--cacert", found[1], found[2]]
        assert "Hello" in subprocess.run(line, capture_output=True, text=True, timeout=10, check=True).stdout
        admin = re.search(r"http://(127\.0\.0\.1:\d+)/", log.read_text())
        assert admin
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(30)
    assert status == 0
    again = subprocess.run(line, capture_output=True, timeout=10, check=False)
    assert again.returncode != 0, "Envoy is gone"
    assert not Path(found[1]).exists(), "keys and certificates are gone"
