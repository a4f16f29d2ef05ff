"""Tokens of running proxies and nodes: renewed without a restart, shown nowhere, and void at once when revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from control.rest import explain_proxy
from deploy.node.waiting import eventually
from offload.v1 import node_pb2, node_pb2_grpc
from tests.control.live_mesh import Live, live
from tests.control.scene import Read, Running

pytestmark = pytest.mark.envoy


@pytest.fixture
async def mesh(tmp_path: Path, read_resources: Read, envoy_binary: Path) -> AsyncIterator[Live]:
    async with live(tmp_path, read_resources, envoy_binary) as scene:
        scene.start()
        await scene.until(200)
        yield scene


def connected(mesh: Live, name: str) -> bool:
    return bool(mesh.running.control_plane.state.proxies.named("default", name))


async def test_a_token_that_has_ended_is_renewed_in_its_file_without_a_restart(mesh: Live) -> None:
    running = mesh.running
    file = running.token_file("backend-1")
    file.write_text(running.tokens.issue("dataplane", 1, "default", name="backend-1"))
    await asyncio.sleep(1.5)
    await running.stop()
    await running.start()
    await eventually("web-1 to be connected", lambda: connected(mesh, "web-1"))
    assert not connected(mesh, "backend-1"), "its token has ended"
    file.write_text(running.tokens.issue("dataplane", 600, "default", name="backend-1"))
    await eventually("backend-1 to be connected", lambda: connected(mesh, "backend-1"))
    assert set(await mesh.call(20)) == {200}


async def test_a_revoked_token_ends_its_stream_and_no_other(mesh: Live) -> None:
    running = mesh.running
    file = running.token_file("backend-1")
    [stays], [goes] = (running.control_plane.state.proxies.named("default", name) for name in ("web-1", "backend-1"))
    running.tokens.revoke(file.read_text())
    await eventually("backend-1 to be sent away", lambda: not connected(mesh, "backend-1"))
    assert goes.void == "the token was revoked"
    assert running.control_plane.state.proxies.named("default", "web-1") == [stays]
    assert set(await mesh.call(20)) == {200}, "it goes on with what it has"
    file.write_text(running.tokens.issue("dataplane", 600, "default", name="backend-1"))
    await eventually("backend-1 to be connected", lambda: connected(mesh, "backend-1"))


async def test_the_streams_of_a_signing_key_end_with_it(mesh: Live) -> None:
    running = mesh.running
    running.tokens.add_key("dataplane", "default")
    running.token_file("web-1").write_text(running.tokens.issue("dataplane", 600, "default", name="web-1"))
    running.tokens.remove_key("1", "dataplane", "default")
    await eventually("backend-1 to be sent away", lambda: not connected(mesh, "backend-1"))
    await eventually("web-1 to be connected", lambda: connected(mesh, "web-1"))


async def test_no_dump_shows_the_token_and_inspect_shows_its_end(mesh: Live) -> None:
    token = mesh.running.token_file("web-1").read_text()
    dump = (await mesh.client.get(f"http://127.0.0.1:{mesh.ports.web_admin}/config_dump?include_eds")).text
    assert "envoy.grpc_credentials.file_based_metadata" in dump
    assert token not in dump
    assert token.split(".")[2] not in dump
    view = await mesh.running.control_plane.views.view("default")
    dataplane = view.get("Dataplane", "web-1")
    assert dataplane is not None
    [connection] = (await explain_proxy.overview(mesh.running.control_plane, view, dataplane))["connections"]
    assert connection["tokenUntil"].startswith("20")


async def test_a_revoked_token_ends_the_stream_of_a_node(tmp_path: Path, read_resources: Read) -> None:
    running = Running(tmp_path, read_resources)
    await running.start()
    try:
        token = running.tokens.issue("node", 600, name="n1")
        credentials = grpc.ssl_channel_credentials(running.certificate.ca_pem.encode())
        async with grpc.aio.secure_channel(f"127.0.0.1:{running.port}", credentials) as channel:
            call: Any = node_pb2_grpc.NodeServiceStub(channel).Connect(metadata=[("authorization", f"Bearer {token}")])
            await call.write(node_pb2.NodeMessage(hello=node_pb2.Hello(daemon_version="1")))
            await asyncio.wait_for(call.read(), 20)
            running.tokens.revoke(token)
            with pytest.raises(grpc.aio.AioRpcError, match="the token was revoked"):
                await asyncio.wait_for(call.read(), 5)
    finally:
        await running.stop()
