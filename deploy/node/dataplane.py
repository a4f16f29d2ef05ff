"""Proxies of a mesh: stock Envoys started by `mesh dataplane run`; all their configuration comes by xDS."""

from __future__ import annotations

from pathlib import Path

from deploy.node import envoy
from deploy.node.control_plane import COMMAND, ControlPlane
from deploy.node.envoy import Envoy
from deploy.node.processes import Process, Processes

# The first configuration may have to wait for a certificate of the control plane.
START_SECONDS = 40


def launch(processes: Processes, control_plane: ControlPlane, name: str, admin_port: int, folder: Path) -> Process:
    """Starts `mesh dataplane run` without waiting: several start at once. `folder` gets the bootstrap."""
    token = control_plane.token_file("dataplane", name=name, mesh="default")
    line: list[str | Path] = [*COMMAND, "dataplane", "run", "--name", name, "--token-file", token]
    line += ["--ca-file", control_plane.files.ca, "--control-plane", control_plane.xds]
    line += ["--admin-port", str(admin_port), "--concurrency", "1", "--envoy", envoy.binary()]
    return processes.start(name, [*line, "--runtime-folder", folder])


def wait(process: Process, admin_port: int) -> Envoy:
    """Waits until it serves. NodeError with the end of its log if it does not."""
    admin = f"127.0.0.1:{admin_port}"
    process.wait_until(lambda: envoy.ready(admin), "ready", START_SECONDS)
    return Envoy(process, admin, {})
