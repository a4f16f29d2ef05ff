"""Runs `offload` in this process or in one of its own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner, Result

from offload.cli import app
from tests.offload.daemon_process import DaemonProcess, command, environment


def run(*arguments: str | Path, stdin: bytes | None = None, daemon: DaemonProcess | None = None) -> Result:
    sockets = {
        "OFFLOAD_SOCKET": str(daemon.socket) if daemon else None,
        "OFFLOAD_ADMIN_SOCKET": str(daemon.admin_socket) if daemon else None,
    }
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, env=sockets)


@dataclass(frozen=True)
class Ended:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run_process(*arguments: str | Path) -> Ended:
    """For commands that make their process undumpable: not ours, please."""
    ran = subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    return Ended(ran.returncode, ran.stdout, ran.stderr)


def good(result: Result | Ended) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout
