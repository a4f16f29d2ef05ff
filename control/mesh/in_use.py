"""What proxies and nodes may be using, according to the evidence. Pure; transitions.py decides by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from control.mesh.facts import COUNTS, Call, Evidence, Facts, Place, Presence
from control.model.identity import Identity


@dataclass(frozen=True)
class Caller:
    """A proxy that calls, or may be calling, a service: all the ways in which it may do so."""

    name: str
    calls: tuple[tuple[Facts, Call], ...]


class InUse:
    """`digests`: digest of each bundle wanted now, by trust domain."""

    def __init__(self, evidence: Evidence, digests: Mapping[str, str]) -> None:
        self._evidence, self._digests = evidence, digests
        self._callers = self._find_callers()

    def _find_callers(self) -> Mapping[str, list[Caller]]:
        found: dict[str, list[Caller]] = defaultdict(list)
        for name, known in self._evidence.proxies.items():
            if known.presence is Presence.LOST:
                continue
            ways: dict[str, list[tuple[Facts, Call]]] = defaultdict(list)
            for facts in known.possible:
                for service, call in facts.calls.items():
                    ways[service].append((facts, call))
            for service, calls in ways.items():
                found[service].append(Caller(name, tuple(calls)))
        return found

    def callers(self, service: str) -> Sequence[Caller]:
        """The proxies that call the service, or may be calling it."""
        return self._callers.get(service, ())

    def callers_of(self, service: str, member: str, tls: bool) -> Iterator[Caller]:
        """The proxies that may be calling this member in this way."""
        for caller in self.callers(service):
            if caller.name != member and any(
                call.tls is tls and member not in call.without for _, call in caller.calls
            ):
                yield caller

    def surely(self, name: str, holds: Callable[[Facts], bool]) -> bool:
        """Whether it holds for everything the proxy may be using; if nothing is known of it, whether it is not new."""
        known = self._evidence.of(name)
        return all(map(holds, known.possible)) if known.possible else known.presence is not Presence.NEW

    def latest(self, name: str) -> Facts | None:
        possible = self._evidence.of(name).possible
        return possible[-1] if possible else None

    def counts(self, member: str) -> bool:
        return self._evidence.of(member).presence in COUNTS

    def serves(self, place: Place | None, identity: Identity) -> bool:
        if place is None or not place.node:
            return True
        node = self._evidence.nodes.get(place.node)
        return node is not None and (identity.spiffe_id, place.socket) in node.serves

    def verifies(self, facts: Facts, domain: str) -> bool:
        """Whether peers of this trust domain are verified against its current CAs."""
        needed = (domain, self._digests.get(domain, "none"))
        if needed not in facts.trusts:
            return False
        if facts.place is None or not facts.place.node:
            return True
        node = self._evidence.nodes.get(facts.place.node)
        return node is not None and needed in node.trusts

    def how(self, name: str, reason: str) -> str:
        """Appends the proxy's presence to the reason if it is not connected."""
        presence = self._evidence.of(name).presence
        return reason if presence is Presence.HERE else f"{reason} ({presence.value})"

    def takes_tls(self, member: str, sections: Iterable[str], served: bool = False) -> bool:
        """`served`: whether the daemon of its node must also report, if it has the key, that it serves the identity."""

        def takes(facts: Facts) -> bool:
            identity = facts.identity
            if identity is None or (served and not self.serves(facts.place, identity)):
                return False
            return all((one := facts.inbounds.get(section)) is not None and one.tls for section in sections)

        return self.surely(member, takes)

    def takes_plaintext(self, member: str, sections: Iterable[str]) -> bool:
        return self.surely(
            member, lambda facts: all((one := facts.inbounds.get(s)) is not None and one.plaintext for s in sections)
        )
