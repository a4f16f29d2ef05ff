"""A real `mesh serve` in a process of its own, and the command `mesh` that talks to it."""

from __future__ import annotations

import contextlib
import io
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from control.cli import main

MESH = [sys.executable, "-c", "from control.cli import main; main()"]
ROOT = Path(__file__).parents[2]


# Below those that the kernel gives to outgoing connections, which would take a port between here and its use.
_PORTS = range(12_000, 20_000)
_given: set[int] = set()


def free_port() -> int:
    """One that nobody listens on now, and that this process gives nobody else."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


class ControlPlane:
    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.api, self.xds = free_port(), free_port()
        self.environment = {**os.environ, "MESH_DATA": str(self.data), "MESH_API": f"https://127.0.0.1:{self.api}"}
        self.hosts: dict[str, str] = {}  # by option; 127.0.0.1 where none is named
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, nodes: int = 0) -> None:
        command = self.command(nodes)
        with (self.folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=log, stderr=log)
        for _ in range(300):
            if self.run("get", "meshes").returncode == 0:
                return
            assert self.process.poll() is None, (self.folder / "serve.log").read_text()
            time.sleep(0.1)
        raise AssertionError((self.folder / "serve.log").read_text())

    def command(self, nodes: int = 0) -> list[str]:
        where = {"--api": self.api, "--xds": self.xds, "--nodes": nodes}
        addresses = {name: f"{self.hosts.get(name, '127.0.0.1')}:{port}" for name, port in where.items()}
        return [*MESH, "serve", *(part for pair in addresses.items() for part in pair)]

    def serve_to_its_end(self) -> subprocess.CompletedProcess[str]:
        """Where it is expected not to start."""
        return subprocess.run(
            self.command(), env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=60
        )

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """In this process: a new one for each command would take most of the test's time."""
        stdin = io.TextIOWrapper(io.BytesIO(more.pop("stdin", "").encode()))
        out, err, code = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            for name, value in {**self.environment, **more}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["mesh", *arguments])
            patch.setattr(sys, "stdin", stdin)
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def output(self, *arguments: str, **more: str) -> str:
        done = self.run(*arguments, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout
