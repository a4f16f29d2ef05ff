"""The endpoints to steer and watch the daemon: admin, handover and metrics, opened and closed together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from offload.config.settings import Config
from offload.host.handover import HandoverServer
from offload.host.listeners import Listener, SocketError
from offload.interfaces.admin import AdminServer
from offload.interfaces.daemon_view import Observed, Steered
from offload.interfaces.metrics import MetricsServer
from offload.reporting import logs
from offload.reporting.folded_log import FoldedLog

PATIENCE_SECONDS = 5.0  # for the previous daemon to leave its admin socket and metrics port
POLL_SECONDS = 0.05


class Served(Steered, Observed, Protocol):
    """What both show of the daemon."""


class Endpoints:
    """`offer` and `after` are the two ends of a handover (HandoverServer); `folded` logs what strangers cause. Used by
    the daemon's one thread."""

    def __init__(
        self,
        daemon: Served,
        offer: Callable[[], list[Listener] | None],
        after: Callable[[frozenset[str] | None], None],
        folded: FoldedLog,
    ) -> None:
        self._daemon, self._offer, self._after, self._folded = daemon, offer, after, folded
        self._log = logs.get_logger()
        self._admin: AdminServer | None = None
        self._handover: HandoverServer | None = None
        self._metrics: MetricsServer | None = None
        self._owed = False  # some of them still belong to another daemon

    @property
    def metrics_address(self) -> str | None:
        return self._metrics.address if self._metrics else None

    def open(self, taken_over: bool) -> None:
        """Opens all that the configuration names. Raises SocketError, except after a handover, while the previous
        daemon still has them for a moment: then `retry` continues."""
        deadline = time.monotonic() + (PATIENCE_SECONDS if taken_over else 0)
        while True:
            try:
                self._try(self._daemon.config)
                return
            except SocketError as error:
                if not taken_over:
                    raise
                if time.monotonic() > deadline:
                    self._owed = True
                    self._log.error("cannot serve admin or metrics yet; retrying each second", reason=str(error))
                    return
            time.sleep(POLL_SECONDS)

    def retry(self) -> None:
        if not self._owed or self._daemon.draining:
            return
        try:
            self._try(self._daemon.config)
        except SocketError as error:
            self._log.debug("cannot serve admin or metrics yet", reason=str(error))
            return
        self._owed = False
        self._log.info("serving admin and metrics", metrics=self.metrics_address)

    def drain(self) -> None:
        """Refuses handovers from here on, and reports not serving to health checks."""
        if self._handover:
            self._handover.stop()
        if self._admin:
            self._admin.set_serving(False)

    def close(self) -> None:
        for each in (self._handover, self._metrics, self._admin):
            if each:
                each.stop()
        self._handover = self._metrics = self._admin = None

    def _try(self, config: Config) -> None:
        if config.admin:
            trust = config.security.trust()
            self._admin = self._admin or AdminServer(self._daemon, config.admin, trust)
            self._handover = self._handover or HandoverServer(
                config.admin, self._offer, self._after, trust, self._folded
            )
        if self._metrics is None and (address := config.metrics.host_and_port()) is not None:
            self._metrics = MetricsServer(self._daemon, *address, self._folded)
