"""Accepts connections for an asyncio server behind a door, and does the TLS handshake with each, in bounded time.

asyncio's own server accepts everything, and logs a trace for each attempt when descriptors run out. Here a connection
without any data yet is a socket and nothing else: the state for TLS is created when its first byte arrives.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from asyncio import sslproto
from collections.abc import Callable

from control.servers.door import OF_ADDRESS, OVERDUE, Door, Peer, Sent, Visit
from control.servers.doorkeeper import peer_of

# Time for the first byte, and again for the handshake, as on gRPC's ports; it takes milliseconds.
HANDSHAKE_S = 10.0
# Time for the other end to close the connection as well.
SHUTDOWN_S = 2.0
# Connections accepted in a row before others get their turn.
AT_ONCE = 64
# Pause before a retry if the system has no descriptor or memory left.
PAUSE_S = 0.5
NO_DESCRIPTOR = "out of file descriptors"
# Size of asyncio's read buffer in each connection; 256 KiB by default, for streams of data. A record has 16.
sslproto.SSLProtocol.max_size = 32 * 1024


class Connection:
    """What a protocol is told about its connection."""

    def __init__(self, listener: Listener, accepted: socket.socket, peer: Peer) -> None:
        self._listener, self.accepted, self.peer = listener, accepted, peer
        self._visit: Visit | None = None
        self._has_ended = False
        # Exactly one of these is set: silent so far, handshake in progress, established.
        self.silence: asyncio.TimerHandle | None = None
        self.handshake: asyncio.Task[None] | None = None
        self.began = False
        self.transport: asyncio.Transport | None = None

    def authenticated(self) -> None:
        """Somebody on it has shown a valid credential; it is no longer a stranger.

        It may have closed while that was checked: then the door would count it for ever.
        """
        if self._visit is None and not self._has_ended:
            self._visit = self._listener.door.welcome(self.peer, time.monotonic())

    def lost(self) -> None:
        self._has_ended = True
        self._listener.lost(self)


class Listener:
    """`make`: the protocol of a connection. `told` is called with each connection that was closed or not accepted."""

    def __init__(
        self,
        listening: socket.socket,
        door: Door,
        context: ssl.SSLContext,
        make: Callable[[Connection], asyncio.Protocol],
        told: Callable[[Sent], None],
    ) -> None:
        self.door = door
        self._socket, self._context, self._make, self._told = listening, context, make, told
        self._loop = asyncio.get_running_loop()
        self._open: dict[Peer, Connection] = {}
        self._resume: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Otherwise the event would persist, and accepting would be retried at once, again and again.
                self._loop.remove_reader(self._socket)
                self._resume = self._loop.call_later(PAUSE_S, self._loop.add_reader, self._socket, self._accept)
                self._told(Sent(("", 0), NO_DESCRIPTOR))
                return
            self._take(accepted, peer_of(*address[:2]))

    def _take(self, accepted: socket.socket, peer: Peer) -> None:
        if peer in self._open:
            # Sent to another address of this host, of which loopback has 16 million: the door would count them as one.
            accepted.close()
            self._told(Sent(peer, OF_ADDRESS))
            return
        accepted.setblocking(False)
        connection = self._open[peer] = Connection(self, accepted, peer)
        connection.silence = self._loop.call_later(HANDSHAKE_S, self._late, connection)
        self._loop.add_reader(accepted, self._speaks, connection)
        for sent in self.door.arrived(peer, time.monotonic()):
            self._told(sent)
            self._end(self._open.pop(sent.peer))

    def _late(self, connection: Connection) -> None:
        self._told(Sent(connection.peer, OVERDUE))
        self._end(connection)
        self.lost(connection)

    def _speaks(self, connection: Connection) -> None:
        self._hear_no_more(connection)
        connection.handshake = self._loop.create_task(self._handshake(connection))

    def _hear_no_more(self, connection: Connection) -> None:
        if connection.silence is not None:
            connection.silence.cancel()
            connection.silence = None
            self._loop.remove_reader(connection.accepted)

    async def _handshake(self, connection: Connection) -> None:
        accepted, connection.began = connection.accepted, True
        try:
            connection.transport, _ = await self._loop.connect_accepted_socket(
                lambda: self._make(connection),
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError:  # including TLS errors: the other end knows what it did
            self.lost(connection)
        except BaseException:
            self.lost(connection)
            raise

    def _end(self, connection: Connection) -> None:
        if connection.transport is not None:
            connection.transport.abort()
        elif connection.began and connection.handshake is not None:
            connection.handshake.cancel()
        else:
            self._hear_no_more(connection)
            if connection.handshake is not None:  # cancelled before its first step, it never gets to the socket
                connection.handshake.cancel()
            connection.accepted.close()

    def lost(self, connection: Connection) -> None:
        if self._open.get(connection.peer) is connection:
            del self._open[connection.peer]
            self.door.gone(connection.peer)

    async def close(self) -> None:
        """Stops accepting; existing connections are left to whoever created their protocols."""
        self._loop.remove_reader(self._socket)
        if self._resume is not None:
            self._resume.cancel()
        unfinished = [connection for connection in self._open.values() if connection.transport is None]
        for connection in unfinished:
            self._end(connection)
            self.lost(connection)
        handshakes = [connection.handshake for connection in unfinished if connection.handshake is not None]
        await asyncio.gather(*handshakes, return_exceptions=True)
        self._socket.close()
