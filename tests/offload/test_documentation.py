"""The commands of docs/start/daemon.md run as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.offload.daemon_process import ROOT, environment

PAGE = ROOT / "docs" / "start" / "daemon.md"


@pytest.mark.slow(seconds=14)
@pytest.mark.skipif(shutil.which("openssl") is None or shutil.which("curl") is None, reason="needs openssl and curl")
def test_every_command_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    program = tmp_path / "bin" / "offload"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m offload "$@"\n')
    program.chmod(0o755)
    port = "19464"  # another than the default: a daemon may run on this machine
    script = "set -euxo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n" + "".join(blocks)
    ran = subprocess.run(
        ["bash", "-c", script.replace("127.0.0.1:9464", f"127.0.0.1:{port}")],
        cwd=tmp_path,
        env=environment() | {"PATH": f"{program.parent}:{environment()['PATH']}"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-1000:] + ran.stderr[-3000:]
    assert "verified with the certificate" in ran.stderr
    assert 'offload_operations_total{algorithm="p256",backend=' in ran.stdout
    assert '"identity changed"' in (tmp_path / "try" / "log").read_text()
    assert "log level: info -> debug" in ran.stdout
    assert "tls_offload" in ran.stdout


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()):
        if "://" not in target:
            assert (PAGE.parent / target).exists(), target
