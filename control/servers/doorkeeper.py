"""The door of gRPC's ports. gRPC accepts connections itself, on threads of its own, and neither exposes them nor
bounds them by address; so the doorkeeper inspects this process's sockets, twice a second, and closes some of them.

It closes a connection by `shutdown`, through its own descriptor for the same socket, whose other end it has just
checked: whatever gRPC does meanwhile, no other connection can be hit. What gRPC accepts between two looks is bounded
by `grpc.max_allowed_incoming_connections`. A look costs a few microseconds for each open descriptor.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
import stat
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from control.servers.door import OF_ADDRESS, Door, Peer, Sent

LOOK_S = 0.5
# Errors that mean that no descriptor is left to look with, and say nothing about the connection.
_NONE_LEFT = (errno.EMFILE, errno.ENFILE)


class Ends(NamedTuple):
    """Both ends of one connection. Our port is included: the door is that of two ports, and one peer may use both."""

    peer: Peer
    port: int


class Doorkeeper:
    """`ports`: those of this process behind the door. `told` is called with each connection that was closed.

    Connections of one address and port to several of our ports are one visit, and end together. Of those to one port
    only the first is kept (the others are to other addresses of this host, of which loopback has 16 million), since
    they would all be counted as one.
    """

    def __init__(self, door: Door, ports: Collection[int], told: Callable[[Sent], None]) -> None:
        self._door, self._ports, self._told = door, frozenset(ports), told
        # By inode of the socket; None if it is not a connection to one of the ports.
        self._known: dict[int, Ends | None] = {}

    def look(self) -> None:
        now, known = time.monotonic(), dict[int, Ends | None]()
        there, new = dict[Ends, int](), list[tuple[Ends, int, int]]()
        for name in os.listdir("/proc/self/fd"):
            descriptor = int(name)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISSOCK(found.st_mode):
                    continue
                inode = found.st_ino
                if inode in self._known:
                    ends = known[inode] = self._known[inode]
                    if ends is not None:
                        there[ends] = descriptor
                    continue
                ends = self._ends(descriptor)
            except OSError:  # closed since; or no descriptor is left to look with, and then it is new at the next look
                continue
            if ends is None:
                known[inode] = None
            else:
                new.append((ends, descriptor, inode))
        twins, arrived = list[tuple[Ends, int, int]](), list[Peer]()
        for ends, descriptor, inode in new:
            if known.get(inode) == ends:  # another descriptor of the same socket
                continue
            if ends in there and self._is(ends, there[ends]):
                twins.append((ends, descriptor, inode))
                continue
            known[inode], there[ends] = ends, descriptor
            arrived.append(ends.peer)
        self._known = known
        peers = {ends.peer for ends in there}
        for peer in self._door.peers:
            if peer not in peers:
                self._door.gone(peer)
        for ends, descriptor, inode in twins:
            if self._shut(Sent(ends.peer, OF_ADDRESS), ends, descriptor):
                self._known[inode] = None
        for sent in self._door.overdue(now):
            self._end(sent, there)
        for peer in arrived:
            for sent in self._door.arrived(peer, now):
                self._end(sent, there)

    def _is(self, ends: Ends, descriptor: int) -> bool:
        try:
            return self._ends(descriptor) == ends
        except OSError:
            return True

    def _ends(self, descriptor: int) -> Ends | None:
        """None if it is not a connection to one of the ports. Raises OSError if there is no descriptor to look with."""
        try:
            with _duplicate(descriptor) as connection:
                return self._ends_of(connection)
        except OSError as error:  # closed since, or not connected
            if error.errno in _NONE_LEFT:
                raise
            return None

    def _ends_of(self, one: socket.socket) -> Ends | None:
        """Raises OSError if it is not connected."""
        own = one.getsockname()
        if not isinstance(own, tuple) or own[1] not in self._ports:  # names of other families have other forms
            return None
        return Ends(peer_of(*one.getpeername()[:2]), own[1])

    def _end(self, sent: Sent, there: Mapping[Ends, int]) -> None:
        for port in self._ports:
            ends = Ends(sent.peer, port)
            if ends in there:
                self._shut(sent, ends, there[ends])

    def _shut(self, sent: Sent, ends: Ends, descriptor: int) -> bool:
        try:
            with _duplicate(descriptor) as connection:
                if self._ends_of(connection) == ends:
                    connection.shutdown(socket.SHUT_RDWR)
                    self._told(sent)
                    return True
        except OSError:  # closed since; or no descriptor is left to do it with, and then it is new at the next look
            self._known = {inode: known for inode, known in self._known.items() if known != ends}
        return False


def _duplicate(descriptor: int) -> socket.socket:
    """The family need not be right: there is room for an IPv6 name, and a name contains its family."""
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
    """A normal form, however the address is written."""
    return _one_form(address), port


def peer_of_grpc(text: str) -> Peer:
    """Parses the result of `ServicerContext.peer()`: ipv4:127.0.0.1:5678, ipv6:%5B::1%5D:5678."""
    _, _, rest = unquote(text).partition(":")
    address, _, port = rest.rpartition(":")
    return peer_of(address.strip("[]"), int(port) if port.isdigit() else 0)
