"""The two ends of an upgrade as the daemon sees them: the previous daemon, and the next one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from offload.config.settings import Config
from offload.daemon.events import HandedOver, HandOver
from offload.host.handover import ANSWER_SECONDS, Handover, HandoverError
from offload.host.listeners import Listener
from offload.reporting import logs


class Predecessor:
    """The daemon whose sockets we take, if any. It serves until `complete`, and continues if we fail before."""

    def __init__(self) -> None:
        self._handover: Handover | None = None
        self._log = logs.get_logger()
        self.taken: dict[str, Listener] = {}  # not ours before it has been told that we are ready

    @property
    def is_there(self) -> bool:
        return self._handover is not None

    def ask(self, config: Config) -> None:
        """Requests its sockets. HandoverError if it refuses."""
        if config.admin is None:
            raise HandoverError("--take-over requires the admin socket of the running daemon, but 'admin' is null")
        self._handover = Handover.ask(config.admin)
        if self._handover is None:
            self._log.info("no daemon to take over from", admin=str(config.admin.path))
            return
        self.taken = self._handover.take(config.sockets)
        self._log.info("taking over from the running daemon", sockets=sorted(self.taken))

    def complete(self) -> None:
        """Reports that we are ready: it drains. HandoverError."""
        if self._handover is not None:
            self._handover.complete(list(self.taken))

    def close(self) -> None:
        if self._handover is not None:
            self._handover.close()


class Successor:
    """The next daemon, while it takes our sockets.

    `begin` and `end` are called on the handover's thread and put events; the rest belongs to the daemon's thread.
    """

    def __init__(self, put: Callable[[HandOver | HandedOver], None]) -> None:
        self._put = put
        self.is_taking = False

    def begin(self) -> list[Listener] | None:
        """The listeners to hand over; None while no handover is possible."""
        offer: Future[list[Listener] | None] = Future()
        self._put(HandOver(offer))
        try:
            return offer.result(ANSWER_SECONDS)
        except TimeoutError:
            offer.cancel()
            return None

    def end(self, taken: frozenset[str] | None) -> None:
        self._put(HandedOver(taken))

    def offer(self, asked: HandOver, listeners: list[Listener]) -> None:
        # A thread that no longer waits has cancelled its request.
        self.is_taking = asked.offer.set_running_or_notify_cancel()
        if self.is_taking:
            asked.offer.set_result(listeners)

    def refuse(self, asked: HandOver) -> None:
        if asked.offer.set_running_or_notify_cancel():
            asked.offer.set_result(None)

    def failed(self) -> None:
        self.is_taking = False
