"""A mesh that is simulated: proxies that are late, lost or refuse, nodes that are late, and a plan for all of them.

What a proxy really does (`serving`, `calling`) is kept apart from what the control plane is told. The two halves of a
configuration reach a proxy one by one, as listeners and clusters do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from control.mesh.evidence import OFFLINE_AFTER_S, Claims, MeshEvidence
from control.mesh.facts import (
    NOTHING,
    Evidence,
    Facts,
    NodeKnown,
    Place,
    Plan,
    Record,
    Wanted,
    WantedProxy,
    WantedService,
)
from control.mesh.transitions import plan as make_plan
from control.model.identity import Identity
from control.model.resource import Resource

SECTION = "http"


@dataclass
class Proxy:
    """A running Envoy. `offered`: what its stream has for it; `refuses`: it takes none of it and says so."""

    claims: Claims | None = None
    offered: Facts | None = None
    serving: Facts = NOTHING
    calling: Facts = NOTHING
    refuses: bool = False


@dataclass
class Node:
    holds: frozenset[tuple[str, str]] = frozenset()
    trusts: frozenset[tuple[str, str]] = frozenset()
    # What the control plane knows of it.
    told: NodeKnown = field(default_factory=NodeKnown)


@dataclass(frozen=True)
class Labels:
    """Of one dataplane: what policies make of it."""

    service: str
    has_identity: bool = False
    strict: bool = True
    place: Place | None = None


@dataclass(frozen=True)
class Wish:
    """Everything that is stored."""

    dataplanes: Mapping[str, Labels]
    path: str = "workload"
    domain: str = "one"

    def wanted(self) -> Wanted:
        services = sorted({labels.service for labels in self.dataplanes.values()})
        proxies = {}
        for name, labels in self.dataplanes.items():
            identity = None
            if labels.has_identity:
                identity = Identity(f"spiffe://{self.domain}/{self.path}/{labels.service}", self.domain, "identity")
            place = labels.place if identity is not None else None
            plaintext = {SECTION: identity is None or not labels.strict}
            calls = tuple(service for service in services if service != labels.service)
            proxies[name] = WantedProxy(identity, place, plaintext, calls)
        members = {
            service: {name: (SECTION,) for name, labels in self.dataplanes.items() if labels.service == service}
            for service in services
        }
        has_trust = any(labels.has_identity for labels in self.dataplanes.values())
        bundles = {self.domain: f"CA of {self.domain}"} if has_trust else {}
        digests = {domain: f"digest of {domain}" for domain in bundles}
        return Wanted(proxies, {name: WantedService(m) for name, m in members.items()}, bundles, digests)


class World:
    def __init__(self, wish: Wish) -> None:
        self.wish, self.now = wish, 0.0
        self.proxies: dict[str, Proxy] = {}
        self.nodes = {"n1": Node(), "n2": Node()}
        self.record = Record()
        self.evidence = MeshEvidence(self.record)
        self.plan = Plan()
        self.think()

    # --- the control plane --------------------------------------------------------------------------------------------

    def think(self) -> None:
        """The next plan, written down, and offered to those who are connected."""
        wanted = self.wish.wanted()
        dataplanes = [dataplane(name) for name in wanted.proxies]
        self.evidence.begin(wanted.proxies, self.now)
        known = self.evidence.known(dataplanes, self.now)
        evidence = Evidence(known, {name: node.told for name, node in self.nodes.items()})
        self.plan = make_plan(wanted, self.record, evidence)
        possible = {n: (*(p for p in known[n].possible if p != f), f) for n, f in self.plan.facts.items()}
        services = {name: service.tls for name, service in self.plan.services.items()}
        self.record = Record(services, dict(self.plan.retained) | dict(wanted.bundles), possible)
        for name, proxy in self.proxies.items():
            if proxy.claims is not None and name in self.plan.facts:
                proxy.offered = self.plan.facts[name]
                proxy.claims.offer(proxy.offered)

    def restart(self) -> None:
        """Of the control plane: all it has is what it wrote down."""
        self.record = Record.from_json(self.record.to_json())
        self.evidence = MeshEvidence(self.record)
        for proxy in self.proxies.values():
            proxy.claims = proxy.offered = None
        for node in self.nodes.values():
            node.told = NodeKnown()
        self.think()

    def change(self, wish: Wish) -> None:
        self.wish = wish
        for name in set(self.proxies) - set(wish.dataplanes):
            del self.proxies[name]
            self.evidence.forget(name)
        self.think()

    # --- proxies and nodes --------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """A new process; nothing where one runs."""
        if name not in self.proxies and name in self.wish.dataplanes:
            self.proxies[name] = Proxy()
            self.connect(name)

    def connect(self, name: str) -> None:
        proxy = self.proxies.get(name)
        if proxy is None or proxy.claims is not None:
            return
        proxy.claims, proxy.offered = self.evidence.connect(name, self.now), self.plan.facts[name]
        proxy.claims.offer(proxy.offered)
        self.think()

    def disconnect(self, name: str) -> None:
        """It runs on with what it has."""
        proxy = self.proxies.get(name)
        if proxy is not None and proxy.claims is not None:
            self.evidence.disconnect(name, proxy.claims, self.now)
            proxy.claims = proxy.offered = None
            self.think()

    def take(self, name: str, half: str) -> None:
        proxy = self.proxies.get(name)
        if proxy is not None and proxy.offered is not None and not proxy.refuses:
            setattr(proxy, half, proxy.offered)

    def acknowledge(self, name: str) -> None:
        proxy = self.proxies.get(name)
        if proxy is None or proxy.claims is None or proxy.offered is None:
            return
        if proxy.serving == proxy.calling == proxy.offered and proxy.claims.settle(proxy.offered):
            self.think()

    def node_takes(self, name: str) -> None:
        """The configuration that its stream has for it, and says so: both at once, as one message is answered."""
        node = self.nodes[name]
        held = [pair for pairs in self.plan.held.values() for pair in pairs if pair[1].node == name]
        node.holds = frozenset((identity.spiffe_id, place.socket) for identity, place in held)
        digests = self.wish.wanted().digests
        node.trusts = frozenset(digests.items()) | {(domain, f"digest of {domain}") for domain in self.plan.retained}
        node.told = NodeKnown(node.holds, node.trusts)
        self.think()

    def pass_time(self) -> None:
        self.now += OFFLINE_AFTER_S + 1
        self.think()

    # --- what calls see -----------------------------------------------------------------------------------------------

    def routes(self) -> Iterator[tuple[str, str, str, bool]]:
        """(caller, service, member that it may pick, whether the call succeeds)."""
        members = {name: service.members for name, service in self.wish.wanted().services.items()}
        for caller, proxy in self.proxies.items():
            for service, call in proxy.calling.calls.items():
                for member in members.get(service, ()):
                    if member in self.proxies and member not in call.without:
                        yield caller, service, member, self._succeeds(caller, service, member)

    def _succeeds(self, caller: str, service: str, member: str) -> bool:
        mine, theirs = self.proxies[caller].calling, self.proxies[member].serving
        call, accepts = mine.calls[service], theirs.inbounds.get(SECTION)
        if accepts is None:
            return False
        if not call.tls:
            return accepts.plaintext
        if not accepts.tls or mine.identity is None or theirs.identity is None:
            return False
        if theirs.identity.spiffe_id not in call.server_ids:
            return False
        if not self._verifies(mine, theirs.identity) or not self._verifies(theirs, mine.identity):
            return False
        return self._signs(mine) and self._signs(theirs)

    def _verifies(self, facts: Facts, peer: Identity) -> bool:
        domains = {domain for domain, _ in facts.trusts}
        if facts.place is not None:
            domains &= {domain for domain, _ in self.nodes[facts.place.node].trusts}
        return peer.trust_domain in domains

    def _signs(self, facts: Facts) -> bool:
        if facts.place is None or facts.identity is None:
            return True
        return (facts.identity.spiffe_id, facts.place.socket) in self.nodes[facts.place.node].holds

    def settle(self, rounds: int = 60) -> None:
        """Everybody is there, takes everything, and says so; until nothing moves any more."""
        for name in self.wish.dataplanes:
            self.start(name)
            self.connect(name)
            self.proxies[name].refuses = False
        for _ in range(rounds):
            before = self.plan
            for name in self.nodes:
                self.node_takes(name)
            for name in self.wish.dataplanes:
                self.take(name, "serving")
                self.take(name, "calling")
                self.acknowledge(name)
            if self.plan == before:
                return
        raise AssertionError(f"the plan does not come to rest: {self.plan.waits}")


def dataplane(name: str) -> Resource:
    return Resource(kind=None, mesh="default", name=name, labels={}, spec=None)  # type: ignore[arg-type]


def with_labels(wish: Wish, name: str, **more: object) -> Wish:
    return replace(wish, dataplanes={**wish.dataplanes, name: replace(wish.dataplanes[name], **more)})  # type: ignore[arg-type]
