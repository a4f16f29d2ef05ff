from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from control.kinds import KINDS
from control.reconcile.control_plane import ControlPlane
from control.servers.nodes import NodeServer
from control.store.database import StoreKey
from control.store.store import Store
from control.tokens.tokens import Tokens
from tests.control.scene import Read
from tests.control.servers.nodes.world import DATAPLANES, MESH, World


@pytest.fixture
async def world(tmp_path: Path, read_resources: Read) -> AsyncIterator[World]:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    control_plane, tokens, server = ControlPlane(store), Tokens(store), grpc.aio.server()
    nodes = NodeServer(control_plane, tokens)
    nodes.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await control_plane.changes.put_all(read_resources(MESH + DATAPLANES))
    running = asyncio.create_task(control_plane.run())
    world = World(control_plane, tokens, nodes, port, read_resources)
    yield world
    await world.channel.close()
    await server.stop(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()
