"""`mesh serve` as a child process, and its API for an administrator."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from control.cli.client import Api, ApiError, Unreachable, segment
from control.cli.resources import path_of
from control.model.resource import Resource
from control.settings import API_PORT, NODES_PORT, XDS_PORT, Files, write_private
from deploy.node.processes import Process, Processes

# Generous, for a machine under load, as at a restart with traffic.
START_SECONDS = 60
COMMAND = (sys.executable, "-c", "from control.cli import main; main()")


class ControlPlane:
    """At an address that survives a restart. `folder` holds its state; it is made private."""

    def __init__(self, processes: Processes, folder: Path, host: str = "127.0.0.1") -> None:
        self._processes, self._host = processes, host
        self.files = Files(folder)
        self.xds = f"{host}:{XDS_PORT}"
        # What `mesh` needs to find it.
        self.environment = {"MESH_DATA": str(folder), "MESH_API": f"https://{host}:{API_PORT}"}
        self.process: Process | None = None
        self._api: Api | None = None

    def start(self) -> None:
        """Raises NodeError with the end of its log if it does not serve."""
        line: list[str | Path] = [*COMMAND, "serve", "--name", self._host, "--xds", self.xds]
        line += ["--api", f"{self._host}:{API_PORT}", "--nodes", f"{self._host}:{NODES_PORT}"]
        self.process = self._processes.start("control-plane", line, self.environment)
        self.process.wait_until(self._serves, "ready", START_SECONDS)

    def _serves(self) -> bool:
        try:
            self.call("GET", "/meshes")
        except (ApiError, Unreachable, OSError):
            self._api = None  # the token may be from the previous process
            return False
        return True

    def kill(self) -> None:
        """Ends it as a crash would."""
        if self.process is not None:
            self._processes.kill(self.process)
        self.process, self._api = None, None

    # ---- administration: what `mesh` does, without a process for each command ----

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Returns the response's JSON. ApiError if it rejects the call."""
        if self._api is None:
            self._api = Api(self.environment)
        return self._api.call(method, path, body)

    def apply(self, resources: Iterable[Resource]) -> None:
        """`mesh apply -f`."""
        for resource in sorted(resources, key=lambda one: one.kind.in_mesh):
            self.call("PUT", path_of(resource.kind, resource.mesh, resource.name), resource.to_data())

    def delete(self, resource: Resource) -> None:
        self.call("DELETE", path_of(resource.kind, resource.mesh, resource.name))

    def token_file(self, kind: str, **wanted: str) -> Path:
        """`mesh generate dataplane-token` or `node-token`, into a file that only this user reads."""
        path = self.files.folder / f"{wanted['name']}.token"
        write_private(path, self.call("POST", f"/tokens/{kind}", wanted)["token"])
        return path

    def overview(self, dataplane: str, mesh: str = "default") -> Mapping[str, Any]:
        """`mesh inspect overview`."""
        found: Mapping[str, Any] = self.call("GET", f"/meshes/{mesh}/dataplanes/{dataplane}/_overview")
        return found

    def access(self, dataplane: str, caller: str, mesh: str = "default") -> Any:
        """`mesh inspect access`: whether each inbound allows the caller, and why."""
        return self.call("GET", f"/meshes/{mesh}/dataplanes/{dataplane}/_access?caller={segment(caller)}")

    def rotation(self, identity: str, action: str | None = None, mesh: str = "default") -> Any:
        """`mesh ca status` or, with an action, `mesh ca rotate`. ApiError if somebody is not ready for the step."""
        path = f"/meshes/{mesh}/meshidentities/{identity}/rotation"
        return self.call("GET", path) if action is None else self.call("POST", path, {"action": action})
