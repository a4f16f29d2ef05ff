"""The door of gRPC's ports. gRPC accepts connections itself, on threads of its own, and neither hands them out nor
bounds them by address; so the doorkeeper looks at this process's sockets, twice a second, and ends those that must go.

It ends a connection by `shutdown`, through a descriptor of its own for the same socket, whose other end it has just
asked for: whatever gRPC does meanwhile, no other connection can be hit. What gRPC lets in between two looks is bounded
by `grpc.max_allowed_incoming_connections`. A look costs a few microseconds for each open descriptor.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import stat
import time
from collections.abc import Callable, Collection, Mapping
from urllib.parse import unquote

from control.servers.door import Door, Peer, Sent

LOOK_S = 0.5
_NEW: Peer = ("", -1)


class Doorkeeper:
    """`ports`: of this process, that are behind the door. `told` is called with each connection that was ended."""

    def __init__(self, door: Door, ports: Collection[int], told: Callable[[Sent], None]) -> None:
        self._door, self._ports, self._told = door, frozenset(ports), told
        # By inode of the socket; None: it is no connection to one of the ports.
        self._known: dict[int, Peer | None] = {}

    def look(self) -> None:
        now, known = time.monotonic(), dict[int, Peer | None]()
        there, new = dict[Peer, int](), list[Peer]()
        for name in os.listdir("/proc/self/fd"):
            descriptor = int(name)
            try:
                found = os.fstat(descriptor)
            except OSError:  # closed since
                continue
            if not stat.S_ISSOCK(found.st_mode):
                continue
            peer = self._known.get(found.st_ino, _NEW)
            if peer is _NEW:
                peer = self._peer(descriptor)
                if peer is not None:
                    new.append(peer)
            known[found.st_ino] = peer
            if peer is not None:
                there[peer] = descriptor
        self._known = known
        for peer in self._door.peers:
            if peer not in there:
                self._door.gone(peer)
        for sent in self._door.overdue(now):
            self._end(sent, there)
        for peer in new:
            for sent in self._door.arrived(peer, now):
                self._end(sent, there)

    def _peer(self, descriptor: int) -> Peer | None:
        try:
            with _duplicate(descriptor) as connection:
                return self._peer_of(connection)
        except OSError:  # closed since, or not connected
            return None

    def _peer_of(self, one: socket.socket) -> Peer | None:
        """Of a connection to one of the ports. OSError where it is none."""
        own = one.getsockname()
        if not isinstance(own, tuple) or own[1] not in self._ports:  # one of another family has a name of another form
            return None
        return peer_of(*one.getpeername()[:2])

    def _end(self, sent: Sent, there: Mapping[Peer, int]) -> None:
        descriptor = there.get(sent.peer)
        if descriptor is None:
            return
        try:
            with _duplicate(descriptor) as connection:
                if self._peer_of(connection) == sent.peer:
                    connection.shutdown(socket.SHUT_RDWR)
                    self._told(sent)
        except OSError:  # closed since; or no descriptor is left to do it with, and then it is new at the next look
            self._known = {inode: peer for inode, peer in self._known.items() if peer != sent.peer}


def _duplicate(descriptor: int) -> socket.socket:
    """Its family is not asked for: there is room for a name of IPv6, and a name says of which family it is."""
    return socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=os.dup(descriptor))


@functools.lru_cache(4096)
def _one_form(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(found)


def peer_of(address: str, port: int) -> Peer:
    """One form for each, however it is written."""
    return _one_form(address), port


def peer_of_grpc(text: str) -> Peer:
    """Of what `ServicerContext.peer()` says: ipv4:127.0.0.1:5678, ipv6:%5B::1%5D:5678."""
    _, _, rest = unquote(text).partition(":")
    address, _, port = rest.rpartition(":")
    return peer_of(address.strip("[]"), int(port) if port.isdigit() else 0)
