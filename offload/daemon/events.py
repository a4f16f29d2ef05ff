"""What the daemon's one thread waits for; each kind of event has the fields that it needs and no others."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from offload.host.listeners import Listener
from offload.interfaces.daemon_view import ReloadReport
from offload.v1 import node_pb2


@dataclass(frozen=True)
class Stop:
    """Drain and stop; a second one ends the drain."""

    why: str


@dataclass(frozen=True)
class Reload:
    """Read the configuration and the keys again."""

    why: str
    answer: Future[ReloadReport] | None = None


@dataclass(frozen=True)
class Look:
    """Look at the keys directory, and at newly generated keys."""


@dataclass(frozen=True)
class Configure:
    """The control plane has sent a configuration."""

    message: node_pb2.Configuration


@dataclass(frozen=True)
class HandOver:
    """The next daemon asks for the listening sockets."""

    offer: Future[list[Listener] | None]


@dataclass(frozen=True)
class HandedOver:
    """The next daemon serves these sockets; None: it failed, and this one goes on."""

    taken: frozenset[str] | None


Event = Stop | Reload | Look | Configure | HandOver | HandedOver
