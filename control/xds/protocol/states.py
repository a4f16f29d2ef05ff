"""The states of one resource type on one stream, as a table.

Theory of operation
-------------------
A client (Envoy) asks for resources of a type; the server answers when it has something new, and gives each response a
nonce. The client's next request for the type names that nonce and says either that it accepted the response (ACK) or,
with an error, that it did not (NACK). At most one response per type is in flight: one that is not acknowledged is
back-pressure.

    UNASKED --SUBSCRIBE--> SETTLED --SENT--> WAITING --ACK--> SETTLED
                              ^                 |
                              |               NACK
                              |                 v
                              +----CHANGE---- PARKED

UNASKED   The client has not subscribed to this type, or has unsubscribed from all of it.
SETTLED   The client has everything that was sent. The server sends when the wanted content differs from that.
WAITING   A response is in flight. Nothing more is sent, whatever changes meanwhile.
PARKED    The client rejected the last response. The same content is not sent again, which would only be rejected again,
          until CHANGE: the wanted content differs from the rejected one, by a new snapshot or another subscription.

Events come from requests (SUBSCRIBE, UNSUBSCRIBE, ACK, NACK, STALE) and from the server (SENT, CHANGE). A request that
names an older nonce than the last response's is STALE: the client had not seen that response yet, and will answer it
with its full state; so a stale request is ignored (on a delta stream, except for its changes of the subscription).

A pair that is not in the table cannot come from any client, only from a bug here: `step` raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Phase(Enum):
    UNASKED = "unasked"
    SETTLED = "settled"
    WAITING = "waiting"
    PARKED = "parked"


class Event(Enum):
    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    ACK = "ack"
    NACK = "nack"
    STALE = "stale"
    SENT = "sent"
    CHANGE = "change"


TRANSITIONS: Mapping[Phase, Mapping[Event, Phase]] = {
    Phase.UNASKED: {
        Event.SUBSCRIBE: Phase.SETTLED,
        Event.UNSUBSCRIBE: Phase.UNASKED,
        Event.STALE: Phase.UNASKED,
    },
    Phase.SETTLED: {
        Event.SUBSCRIBE: Phase.SETTLED,
        Event.UNSUBSCRIBE: Phase.UNASKED,
        Event.STALE: Phase.SETTLED,
        Event.SENT: Phase.WAITING,
    },
    Phase.WAITING: {
        # On a delta stream, where subscriptions are separate from acknowledgements.
        Event.SUBSCRIBE: Phase.WAITING,
        Event.UNSUBSCRIBE: Phase.UNASKED,
        Event.STALE: Phase.WAITING,
        Event.ACK: Phase.SETTLED,
        Event.NACK: Phase.PARKED,
    },
    Phase.PARKED: {
        Event.SUBSCRIBE: Phase.PARKED,
        Event.UNSUBSCRIBE: Phase.UNASKED,
        Event.STALE: Phase.PARKED,
        Event.CHANGE: Phase.SETTLED,
    },
}


class ProtocolBug(Exception):
    """A transition that the table does not have: a bug in this package, not in the client."""


def step(phase: Phase, event: Event) -> Phase:
    try:
        return TRANSITIONS[phase][event]
    except KeyError:
        raise ProtocolBug(f"{event.name} in {phase.name}") from None
