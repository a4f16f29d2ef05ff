"""A control plane in this process with real Envoys around it, and loads whose failures are counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from control.cli.dataplane import envoy_arguments
from deploy.demo.mesh.applications import application
from deploy.node.waiting import eventually
from envoy_ext.location import SEARCH_PATH_VARIABLE
from tests.control.mesh_process import free_port
from tests.control.scene import Read, Running, until

ROOT = Path(__file__).parents[2]
SECONDS = 30.0


class Fleet:
    """Envoys by the names of their dataplanes, and the ports that they use."""

    def __init__(self, folder: Path, read: Read, envoy_binary: Path, offline_after: float | None = None) -> None:
        self.folder, self.binary = folder, envoy_binary
        self.running = Running(folder, read)
        if offline_after is not None:
            self.running.offline_after = offline_after
        self.envoys: dict[str, subprocess.Popen[bytes]] = {}
        self._servers: list[asyncio.Server] = []
        self._ports: dict[str, int] = {}

    def port(self, name: str) -> int:
        """The same for a name, whenever it is asked for."""
        return self._ports.setdefault(name, free_port())

    async def application(self, name: str) -> None:
        """That answers HTTP at the port called `<name>-app`."""
        self._servers.append(await application(name, self.port(f"{name}-app")))

    def start(self, name: str, delta: bool = True) -> None:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(self.running.bootstrap(name, self.port(f"{name}-admin"), delta)))
        log = (self.folder / f"{name}.log").open("a")
        environment = dict(os.environ) | {SEARCH_PATH_VARIABLE: str(ROOT / "envoy_ext")}
        command = envoy_arguments(str(self.binary), path, concurrency=1)
        self.envoys[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def kill(self, name: str) -> None:
        envoy = self.envoys.pop(name)
        envoy.kill()
        envoy.wait(30)

    async def stop(self) -> None:
        for envoy in self.envoys.values():
            envoy.terminate()
        for envoy in self.envoys.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(envoy.wait, 15)
            envoy.kill()
        for server in self._servers:
            server.close()
        await self.running.stop()


@contextlib.asynccontextmanager
async def fleet(
    folder: Path, read: Read, envoy_binary: Path, offline_after: float | None = None
) -> AsyncIterator[Fleet]:
    made = Fleet(folder, read, envoy_binary, offline_after)
    await made.running.start()
    try:
        yield made
    finally:
        await made.stop()


class Load:
    """Requests one after the other on `callers` clients, from the first that is answered on; as `async with`."""

    def __init__(self, port: int, callers: int = 2, pause: float = 0.002) -> None:
        self._port, self._url, self._pause = port, f"http://127.0.0.1:{port}/", pause
        self._callers, self._tasks, self._ended = callers, list[asyncio.Task[None]](), False
        self.seen: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()

    async def _call(self) -> None:
        async with httpx.AsyncClient(timeout=10) as client:
            while not self._ended:
                try:
                    response = await client.get(self._url)
                    self.seen[str(response.status_code)] += 1
                    self.texts[response.text.split()[0] if response.text else ""] += 1
                    if response.status_code != 200:
                        self.seen[f"{response.status_code} {response.text[:150]}"] += 1
                except httpx.TransportError as error:
                    self.seen[repr(error)] += 1
                await asyncio.sleep(self._pause)

    async def __aenter__(self) -> Load:
        async with httpx.AsyncClient(timeout=10) as client:
            await until(client, lambda status, _: status == 200, self._port)
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        await asyncio.gather(*self._tasks)

    async def more(self, requests: int) -> None:
        """Waits until so many more have been answered well."""
        wanted = self.seen["200"] + requests
        await eventually(f"{requests} more requests answered: {self.seen}", lambda: self.seen["200"] >= wanted)

    @property
    def failed(self) -> dict[str, int]:
        return {what: count for what, count in self.seen.items() if what != "200"}
