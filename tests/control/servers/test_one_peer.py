"""Connections that the door could take for one another, or for none: of one address and port, or not looked at."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

import pytest

from control.servers.door import OF_ADDRESS, Bounds, Door, Sent
from control.servers.doorkeeper import Doorkeeper
from control.servers.process import ServeSettings, Service
from control.settings import Address, Files
from deploy.node.waiting import eventually
from tests.control.servers.test_fronts import LIMIT_S, LOCAL

EVERYWHERE = "0.0.0.0"  # noqa: S104 (that is what is tried)


def twins(stack: contextlib.ExitStack, *to: tuple[str, int]) -> list[socket.socket]:
    """Connections of one address and port, as they may be when each goes to another address or port."""
    found: list[socket.socket] = []
    for address in to:
        one = stack.enter_context(socket.socket())
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.settimeout(LIMIT_S)
        one.bind(found[0].getsockname() if found else ("127.0.0.1", 0))
        one.connect(address)
        found.append(one)
    return found


def is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True


def test_connections_of_one_address_and_port_are_not_counted_as_one() -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((EVERYWHERE, 0))) for _ in range(2)]
        ports = [server.getsockname()[1] for server in servers]
        bounds = Bounds(connections=10, per_address=8, strangers=6, strangers_per_address=2, stranger_s=1000)
        door, told = Door(bounds), list[Sent]()
        keeper = Doorkeeper(door, ports, told.append)
        # At once, and where the first is known already.
        to = [("127.0.0.1", ports[0]), ("127.0.0.1", ports[1]), ("127.0.0.2", ports[0]), ("127.0.0.3", ports[0])]
        both = twins(stack, *to[:3])
        there = [stack.enter_context(server.accept()[0]) for server in (servers[0], servers[1], servers[0])]
        keeper.look()
        assert sum(is_open(one) for one in (both[0], both[2])) == 1
        assert is_open(both[1])
        assert (len(door), [sent.reason for sent in told]) == (1, [OF_ADDRESS])
        keeper.look()
        assert len(told) == 1
        one = twins(stack, to[0])[0]
        there.append(stack.enter_context(servers[0].accept()[0]))
        keeper.look()
        late = stack.enter_context(socket.socket())
        late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        late.bind(one.getsockname())
        late.connect(to[3])
        there.append(stack.enter_context(servers[0].accept()[0]))
        keeper.look()
        assert (is_open(one), is_open(late), len(door), len(told)) == (True, False, 2, 2)
        # A visit of two connections ends with both of them.
        twins(stack, to[0])
        there.append(stack.enter_context(servers[0].accept()[0]))
        keeper.look()
        assert [is_open(one) for one in both] == [False] * 3
        assert is_open(one)


def test_what_could_not_be_looked_at_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        door = Door(Bounds(connections=10, per_address=8, strangers=6, strangers_per_address=3))
        keeper = Doorkeeper(door, {server.getsockname()[1]}, lambda _: None)
        stack.enter_context(socket.create_connection(server.getsockname(), LIMIT_S))
        stack.enter_context(server.accept()[0])

        def none_left(_: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", none_left)
            keeper.look()
        assert len(door) == 0
        keeper.look()
        assert len(door) == 1


@pytest.mark.slow(seconds=2)
async def test_the_api_takes_one_connection_of_an_address_and_port(tmp_path: Path) -> None:
    service = Service(ServeSettings(Files(tmp_path), api=Address(EVERYWHERE, 0), xds=LOCAL, nodes=LOCAL))
    await service.start()
    with contextlib.ExitStack() as stack:
        first, second = twins(stack, *((address, service.api.port) for address in ("127.0.0.1", "127.0.0.2")))
        turned = service.control_plane.state.metrics.turned_away.labels("API", OF_ADDRESS)
        await eventually("the count", lambda: turned._value.get() == 1)
        assert len(service.fronts.api) == 1
        assert is_open(first) != is_open(second)
    await eventually("0 connections", lambda: len(service.fronts.api) == 0)
    await service.stop()
