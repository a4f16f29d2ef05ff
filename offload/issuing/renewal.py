"""When a certificate for this node is requested: the pure core, without clock, threads or issuers.

    NEEDED --asked--> ASKING --issued--> IN_FORCE --asked (at half its life)--> ASKING
                         |                                                         |
                         +--refused--> WAITING --asked (after a backoff)-----------+

Every method is passed the time and uses no other clock; `random` gives numbers from 0 to 1, which spread renewals and
retries of many nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

RENEWAL_SHARE = 0.5  # of its life: half of it is left for an outage of the issuer
RENEWAL_JITTER = 0.05  # of its life, in either direction
BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 300.0
BACKOFF_SHARE = 0.1  # of the certificate's remaining life, so that its expiry is not missed
LEAST_PAUSE_SHARE = 0.1  # of its remaining life: an issuer that returns old certificates is not asked in a loop


class State(Enum):
    NEEDED = auto()
    ASKING = auto()
    IN_FORCE = auto()
    WAITING = auto()


class Event(Enum):
    ASKED = auto()
    ISSUED = auto()
    REFUSED = auto()


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.NEEDED, Event.ASKED): State.ASKING,
    (State.IN_FORCE, Event.ASKED): State.ASKING,
    (State.WAITING, Event.ASKED): State.ASKING,
    (State.ASKING, Event.ISSUED): State.IN_FORCE,
    (State.ASKING, Event.REFUSED): State.WAITING,
}


@dataclass
class Renewal:
    """The renewal of one identity. Times are seconds since 1970."""

    random: Callable[[], float]
    state: State = State.NEEDED
    due_at: float = 0  # when to request the next one; no meaning while ASKING
    failures: int = 0  # in a row
    not_before: float = 0  # of the certificate in force
    not_after: float | None = field(default=None)
    answered_at: float = 0  # by the issuer, the last time

    def is_due(self, now: float) -> bool:
        return self.state is not State.ASKING and (now >= self.due_at or self._was_set_back(now))

    def _was_set_back(self, now: float) -> bool:
        """Whether the clock was set back to before the last response: a pause counted from there means nothing, and its
        certificate may not be valid yet. The next response uses the present clock, so there is no request loop."""
        return now < self.answered_at and (self.state is State.WAITING or now < self.not_before)

    def asked(self) -> None:
        self._move(Event.ASKED)

    def issued(self, now: float, not_before: float, not_after: float, renew_at: float | None = None) -> None:
        """`renew_at`: the time that the issuer named, if any."""
        self._move(Event.ISSUED)
        self.failures, self.not_before, self.not_after, self.answered_at = 0, not_before, not_after, now
        life = max(0.0, not_after - not_before)
        if renew_at is None:
            share = RENEWAL_SHARE + RENEWAL_JITTER * (2 * self.random() - 1)
            renew_at = not_before + share * life
        self.due_at = max(renew_at, now + LEAST_PAUSE_SHARE * max(0.0, not_after - now), now + BACKOFF_FIRST_S)

    def refused(self, now: float) -> None:
        self._move(Event.REFUSED)
        self.answered_at = now
        pause = min(BACKOFF_FIRST_S * 2**self.failures, self._longest_pause(now))
        self.failures = min(self.failures + 1, 32)
        self.due_at = now + pause * (0.5 + 0.5 * self.random())

    def _longest_pause(self, now: float) -> float:
        if self.not_after is None:
            return BACKOFF_MAX_S
        return min(BACKOFF_MAX_S, max(BACKOFF_FIRST_S, BACKOFF_SHARE * (self.not_after - now)))

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
