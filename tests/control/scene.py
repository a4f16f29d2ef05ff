"""The control plane in this process, and calls to applications: what the tests with real Envoys share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx

from control.kinds import KINDS
from control.mesh.evidence import OFFLINE_AFTER_S
from control.model.resource import Resource
from control.own_certificates.serving import ServingCertificate
from control.reconcile.control_plane import ControlPlane
from control.servers.ads import DiscoveryServer
from control.servers.nodes import NodeServer
from control.store.database import StoreKey
from control.store.store import Store
from control.tokens.tokens import Tokens
from control.xds.render.bootstrap import ControlPlaneAddress, ProxyIdentity, bootstrap

Read = Callable[[str], list[Resource]]


class Running:
    """The control plane, at an address that stays the same over a restart."""

    def __init__(self, folder: Path, read: Read) -> None:
        self.folder, self.read, self.port = folder, read, 0
        # Seconds by which the clock that certificates go by is ahead.
        self.ahead = 0.0
        self.offline_after = OFFLINE_AFTER_S

    async def start(self) -> None:
        self.store = Store(f"sqlite:///{self.folder}/mesh.db", StoreKey(file=self.folder / "key"), KINDS)
        self.control_plane = ControlPlane(self.store, clock=self._now, offline_after=self.offline_after)
        self.tokens = Tokens(self.store)
        self.certificate = ServingCertificate(self.store, ["127.0.0.1"])
        self.server = grpc.aio.server()
        DiscoveryServer(self.control_plane, self.tokens).add_to(self.server)
        self.nodes = NodeServer(self.control_plane, self.tokens)
        self.nodes.add_to(self.server)
        self.port = self.server.add_secure_port(f"127.0.0.1:{self.port}", self.certificate.grpc_credentials())
        await self.server.start()
        self.task = asyncio.create_task(self.control_plane.run())

    def _now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    async def stop(self) -> None:
        await self.server.stop(0)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.store.close()

    async def apply(self, text: str) -> None:
        await self.control_plane.changes.put_all(self.read(text))

    def token_file(self, name: str) -> Path:
        """Of a proxy."""
        return self.folder / f"{name}.token"

    def bootstrap(self, name: str, admin: int, delta: bool) -> dict[str, Any]:
        self.token_file(name).write_text(self.tokens.issue("dataplane", 600, "default", name=name))
        proxy = ProxyIdentity("default", name, self.token_file(name))
        address = ControlPlaneAddress("127.0.0.1", self.port, self.certificate.ca_pem)
        return bootstrap(proxy, address, admin, delta)


async def answer(client: httpx.AsyncClient, port: int) -> tuple[int, str]:
    try:
        response = await client.get(f"http://127.0.0.1:{port}/")
    except httpx.TransportError as error:
        return 0, repr(error)
    return response.status_code, response.text


async def until(client: httpx.AsyncClient, wanted: Callable[[int, str], bool], port: int) -> str:
    """Configuration takes a moment to arrive; returns the first answer that is wanted."""
    last: tuple[int, str] = (0, "")
    for _ in range(300):
        last = await answer(client, port)
        if wanted(*last):
            return last[1]
        await asyncio.sleep(0.1)
    raise AssertionError(f"the last answer was {last}")
