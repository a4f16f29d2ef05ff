"""The module's parts and whole connections in a host in miniature (tests/native/module).

MODULE_TESTS names another build of the program; tests/native/module/sanitized.py runs sanitized ones.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.offload.daemon_process import DaemonProcess

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("MODULE_TESTS", ROOT / "build/native/tests/native/module/module_tests"))
CONNECTIONS = 2000


def run(*arguments: str | Path, **environment: str) -> str:
    assert PROGRAM.is_file(), f"{PROGRAM} is not built; build it with: make build"
    done = subprocess.run(
        [PROGRAM, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow(seconds=5)
@pytest.mark.parametrize("environment", [{}, {"TLS_OFFLOAD_KEY_EXCHANGE": "boringssl"}])
def test_units(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run("units", tmp_path, **environment).splitlines()[-1] == "rude_daemons"


@pytest.mark.slow(seconds=3)
@pytest.mark.parametrize("identity", ["web", "old"])
def test_connections(shared_daemon: DaemonProcess, identity: str) -> None:
    """Data both ways in odd pieces, TLS 1.2 and 1.3, and a part dropped at a random moment."""
    assert run("connections", shared_daemon.socket, identity, str(CONNECTIONS)).startswith(f"{CONNECTIONS} connections")


def test_workers_exchange_by_themselves(shared_daemon: DaemonProcess) -> None:
    """Requests and answers without the key client's thread, with it, and when a worker forgets what it promised."""
    assert run("exchanges", shared_daemon.socket).endswith(" operations\n")
