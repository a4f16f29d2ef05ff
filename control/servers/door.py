"""Who may be connected to one port: a pure core, which is told of connections and says which of them to close.

Theory of operation. A connection is a *stranger* until somebody on it has shown a valid credential, and again when the
last such use of it has ended. Strangers are bounded per address and in total; so are all connections. An arrival beyond
a bound displaces the **oldest stranger**: of the same address, or of the address with most strangers. So a peer that
soon shows a credential gets in however many others are silent, even from the same address, and nobody who has shown
one is displaced by a stranger. If there is no other stranger, the newcomer itself is closed.

An IPv4 address counts by itself; an IPv6 address counts with its /64, since that is what one host has.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

# (address, port) of the other end: unique among the connections to a port.
Peer = tuple[str, int]

OF_ADDRESS = "too many connections from one address"
STRANGERS_OF_ADDRESS = "too many connections without credentials from one address"
STRANGERS = "too many connections without credentials"
IN_ALL = "too many connections"
OVERDUE = "no credentials in time"


@dataclass(frozen=True)
class Bounds:
    connections: int
    per_address: int
    strangers: int
    strangers_per_address: int
    # Seconds after which a stranger must go; None: enforced elsewhere.
    stranger_s: float | None = None


@dataclass(eq=False)
class Visit:
    """One connection. `uses`: its present uses that have shown a credential."""

    peer: Peer
    since: float
    group: str
    uses: int = 0
    left: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Sent:
    """A connection to be closed."""

    peer: Peer
    reason: str


@functools.lru_cache(4096)
def group_of(address: str) -> str:
    """What counts as one address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))


class Door:
    """The door of one port. `now`: seconds of a monotonic clock."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._visits: dict[Peer, Visit] = {}
        self._of_group: Counter[str] = Counter()
        # By group, the oldest first: dictionaries keep their order.
        self._strangers: dict[str, dict[Visit, None]] = {}
        self._stranger_count = 0
        # Groups by number of strangers, so that the largest is found without a search through thousands.
        self._groups: dict[int, dict[str, None]] = {}
        self._most = 0

    def __len__(self) -> int:
        return len(self._visits)

    @property
    def strangers(self) -> int:
        return self._stranger_count

    @property
    def peers(self) -> Sequence[Peer]:
        return list(self._visits)

    def arrived(self, peer: Peer, now: float) -> list[Sent]:
        """Who must go for it, perhaps the newcomer; they are forgotten already. A known connection changes nothing."""
        if peer in self._visits:
            return []
        visit = self._enter(peer, now)
        sent, bounds = [], self._bounds
        while len(self._strangers.get(visit.group, ())) > bounds.strangers_per_address:
            sent.append(self._displace(visit.group, STRANGERS_OF_ADDRESS))
        if not visit.left and self._of_group[visit.group] > bounds.per_address:
            sent.append(self._displace(visit.group, OF_ADDRESS))
        if not visit.left and self._stranger_count > bounds.strangers:
            sent.append(self._displace(self._largest(), STRANGERS))
        if not visit.left and len(self._visits) > bounds.connections:
            sent.append(self._displace(self._largest(), IN_ALL))
        return sent

    def welcome(self, peer: Peer, now: float) -> Visit:
        """Somebody on it has shown a credential; pass the result to `leave` when that use has ended."""
        visit = self._visits.get(peer) or self._enter(peer, now)
        if visit.uses == 0:
            self._forget_stranger(visit)
        visit.uses += 1
        return visit

    def leave(self, visit: Visit, now: float) -> None:
        visit.uses -= 1
        if visit.uses == 0 and not visit.left:
            visit.since = now
            self._add_stranger(visit)

    def gone(self, peer: Peer) -> None:
        visit = self._visits.get(peer)
        if visit is not None:
            self._remove(visit)

    def overdue(self, now: float) -> list[Sent]:
        """Those who have been strangers for too long; they are forgotten already."""
        if self._bounds.stranger_s is None:
            return []
        late = [
            visit
            for visits in self._strangers.values()
            for visit in visits
            if now - visit.since >= self._bounds.stranger_s
        ]
        for visit in late:
            self._remove(visit)
        return [Sent(visit.peer, OVERDUE) for visit in late]

    def _largest(self) -> str:
        return next(iter(self._groups[self._most]))

    def _displace(self, group: str, reason: str) -> Sent:
        oldest = next(iter(self._strangers[group]))
        self._remove(oldest)
        return Sent(oldest.peer, reason)

    def _enter(self, peer: Peer, now: float) -> Visit:
        visit = self._visits[peer] = Visit(peer, now, group_of(peer[0]))
        self._of_group[visit.group] += 1
        self._add_stranger(visit)
        return visit

    def _add_stranger(self, visit: Visit) -> None:
        of_group = self._strangers.setdefault(visit.group, {})
        of_group[visit] = None
        self._stranger_count += 1
        self._count(visit.group, len(of_group) - 1, len(of_group))

    def _forget_stranger(self, visit: Visit) -> None:
        of_group = self._strangers.get(visit.group, {})
        if visit in of_group:
            del of_group[visit]
            self._stranger_count -= 1
            self._count(visit.group, len(of_group) + 1, len(of_group))
            if not of_group:
                del self._strangers[visit.group]

    def _count(self, group: str, before: int, now: int) -> None:
        """The two counts differ by one."""
        if before > 0:
            del self._groups[before][group]
        if now > 0:
            self._groups.setdefault(now, {})[group] = None
        if before > 0 and not self._groups[before]:
            del self._groups[before]
        if now > self._most or self._most not in self._groups:
            self._most = now

    def _remove(self, visit: Visit) -> None:
        self._forget_stranger(visit)
        del self._visits[visit.peer]
        visit.left = True
        self._of_group[visit.group] -= 1
        if self._of_group[visit.group] == 0:
            del self._of_group[visit.group]
