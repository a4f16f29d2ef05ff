"""What the proxies of one mesh have acknowledged, collected from their streams; confined to the event loop.

Theory of operation
-------------------
A snapshot carries the facts that it means for others (facts.py). From the moment that it is offered to a stream until
the proxy has acknowledged all of a newer one, the proxy may be using it. Whatever a proxy may have used when its stream
ended it may still be using, until it has acknowledged something on another stream.

A proxy that connects is taken to be the earlier one, still running; not if it has been OFFLINE: then it must be assumed
to have been restarted, and gets traffic once it has acknowledged what it needs for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control.mesh.facts import NOTHING, Facts, Known, Presence, Record
from control.model.placement import has_proxy
from control.model.resource import Resource

# How long a disconnected proxy stays an endpoint. Envoy reconnects within seconds, also after a restart of itself or of
# the control plane; and its callers need no longer than this to notice by themselves that nobody responds.
OFFLINE_AFTER_S = 30.0
# How long a disconnected proxy is waited for: the lifetime of its certificate, with which it could call and be called.
LOST_AFTER_S = 24 * 3600.0
# Limit for the facts that a proxy which never acknowledges may be using; the oldest and the newest are kept.
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
        """Records that the proxy has acknowledged its newest snapshot in full; False if that was known already."""
        if self.possible == [facts]:
            return False
        self.possible = [facts]
        return True


class MeshEvidence:
    """`now`: seconds of any monotonic clock."""

    def __init__(
        self, record: Record, offline_after: float = OFFLINE_AFTER_S, lost_after: float = LOST_AFTER_S
    ) -> None:
        self._offline_after, self._lost_after = offline_after, lost_after
        self._record: Mapping[str, tuple[Facts, ...]] = record.possible
        self._here: dict[str, list[Claims]] = {}
        self._left: dict[str, tuple[Facts, ...]] = {}
        # When the last stream of a proxy ended, or the control plane started.
        self._away_since: dict[str, float] = {}
        self._has_begun = False
        # When a presence next changes by the passage of time alone.
        self.next_change = float("inf")

    def begin(self, names: Iterable[str], now: float) -> None:
        """Starts with the dataplanes that exist; later ones are new."""
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
        """To be called when the dataplane is deleted."""
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
