"""Real sockets: the API's listener, the doorkeeper of gRPC's ports, and a control plane with hardly any descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from control.servers import api, listener
from control.servers.ads import SERVICE
from control.servers.descriptors import Wanted
from control.servers.door import OVERDUE, STRANGERS_OF_ADDRESS, Bounds, Door, Sent
from control.servers.doorkeeper import Doorkeeper
from control.servers.process import ServeSettings, Service
from control.settings import Address, Files
from control.tokens.tokens import InvalidToken, Tokens
from deploy.node.waiting import eventually
from tests.control.mesh_process import ControlPlane

LOCAL = Address("127.0.0.1", 0)
LIMIT_S = 60.0


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(ServeSettings(Files(tmp_path), api=LOCAL, xds=LOCAL, nodes=LOCAL))
    await service.start()
    yield service
    await service.stop()


async def connect(
    service: Service, request: bytes = b"", tls: bool = True
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cadata=service.certificate.ca_pem) if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", service.api.port, ssl=context)
    writer.write(request)
    await writer.drain()
    return reader, writer


async def drips(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.1)


async def answer_to(reader: asyncio.StreamReader) -> bytes:
    """All that comes, until the other end closes."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), LIMIT_S)
    return b""


HEAD = b"host: localhost\r\n"
SLOW = {
    "no TLS": (b"", False),
    "no request": (b"", True),
    "headers": (b"GET /healthy HTTP/1.1\r\n" + HEAD + b"x: ", True),
    "a body that nobody waits for": (b"PUT /meshes/a HTTP/1.1\r\n" + HEAD + b"content-length: 1000000\r\n\r\n", True),
    "headers after a request": (b"GET /healthy HTTP/1.1\r\n" + HEAD + b"\r\nGET /healthy HTTP/1.1\r\nx: ", True),
}


@pytest.mark.slow(seconds=8)
@pytest.mark.parametrize("what", list(SLOW))
async def test_a_byte_now_and_then_does_not_keep_a_connection(
    service: Service, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    # Where a request has to come first, there has to be time for it on a slow machine.
    monkeypatch.setattr(api, "HEADERS_S", 8.0 if "body" in what or "after" in what else 0.5)
    monkeypatch.setattr(api, "BODY_S", 0.5)
    monkeypatch.setattr(listener, "HANDSHAKE_S", 0.5 if what == "no TLS" else LIMIT_S)
    request, tls = SLOW[what]
    reader, writer = await connect(service, request, tls)
    dripping = asyncio.create_task(drips(writer)) if request else None
    seen = await answer_to(reader)
    assert seen.count(b"HTTP/1.1 ") == ("body" in what or "after" in what), seen
    assert b" 401 " in seen or "body" not in what
    if dripping is not None:
        dripping.cancel()
    writer.transport.abort()
    await eventually("0 connections", lambda: len(service.fronts.api) == 0)


async def test_an_answer_that_nobody_takes_is_not_kept(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "ANSWER_S", 0.5)
    requests = (b"GET /openapi.json HTTP/1.1\r\n" + HEAD + b"\r\n") * 200
    reader, writer = await connect(service, b"")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(requests)
    await eventually("1 connections", lambda: len(service.fronts.api) == 1)
    await eventually("0 connections", lambda: len(service.fronts.api) == 0)
    writer.transport.abort()
    del reader


async def test_a_large_body_without_credentials_is_answered_and_not_taken(service: Service) -> None:
    reader, writer = await connect(service, b"PUT /meshes/a HTTP/1.1\r\n" + HEAD + b"content-length: 4000000\r\n\r\n")
    assert b" 401 " in await asyncio.wait_for(reader.readline(), LIMIT_S)
    with contextlib.suppress(OSError):
        for _ in range(4_000_000 // 50_000):
            writer.write(b"a" * 50_000)
            await writer.drain()
    await answer_to(reader)
    await eventually("0 connections", lambda: len(service.fronts.api) == 0)
    writer.transport.abort()


async def test_an_administrator_is_no_stranger_and_silent_ones_make_room(service: Service) -> None:
    token = service.tokens.issue("admin", 600)
    request = b"GET /meshes HTTP/1.1\r\n" + HEAD + f"authorization: Bearer {token}\r\n\r\n".encode()
    reader, writer = await connect(service, request)
    assert b" 200 " in await reader.readline()
    assert (len(service.fronts.api), service.fronts.api.strangers) == (1, 0)
    most = service.fronts.bounds["API"].strangers_per_address
    silent = [await connect(service, tls=False) for _ in range(most + 20)]
    await eventually("all strangers that may come", lambda: service.fronts.api.strangers == most)
    assert await answer_to(silent[0][0]) == b""  # the oldest was ended
    writer.write(request)
    assert b"HTTP/1.1 200 " in await asyncio.wait_for(reader.readuntil(b" 200 "), LIMIT_S)
    another, its_writer = await connect(service, request)
    assert b" 200 " in await another.readline()
    for one in (writer, its_writer, *(writer for _, writer in silent)):
        one.transport.abort()
    await eventually("0 connections", lambda: len(service.fronts.api) == 0)


async def test_no_descriptor_is_no_storm(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = 0
    accept = socket.socket.accept

    def fails(_: socket.socket) -> None:
        nonlocal tried
        tried += 1
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(listener, "PAUSE_S", 0.2)
    monkeypatch.setattr(socket.socket, "accept", fails)
    with caplog.at_level(logging.INFO):
        waits = asyncio.create_task(connect(service, b"GET /healthy HTTP/1.1\r\n" + HEAD + b"\r\n"))
        await eventually("3 attempts", lambda: tried >= 3)
    monkeypatch.setattr(socket.socket, "accept", accept)
    reader, writer = await asyncio.wait_for(waits, LIMIT_S)  # it is taken when there is a descriptor again
    assert b" 200 " in await reader.readline()
    assert "Traceback" not in caplog.text
    assert tried < 100
    writer.transport.abort()


@contextlib.contextmanager
def listening(dual: bool = False) -> Iterator[socket.socket]:
    """`dual`: for IPv6 and IPv4 at once, as gRPC listens."""
    family, address = (socket.AF_INET6, "::ffff:127.0.0.1") if dual else (socket.AF_INET, "127.0.0.1")
    with socket.socket(family) as found:
        if dual:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind((address, 0))
        found.listen(100)
        yield found


@pytest.mark.parametrize("dual", [False, True], ids=["IPv4", "IPv6 and IPv4"])
def test_the_doorkeeper_ends_the_oldest_strangers_and_nobody_else(dual: bool) -> None:
    with listening(dual) as ours, listening() as others, contextlib.ExitStack() as stack:
        bounds = Bounds(connections=10, per_address=8, strangers=6, strangers_per_address=3, stranger_s=1000)
        door, told = Door(bounds), list[Sent]()
        keeper = Doorkeeper(door, {ours.getsockname()[1]}, told.append)

        def pair(server: socket.socket) -> tuple[socket.socket, socket.socket]:
            port = server.getsockname()[1]
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S))
            return client, stack.enter_context(server.accept()[0])

        first, known = pair(ours), pair(ours)
        foreign = pair(others)
        keeper.look()
        assert (len(door), told) == (2, [])
        visit = door.welcome(known[0].getsockname(), 0)
        later = [pair(ours) for _ in range(3)]
        keeper.look()
        assert [(sent.peer, sent.reason) for sent in told] == [(first[0].getsockname(), STRANGERS_OF_ADDRESS)]
        assert first[0].recv(1) == b""
        for client, server in (known, foreign, *later):
            server.sendall(b"x")
            assert client.recv(1) == b"x"
        first[1].close()
        later[0][0].close()
        later[0][1].close()
        keeper.look()
        assert (len(door), door.strangers) == (3, 2)
        door.leave(visit, 0)
        assert door.strangers == 3


async def test_an_administrator_who_leaves_while_he_is_looked_at_is_not_counted_for_ever(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, check, asked, goes_on = (
        service.tokens.issue("admin", 600),
        Tokens.check,
        threading.Event(),
        threading.Event(),
    )
    welcomed = threading.Event()
    authenticated = listener.Connection.authenticated

    def slow(*arguments: Any) -> Any:
        asked.set()
        assert goes_on.wait(LIMIT_S)
        return check(*arguments)

    def told(self: listener.Connection) -> None:
        authenticated(self)
        welcomed.set()

    monkeypatch.setattr(Tokens, "check", slow)
    monkeypatch.setattr(listener.Connection, "authenticated", told)
    request = b"GET /meshes HTTP/1.1\r\n" + HEAD + f"authorization: Bearer {token}\r\n\r\n".encode()
    _, writer = await connect(service, request)
    await eventually("the request", asked.is_set)
    writer.transport.abort()
    await eventually("0 connections", lambda: len(service.fronts.api) == 0)
    goes_on.set()
    await eventually("the welcome", welcomed.is_set)
    assert len(service.fronts.api) == 0


async def test_an_administrator_does_not_wait_behind_tokens_of_strangers(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many checks as threads that everybody shares, and more, none of which ends."""
    token, goes_on, asked = service.tokens.issue("admin", 600), threading.Event(), threading.Event()

    def slow(*_: Any) -> Any:
        asked.set()
        goes_on.wait(LIMIT_S)
        raise InvalidToken("no")

    monkeypatch.setattr(Tokens, "check_dataplane", slow)
    credentials = grpc.ssl_channel_credentials(service.certificate.ca_pem.encode())
    async with contextlib.AsyncExitStack() as stack:
        calls = []
        for _ in range(6):
            # Else all of them would share one connection, which has 16 calls.
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.aio.secure_channel(f"localhost:{service.xds.port}", credentials, options)
            await stack.enter_async_context(channel)
            open_stream = channel.stream_stream(f"/{SERVICE}/StreamAggregatedResources")
            calls += [open_stream(iter(()), metadata=[("authorization", "Bearer x")]) for _ in range(10)]
        ended = [asyncio.create_task(call.code()) for call in calls]
        await eventually("the request", asked.is_set)
        await asyncio.sleep(0.5)  # for the others to get there; were they late, this would only be easier
        request = b"GET /meshes HTTP/1.1\r\n" + HEAD + f"authorization: Bearer {token}\r\n\r\n".encode()
        reader, writer = await connect(service, request)
        assert b" 200 " in await asyncio.wait_for(reader.readline(), LIMIT_S / 4)
        goes_on.set()
        assert set(await asyncio.gather(*ended)) == {grpc.StatusCode.UNAUTHENTICATED}
        writer.transport.abort()


@pytest.mark.slow(seconds=3)
async def test_who_shows_nothing_is_ended_and_a_stream_is_not(service: Service) -> None:
    object.__setattr__(service.fronts.bounds["gRPC"], "stranger_s", 2.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.xds.port)
    await eventually("1 connections", lambda: len(service.fronts.grpc) == 1)
    assert await answer_to(reader) == b""
    writer.close()
    turned = service.control_plane.state.metrics.turned_away.labels("gRPC", OVERDUE)
    await eventually("the count", lambda: turned._value.get() == 1)
    # A call that has shown a token counts as long as it goes on.
    with service.fronts.welcome("ipv4:127.0.0.1:1"):
        assert (len(service.fronts.grpc), service.fronts.grpc.strangers) == (1, 0)
    await eventually("0 connections", lambda: len(service.fronts.grpc) == 0)  # there never was such a connection


async def test_grpc_itself_takes_no_more_than_it_is_told(tmp_path: Path) -> None:
    """What comes between two looks."""
    settings = ServeSettings(Files(tmp_path), api=LOCAL, xds=LOCAL, nodes=LOCAL, connections=Wanted(16, 16))
    service = Service(settings)
    await service.start()
    service._tasks[2].cancel()  # no doorkeeper
    there = [await asyncio.open_connection("127.0.0.1", service.xds.port) for _ in range(40)]
    ended = [asyncio.create_task(reader.read()) for reader, _ in there]
    await eventually("24 ended", lambda: sum(task.done() for task in ended) >= 24)
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)
    for _, writer in there:
        writer.transport.abort()
    await service.stop()


@pytest.mark.slow(seconds=6)
def test_hardly_any_descriptors(tmp_path: Path) -> None:
    """What 1,000 silent connections did with the usual 1,024: API, xDS and the store stopped, and the log filled."""
    mesh = ControlPlane(tmp_path)
    command = mesh.command
    mesh.command = lambda nodes=0: ["prlimit", "--nofile=300:300", *command(nodes)]  # type: ignore[method-assign]
    mesh.start()
    with contextlib.ExitStack() as stack:
        for port in (mesh.api, mesh.xds):
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 20, source_address=("127.0.0.2", 0)))
        for _ in range(3):
            mesh.output("apply", "-f", "-", stdin="type: Mesh\nname: default\n")
        credentials = grpc.ssl_channel_credentials((mesh.data / "ca.pem").read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{mesh.xds}", credentials) as channel:
            grpc.channel_ready_future(channel).result(LIMIT_S)
    assert mesh.stop() == 0
    text = (tmp_path / "serve.log").read_text()
    assert "fewer connections than configured" in text
    assert "Traceback" not in text
    assert "File descriptor limit reached" not in text
    assert len(text) < 10_000, text[-3000:]


def send(port: int, data: bytes, context: ssl.SSLContext | None) -> None:
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT_S))
        if context is not None:
            one = stack.enter_context(context.wrap_socket(one, server_hostname="127.0.0.1"))
        one.sendall(data)
        if context is not None:  # else it is no handshake, and ends by itself
            one.shutdown(socket.SHUT_WR)
        one.recv(1000)


@pytest.mark.slow(seconds=5)
def test_noise_is_no_log(tmp_path: Path) -> None:
    """What is no TLS, no HTTP/2 or no HTTP; gRPC itself, uvicorn and asyncio would have a line or a trace for each."""
    mesh = ControlPlane(tmp_path)
    mesh.start()
    log = tmp_path / "serve.log"
    before = log.stat().st_size
    context = ssl.create_default_context(cafile=str(mesh.data / "ca.pem"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    upgrade = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    noise = [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05aaaaa", b"\x15\x03\x01\x00\x02\x02\x28", upgrade]
    for port in (mesh.api, mesh.xds):
        for sent in noise:
            for tls in (False, True):
                for _ in range(20):
                    with contextlib.suppress(OSError):
                        send(port, sent, context if tls else None)
    mesh.output("get", "meshes")
    assert mesh.stop() == 0
    text = log.read_text()[before:]
    assert "Traceback" not in text
    assert len(text) < 4000, text


def test_the_limit_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    script = "import resource; from control.servers.descriptors import raise_limit; a = raise_limit()\n"
    script += "print(a, *resource.getrlimit(resource.RLIMIT_NOFILE))"
    low = min(soft, 256)
    line = ["prlimit", f"--nofile={low}:{hard}", sys.executable, "-c", script]
    shown = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout
    assert shown.split() == [str(hard)] * 3
