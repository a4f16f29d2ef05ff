from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc

from control.kinds import KINDS
from control.reconcile.control_plane import ControlPlane
from control.servers.ads import DiscoveryServer
from control.store.database import StoreKey
from control.store.store import Store
from control.tokens.tokens import Tokens
from tests.control.servers.ads.world import MESH, Read, World


@pytest.fixture
async def world(tmp_path: Path, read_resources: Read) -> AsyncIterator[World]:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    control_plane, tokens = ControlPlane(store), Tokens(store)
    server = grpc.aio.server()
    DiscoveryServer(control_plane, tokens).add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    running = asyncio.create_task(control_plane.run())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        world = World(control_plane, tokens, ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel), read_resources)
        await world.apply(MESH)
        yield world
    await server.stop(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()
