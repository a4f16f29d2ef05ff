"""The doors of one control plane: the API's, and the one of gRPC's two ports; and reports of those turned away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator

import structlog

from control.metrics import Metrics
from control.servers.descriptors import API, GRPC, Wanted, bounds, raise_limit
from control.servers.door import Door, Sent
from control.servers.doorkeeper import LOOK_S, Doorkeeper, peer_of_grpc
from offload.reporting.folded_log import FoldedLog

log = structlog.get_logger(__name__)


class Fronts:
    def __init__(self, metrics: Metrics, wanted: Wanted, folded: FoldedLog) -> None:
        self._metrics, self._folded = metrics, folded
        limit = raise_limit()
        self.bounds = bounds(limit, wanted)
        self.api, self.grpc = Door(self.bounds[API]), Door(self.bounds[GRPC])
        if self.bounds[GRPC].connections < wanted.connections:
            log.warning(
                "fewer connections than configured: too few descriptors (ulimit -Hn, LimitNOFILE=)",
                connections=self.bounds[GRPC].connections,
                wanted=wanted.connections,
                descriptors=limit,
            )

    @contextlib.contextmanager
    def welcome(self, peer: str) -> Iterator[None]:
        """Open while a call runs that has shown a valid credential; `peer` as gRPC formats it."""
        visit = self.grpc.welcome(peer_of_grpc(peer), time.monotonic())
        try:
            yield
        finally:
            self.grpc.leave(visit, time.monotonic())

    def told_of_api(self, sent: Sent) -> None:
        self._told(API, sent)

    def told_of_grpc(self, sent: Sent) -> None:
        self._told(GRPC, sent)

    def _told(self, port: str, sent: Sent) -> None:
        self._metrics.turned_away.labels(port, sent.reason).inc()
        self._folded.warning(
            (port, sent.reason), "connection refused", port=port, reason=sent.reason, address=sent.peer[0]
        )

    async def run(self, ports: Collection[int]) -> None:
        """`ports`: those of gRPC."""
        keeper = Doorkeeper(self.grpc, ports, self.told_of_grpc)
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                keeper.look()
            except OSError as error:
                # The reserve is exhausted: nothing here takes descriptors, so they come back.
                self._folded.warning((GRPC, "look"), "cannot inspect connections", error=str(error))
            for name, door in ((API, self.api), (GRPC, self.grpc)):
                self._metrics.connections.labels(name).set(len(door))
