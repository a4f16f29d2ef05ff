"""The states of one resource type on one stream, as a table.

Theory of operation
-------------------
A client (Envoy) asks for resources of a type; the server answers when it has something new, and gives each answer a
nonce. The client's next request for the type names that nonce and says either that it took the answer (ACK) or, with an
error, that it did not (NACK). At most one answer of a type is on its way at a time: an answer that is not acknowledged
is back-pressure.

    UNASKED --SUBSCRIBE--> SETTLED --SENT--> WAITING --ACK--> SETTLED
                              ^                 |
                              |               NACK
                              |                 v
                              +----CHANGE---- PARKED

UNASKED   The client has not asked for this type, or has taken all of it back.
SETTLED   The client has everything that was sent. The server sends when what it wants the client to have differs.
WAITING   An answer is on its way. Nothing more is sent, whatever changes meanwhile.
PARKED    The client refused the last answer. The same content is not sent again, which would only be refused again,
          until CHANGE: the wanted content differs from the refused one, by a new snapshot or another subscription.

Events come from requests (SUBSCRIBE, UNSUBSCRIBE, ACK, NACK, STALE) and from us (SENT, CHANGE). A request that names an
older nonce than the last answer's is STALE: the client had not seen that answer yet, and will answer it with all it
wants to say; so nothing of a stale request is used (of a delta stream, nothing but its changes of the subscription).

A pair that is not in the table cannot come from any client, only from a mistake of ours: `step` raises.
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
        # Of a delta stream, where subscriptions come apart from acknowledgements.
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
    """A transition that the table does not have: a mistake in this package, not in the client."""


def step(phase: Phase, event: Event) -> Phase:
    try:
        return TRANSITIONS[phase][event]
    except KeyError:
        raise ProtocolBug(f"{event.name} in {phase.name}") from None
