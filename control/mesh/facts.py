"""What is known and what is wanted of the proxies of a mesh, as far as they depend on each other. Values only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from enum import Enum
from typing import Any

from control.model.identity import Identity


@dataclass(frozen=True)
class Place:
    """Where a proxy's key is if not in Envoy itself: at a node's daemon (empty: one that no control plane knows)."""

    node: str
    socket: str


@dataclass(frozen=True)
class Accepts:
    """What an inbound accepts: plaintext, TLS, or both."""

    plaintext: bool
    tls: bool


@dataclass(frozen=True)
class Call:
    """How a service is called: by mutual TLS, from one of these servers, or by plaintext; `without`: not by these."""

    tls: bool
    server_ids: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Facts:
    """What one configuration of a proxy means for its peers. It is known once the proxy has acknowledged all of it."""

    identity: Identity | None = None
    # None: the key is in Envoy itself.
    place: Place | None = None
    # (trust domain, digest of its bundle) that peers are verified against.
    trusts: frozenset[tuple[str, str]] = frozenset()
    # Keyed by the section of the inbound.
    inbounds: Mapping[str, Accepts] = field(default_factory=dict)
    # Keyed by the name of the service.
    calls: Mapping[str, Call] = field(default_factory=dict)

    @property
    def uses_tls(self) -> bool:
        return any(one.tls for one in self.inbounds.values()) or any(call.tls for call in self.calls.values())

    def without_certificate(self) -> Facts:
        """The facts of a proxy that has no certificate: whatever it was told, it neither serves nor calls by TLS."""
        deaf = {section: Accepts(one.plaintext, False) for section, one in self.inbounds.items()}
        return Facts(None, self.place, self.trusts, deaf, self.calls)


# The facts of a proxy that has just been started.
NOTHING = Facts()


class Presence(Enum):
    """Whether a proxy is connected, or since when it has not been."""

    HERE = "connected"
    # Disconnected for less than the grace time, or the control plane has been running for less than that.
    AWAY = "away"
    # It has never been connected, and did not exist when the control plane started.
    NEW = "never connected"
    OFFLINE = "not connected"
    # Disconnected for so long that nobody waits for it any more.
    LOST = "lost"
    # No proxy runs beside the workload, as its Dataplane declares.
    PROXYLESS = "without a proxy"


COUNTS = frozenset({Presence.HERE, Presence.AWAY, Presence.PROXYLESS})


@dataclass(frozen=True)
class Known:
    """Everything that a proxy may be using: what it acknowledged last, and all it was given since, the newest last.

    Empty if nothing is known; then the proxy is assumed to use what the plan says.
    """

    presence: Presence
    possible: tuple[Facts, ...] = ()


@dataclass(frozen=True)
class NodeKnown:
    """What a node's daemon reports now."""

    # (SPIFFE id, socket) pairs that callers can use.
    serves: frozenset[tuple[str, str]] = frozenset()
    # (trust domain, digest of its bundle) in this mesh.
    trusts: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Evidence:
    proxies: Mapping[str, Known] = field(default_factory=dict)
    nodes: Mapping[str, NodeKnown] = field(default_factory=dict)

    def of(self, name: str) -> Known:
        return self.proxies.get(name, _UNHEARD_OF)


_UNHEARD_OF = Known(Presence.NEW)


@dataclass(frozen=True)
class WantedProxy:
    """What policies and labels say about one dataplane."""

    identity: Identity | None
    place: Place | None
    # Whether an inbound accepts plaintext (MeshTLS), by section; without an identity all do.
    plaintext: Mapping[str, bool]
    # Services that it calls, including those that routes lead to.
    calls: tuple[str, ...]


@dataclass(frozen=True)
class WantedService:
    """The dataplanes that serve a service, with the sections of their inbounds that do."""

    members: Mapping[str, tuple[str, ...]]
    # SPIFFE ids that its MeshService names; None: those of its dataplanes.
    pinned: frozenset[str] | None = None


@dataclass(frozen=True)
class Wanted:
    proxies: Mapping[str, WantedProxy]
    services: Mapping[str, WantedService]
    # The PEM bundle of each trust domain, and its digest.
    bundles: Mapping[str, str]
    digests: Mapping[str, str]


@dataclass(frozen=True, order=True)
class Wait:
    """A step that waits: whose step it is (a dataplane's or a service's), what it is, for whom it waits, and why."""

    who: str
    step: str
    waits_for: str
    reason: str

    def __str__(self) -> str:
        return f"{self.step} waits for {self.waits_for}: {self.reason}"


@dataclass(frozen=True)
class ServicePlan:
    """How a service is called now by capable callers, and which dataplanes get no traffic, by TLS or plaintext."""

    tls: bool
    server_ids: tuple[str, ...]
    without: Mapping[bool, frozenset[str]]

    def call(self, tls: bool) -> Call:
        return Call(tls, frozenset(self.server_ids) if tls else frozenset(), self.without[tls])


@dataclass(frozen=True)
class Plan:
    """What every proxy and node may be given now."""

    facts: Mapping[str, Facts] = field(default_factory=dict)
    services: Mapping[str, ServicePlan] = field(default_factory=dict)
    # Trust domains that nobody wants any more but somebody still uses, with their bundles (PEM).
    retained: Mapping[str, str] = field(default_factory=dict)
    # What nodes have to hold in addition to the plan's facts, by dataplane.
    held: Mapping[str, tuple[tuple[Identity, Place], ...]] = field(default_factory=dict)
    waits: tuple[Wait, ...] = ()


# --- persistent state -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """What must survive the control plane: how services are called, which bundles were given, what may be in use."""

    services: Mapping[str, bool] = field(default_factory=dict)
    bundles: Mapping[str, str] = field(default_factory=dict)
    possible: Mapping[str, tuple[Facts, ...]] = field(default_factory=dict)

    def to_json(self) -> str:
        calls: dict[Call, int] = {}

        def told(facts: Facts) -> dict[str, Any]:
            identity, place = facts.identity, facts.place
            return {
                "identity": [*astuple(identity)] if identity else None,
                "place": [place.node, place.socket] if place else None,
                "trusts": sorted(facts.trusts),
                "inbounds": {section: [one.plaintext, one.tls] for section, one in facts.inbounds.items()},
                "calls": {service: calls.setdefault(call, len(calls)) for service, call in facts.calls.items()},
            }

        proxies = {name: [told(facts) for facts in possible] for name, possible in self.possible.items()}
        table = [[call.tls, sorted(call.server_ids), sorted(call.without)] for call in calls]
        data = {"services": dict(self.services), "bundles": dict(self.bundles), "proxies": proxies, "calls": table}
        return json.dumps(data, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Record:
        data = json.loads(text)
        table = [Call(tls, frozenset(ids), frozenset(without)) for tls, ids, without in data["calls"]]

        def read(told: dict[str, Any]) -> Facts:
            return Facts(
                Identity(*told["identity"]) if told["identity"] else None,
                Place(*told["place"]) if told["place"] else None,
                frozenset((domain, digest) for domain, digest in told["trusts"]),
                {section: Accepts(*one) for section, one in told["inbounds"].items()},
                {service: table[number] for service, number in told["calls"].items()},
            )

        possible = {name: tuple(read(one) for one in told) for name, told in data["proxies"].items()}
        return Record(data["services"], data["bundles"], possible)
