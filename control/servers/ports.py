"""What the control plane serves over gRPC: xDS, and nodes, over TLS; and how a renewed certificate gets there.

grpcio can ask for the certificate at each handshake (`dynamic_ssl_server_credentials`), but frees the old one while
another thread's handshake still uses it (grpc/grpc issue 36693, open): a hundred proxies that connected at once
crashed the process. So a server keeps its certificate for life. A renewed one comes with another server, at the same
ports beside the first (SO_REUSEPORT), which then accepts no more connections; its streams go on.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import structlog

from control.servers.ads import MAX_REQUEST_BYTES
from control.settings import Address

log = structlog.get_logger(__name__)

# Streams that are open when a certificate is renewed end after that; until then proxies and nodes notice nothing.
STREAMS_END_S = 24 * 3600.0

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    # Limit per connection, which needs one or two: streams cost resources before a token is shown.
    ("grpc.max_concurrent_streams", 16),
    # Milliseconds are enough; a connection on which nobody shows a token is closed by servers/doorkeeper.py.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A proxy that vanishes silently is noticed within a minute.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


@dataclass(frozen=True)
class Port:
    """`what` is for people; `credentials` makes them from the certificate that is in force."""

    what: str
    address: Address
    credentials: Callable[[], grpc.ServerCredentials]


class GrpcServer:
    """Started and stopped once. `add_to` gives a server its services; all ports have the same ones."""

    def __init__(self, add_to: Callable[[grpc.aio.Server], None], ports: Sequence[Port], connections: int) -> None:
        """`connections`: limit per port; beyond that they are closed on arrival."""
        self._add_to, self._ports = add_to, ports
        self._options = (*_OPTIONS, ("grpc.max_allowed_incoming_connections", connections))
        self._newest: grpc.aio.Server | None = None
        # Servers with an older certificate, until the last of their streams has ended.
        self._ending: dict[grpc.aio.Server, asyncio.Task[None]] = {}

    async def start(self) -> Sequence[Address]:
        """Returns the real ports where 0 was requested. Raises OSError if an address is unavailable."""
        for port in self._ports:
            _require_free(port)
        self._newest, addresses = await self._serve([port.address for port in self._ports])
        self._ports = [
            Port(port.what, address, port.credentials) for port, address in zip(self._ports, addresses, strict=True)
        ]
        return addresses

    async def _serve(self, wanted: Sequence[Address]) -> tuple[grpc.aio.Server, list[Address]]:
        server, addresses = grpc.aio.server(options=self._options), []
        self._add_to(server)
        for port, address in zip(self._ports, wanted, strict=True):
            try:
                number = server.add_secure_port(str(address), port.credentials())
            except RuntimeError as error:
                raise OSError(f"{port.what} cannot be served at {address}: {error}") from error
            addresses.append(Address(address.host, number))
        await server.start()
        return server, addresses

    async def renew(self) -> None:
        """New connections get the certificate that is in force now. Raises OSError; then the older one stays."""
        older = self._newest
        self._newest, _ = await self._serve([port.address for port in self._ports])
        if older is not None:
            ending = self._ending[older] = asyncio.create_task(older.stop(STREAMS_END_S))
            ending.add_done_callback(lambda _: self._ending.pop(older, None))

    async def stop(self, grace: float) -> None:
        """Streams end within `grace` seconds."""
        servers = [server for server in (self._newest, *self._ending) if server is not None]
        # If a server is stopped twice, the shorter grace applies.
        await asyncio.gather(*(server.stop(grace) for server in servers))


def _require_free(port: Port) -> None:
    """Raises OSError if the port is taken. gRPC would not: with SO_REUSEPORT, which `renew` needs, two control planes
    of one user share a port, and each gets a part of the other's proxies."""
    host = port.address.host
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port.address.port))
        except OSError as error:
            raise OSError(f"{port.what} cannot be served at {port.address}: {error.strerror}") from error
