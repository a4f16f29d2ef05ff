"""What the proxies of one mesh have acknowledged, collected from their streams; belongs to the event loop.

Theory of operation
-------------------
A snapshot carries the facts that it means for others (facts.py). From the moment that it is offered to a stream until
the proxy has acknowledged all of something newer, the proxy may be using it. What a proxy may have used when its stream
ended it may be using on, until it has acknowledged something on another stream.

A proxy that comes is taken to be the one that was there before, going on; not if it has been OFFLINE: then it has been
restarted, as far as anybody can tell, and gets traffic when it has acknowledged what it needs for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control.mesh.facts import NOTHING, Facts, Known, Presence, Record
from control.model.placement import has_proxy
from control.model.resource import Resource

# A proxy that is not connected is an endpoint for so long. Envoy connects again within seconds, also after a restart of
# itself or of the control plane; and who calls it needs no longer to notice by itself that nobody answers.
OFFLINE_AFTER_S = 30.0
# And it is waited for that long: as its certificate lives, with which it could call and be called.
LOST_AFTER_S = 24 * 3600.0
# Facts that a proxy which never acknowledges anything may be using; the oldest, and the newest, are kept.
POSSIBLE_MAX = 32


@dataclass(eq=False)
class Claims:
    """What one connected proxy may be using, the newest last."""

    possible: list[Facts] = field(default_factory=list)

    def offer(self, facts: Facts) -> None:
        if self.possible and self.possible[-1] == facts:
            return
        if facts in self.possible:
            self.possible.remove(facts)
        self.possible.append(facts)
        if len(self.possible) > POSSIBLE_MAX:
            del self.possible[1]

    def settle(self, facts: Facts) -> bool:
        """The proxy has acknowledged all of a snapshot, the newest; False where that is known."""
        if self.possible == [facts]:
            return False
        self.possible = [facts]
        return True


class MeshEvidence:
    """`now` is seconds of any steady clock."""

    def __init__(
        self, record: Record, offline_after: float = OFFLINE_AFTER_S, lost_after: float = LOST_AFTER_S
    ) -> None:
        self._offline_after, self._lost_after = offline_after, lost_after
        self._record: Mapping[str, tuple[Facts, ...]] = record.possible
        self._here: dict[str, list[Claims]] = {}
        self._left: dict[str, tuple[Facts, ...]] = {}
        # When the last stream of a proxy ended, or the control plane began.
        self._away_since: dict[str, float] = {}
        self._has_begun = False
        # When somebody's presence changes without a word.
        self.next_change = float("inf")

    def begin(self, names: Iterable[str], now: float) -> None:
        """With the dataplanes that there are; later ones are new."""
        if self._has_begun:
            return
        self._has_begun = True
        for name in names:
            self._away_since.setdefault(name, now)
            if name in self._record and name not in self._here:
                self._left.setdefault(name, self._record[name])
        self._record = {}

    def connect(self, name: str, now: float) -> Claims:
        others = self._here.get(name, [])
        presence = self._presence(name, now)
        if others:
            claims = Claims(list(others[-1].possible))
        elif presence is Presence.AWAY or not self._has_begun:
            claims = Claims(list(self._left.get(name, self._record.get(name, ()))))
        else:
            claims = Claims([NOTHING, *self._left.get(name, ())])
        self._here[name] = [*others, claims]
        return claims

    def disconnect(self, name: str, claims: Claims, now: float) -> None:
        others = [one for one in self._here.get(name, ()) if one is not claims]
        if others:
            self._here[name] = others
            return
        self._here.pop(name, None)
        self._left[name], self._away_since[name] = tuple(claims.possible), now

    def forget(self, name: str) -> None:
        """There is no such dataplane any more."""
        self._left.pop(name, None)
        self._away_since.pop(name, None)

    def _presence(self, name: str, now: float) -> Presence:
        if name in self._here:
            return Presence.HERE
        since = self._away_since.get(name)
        if since is None:
            return Presence.NEW
        if now - since < self._offline_after:
            return Presence.AWAY
        return Presence.OFFLINE if now - since < self._lost_after else Presence.LOST

    def known(self, dataplanes: Iterable[Resource], now: float) -> dict[str, Known]:
        found, self.next_change = {}, float("inf")
        for dataplane in dataplanes:
            name = dataplane.name
            presence = self._presence(name, now) if has_proxy(dataplane) else Presence.PROXYLESS
            if presence in (Presence.AWAY, Presence.OFFLINE):
                wait = self._offline_after if presence is Presence.AWAY else self._lost_after
                self.next_change = min(self.next_change, self._away_since[name] + wait)
            found[name] = Known(presence, self._possible(name))
        return found

    def _possible(self, name: str) -> tuple[Facts, ...]:
        here = self._here.get(name)
        if here is None:
            return self._left.get(name, ())
        if len(here) == 1:
            return tuple(here[0].possible)
        union: list[Facts] = []
        for claims in here:
            union += [facts for facts in claims.possible if facts not in union]
        return tuple(union)
