"""Serves metrics over HTTP with bounds: one thread, few connections, short patience, and a share of one core.

The process signs handshakes; whoever reaches the metrics port must not be able to slow that down. So:

- A fixed number of connections. When it is reached, the least recently active one makes room, so that a scraper always
  gets in.
- A peer that does not send a request, or does not read its response, is disconnected after a few seconds.
- The thread counts the processor time that it uses, and rests when that exceeds its share: connecting, requests and
  rendering are slowed down together, whatever their mix.
- One rendering serves every scrape of the next moments.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from offload.host.listeners import SocketError
from offload.interfaces.scrape_exchange import Exchange, Page, Scrape
from offload.reporting import logs
from offload.reporting.folded_log import FoldedLog

CONNECTIONS_MAX = 32  # a node has two or three scrapers
BACKLOG = 64
REQUEST_SECONDS = 5.0  # for a request from its first byte, or from the start of the connection
RESPONSE_SECONDS = 10.0  # Prometheus gives up by then
IDLE_SECONDS = 150.0  # scrape intervals are a minute or less; the connection survives a missed one
READ_MAX = 4096
ACCEPTS_PER_TURN = 8
NO_DESCRIPTOR_SECONDS = 0.5  # until accepting is retried
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# Share of one core. A scrape of a node with 1,000 identities takes about 0.1 s, and there is one every 15 s.
SHARE = 0.1
BURST_SECONDS = 0.5

Render = Callable[[Scrape], Page]


class ProcessorBudget:
    """How long to rest so that processor time stays below `share`, after a burst of `burst` seconds.

    The caller supplies both clocks: `now` and the processor time `used` so far, in seconds.
    """

    def __init__(self, share: float, burst: float, now: float, used: float) -> None:
        self._share, self._burst, self._left = share, burst, burst
        self._now, self._used = now, used

    def rest(self, now: float, used: float) -> float:
        """Seconds to rest, 0 while there is budget."""
        earned = (now - self._now) * self._share
        self._left = min(self._left + earned, self._burst) - (used - self._used)
        self._now, self._used = now, used
        return max(0.0, -self._left / self._share)


@dataclass(eq=False)
class _Connection:
    socket: socket.socket
    deadline: float
    exchange: Exchange = field(default_factory=Exchange)
    has_begun: bool = False  # its request has begun
    is_answered: bool = False  # the response is being sent
    is_idle: bool = False  # between a response and the next request


class ScrapeServer:
    """Serves from construction until `stop`. SocketError if the address is unavailable.

    `render` is called on the server's thread; what peers can cause as often as they like is logged to `folded`.
    """

    def __init__(self, render: Render, host: str, port: int, folded: FoldedLog) -> None:
        self._render = render
        self._log, self._folded = logs.get_logger(), folded
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host, port))
            self._listener.listen(BACKLOG)
        except OSError as error:
            self._listener.close()
            raise SocketError(f"cannot serve metrics on {host}:{port}: {error.strerror or error}") from error
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._listener.getsockname()[1]}"
        self.ended: Counter[str] = Counter(full=0, slow=0, idle=0, malformed=0)  # connections, by why we closed them
        # Ordered by activity: the first is the least recently active.
        self._connections: dict[_Connection, None] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._accept_again: float | None = None
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.send(b"x")
        self._thread.join(timeout=5)

    # ---- the thread ----

    def _run(self) -> None:
        budget = ProcessorBudget(SHARE, BURST_SECONDS, time.monotonic(), time.thread_time())
        while not self._stopping.is_set():
            self._turn()
            if (rest := budget.rest(time.monotonic(), time.thread_time())) > 0:
                self._stopping.wait(rest)
        for connection in list(self._connections):
            self._close(connection)
        self._selector.close()
        for each in (self._listener, self._wake, self._woken):
            each.close()

    def _turn(self) -> None:
        ready = self._selector.select(self._patience())
        now = time.monotonic()
        for key, _ in ready:
            if isinstance(key.data, _Connection):
                self._serve(key.data, now)
        # Accepted last: a scraper whose request is here is answered before others take its place.
        if any(key.fileobj is self._listener for key, _ in ready):
            self._accept(now)
        if self._accept_again is not None and now >= self._accept_again:
            self._accept_again = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        for connection in [c for c in self._connections if c.deadline <= now]:
            self._close(connection, "idle" if connection.is_idle else "slow")

    def _patience(self) -> float | None:
        """Seconds until the first deadline."""
        deadlines = [connection.deadline for connection in self._connections]
        if self._accept_again is not None:
            deadlines.append(self._accept_again)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _accept(self, now: float) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._rest_from_accepting(now, error)
                    return
                continue  # the peer is gone already
            accepted.setblocking(False)
            while len(self._connections) >= CONNECTIONS_MAX:
                self._close(next(iter(self._connections)), "full")
            connection = _Connection(accepted, now + REQUEST_SECONDS)
            self._connections[connection] = None
            self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _rest_from_accepting(self, now: float, error: OSError) -> None:
        """The listener stays readable, so that polling it again at once would be a busy loop."""
        text = "metrics: cannot accept connections for now"
        self._folded.warning(("metrics", error.errno), text, reason=error.strerror)
        self._selector.unregister(self._listener)
        self._accept_again = now + NO_DESCRIPTOR_SECONDS

    def _serve(self, connection: _Connection, now: float) -> None:
        if connection not in self._connections:
            return  # it has ended in this turn
        self._connections[connection] = self._connections.pop(connection)  # to the end: it is active
        try:
            if not connection.exchange.output:
                connection.exchange.receive(connection.socket.recv(READ_MAX))
                if not connection.has_begun:
                    connection.has_begun, connection.is_idle = True, False
                    connection.deadline = now + REQUEST_SECONDS
            self._advance(connection, now)
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)  # the peer is gone

    def _advance(self, connection: _Connection, now: float) -> None:
        """Answers requests as far as the socket accepts the output; nothing more is read until all of it is sent."""
        exchange = connection.exchange
        while True:
            if not exchange.output and (scrape := exchange.next_scrape()) is not None:
                self._answer(exchange, scrape)
            if exchange.output and not connection.is_answered:
                connection.is_answered, connection.deadline = True, now + RESPONSE_SECONDS
            if not self._send(connection):
                self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
                return
            if exchange.ended:
                self._close(connection, "malformed" if exchange.malformed else None)
                return
            if not connection.is_answered:
                return  # its request is not complete
            exchange.sent()
            connection.is_answered, connection.has_begun, connection.is_idle = False, False, True
            connection.deadline = now + IDLE_SECONDS
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    def _answer(self, exchange: Exchange, scrape: Scrape) -> None:
        try:
            page = self._render(scrape)
        except Exception:  # noqa: BLE001  # a broken collector ends one scrape, not the thread that serves all
            self._log.exception("cannot render metrics")
            exchange.fail()
        else:
            exchange.answer(page)

    @staticmethod
    def _send(connection: _Connection) -> bool:
        """Whether all output was sent."""
        output = connection.exchange.output
        while output:
            try:
                sent = connection.socket.sendmsg(output)
            except BlockingIOError:
                return False
            while output and sent >= len(output[0]):
                sent -= len(output.pop(0))
            if sent:
                output[0] = output[0][sent:]
        return True

    def _close(self, connection: _Connection, why: str | None = None) -> None:
        if why is not None:
            self.ended[why] += 1
        del self._connections[connection]
        self._selector.unregister(connection.socket)
        if connection.exchange.malformed:
            with suppress(OSError):  # unread data at close would take the response away from the peer
                connection.socket.recv(READ_MAX)
        connection.socket.close()
