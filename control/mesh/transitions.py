"""How a mesh gets from what its proxies and nodes have to what is wanted, without breaking a working path. Pure.

Theory of operation
-------------------
The plan is stored; what proxies and nodes have acknowledged is evidence. `plan` takes both and says what each proxy may
be given now, and which steps wait for whom. It runs again at each change of either. Every step is make before break:
servers accept the new beside the old, then callers move over, then the old is removed.

A service is called by plaintext or by mutual TLS, by all capable callers:

    PLAINTEXT --every member takes TLS, and trusts its callers--> TLS
    TLS --nobody has an identity any more, every member takes plaintext--> PLAINTEXT

TLS is sticky: a member that is not ready (no identity, no certificate, nothing acknowledged) gets no traffic, and does
not bring the service back to plaintext.

    inbound     accepts plaintext that it accepted before, whatever is wanted, while a known proxy calls it so
                accepts TLS that it accepted before, whatever is wanted, while a known proxy calls it so
    identity    a proxy moves to another SPIFFE id when everybody who calls it accepts that, and everybody whom it
                calls and who calls it verifies its trust domain; until then it shows the old one
    callers     accept the ids that members show, may be showing, and are going to show
    bundles     keep a trust domain that nobody wants any more while somebody shows an id of it
    key         moves to (another socket of) a node's daemon when that serves the identity there; the node must hold it
                until the proxy has acknowledged that it uses another one

Security is the exception and waits for nobody: permissions are not known here, an inbound never accepts plaintext that
it did not accept before, and a CA that is removed from a MeshTrust is no longer trusted.

A proxy may be using everything between its last acknowledgement and the newest that it was given (`Known.possible`).
It surely does what all of these do, and may do what any does. A disconnected proxy uses what it had; it is waited
for until it is LOST, and gets traffic until it is OFFLINE. Callers without a proxy of this mesh are not waited for:
ending their plaintext is what Strict is for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from control.mesh.facts import (
    Accepts,
    Call,
    Evidence,
    Facts,
    Place,
    Plan,
    Presence,
    Record,
    ServicePlan,
    Wait,
    Wanted,
    WantedProxy,
    WantedService,
)
from control.mesh.in_use import InUse
from control.model.identity import Identity

# Values of `Wait.step`, for people; metrics count by the first word.
TLS = "mutual TLS to the service"
PLAINTEXT = "plaintext to the service"
STRICT = "strict TLS"
NO_TLS = "the end of TLS"
NEW_IDENTITY = "the new identity"
OFFLOAD = "the key's move"
TRAFFIC = "traffic"
# Prefix of whom a step waits for, if it is a node and not a dataplane.
NODE = "node "


def service_step(name: str) -> str:
    """How a service is named in `Wait.who`."""
    return f"service {name}"


def plan(wanted: Wanted, record: Record, evidence: Evidence) -> Plan:
    return _Planner(wanted, record, evidence).plan()


class _Planner:
    def __init__(self, wanted: Wanted, record: Record, evidence: Evidence) -> None:
        self._wanted, self._record, self._evidence = wanted, record, evidence
        self._in_use = InUse(evidence, wanted.digests)
        self._services_of: dict[str, list[str]] = defaultdict(list)
        for name, service in wanted.services.items():
            for member in service.members:
                self._services_of[member].append(name)
        self._waits: set[Wait] = set()

    def plan(self) -> Plan:
        services = {name: self._service(name, service) for name, service in self._wanted.services.items()}
        self._services = services
        holdings = {name: self._holding(name, proxy) for name, proxy in self._wanted.proxies.items()}
        retained = self._retained(identity for identity, _ in holdings.values())
        self._trusts = frozenset(self._wanted.digests.items()) | frozenset(
            (domain, "retained") for domain in retained if domain not in self._wanted.digests
        )
        self._shared = {(name, tls): services[name].call(tls) for name in services for tls in (True, False)}
        self._holdings = holdings
        calls = {name: self._calls(name, proxy) for name, proxy in self._wanted.proxies.items()}
        self._by_plaintext = self._plaintext_callers(calls)
        facts = {name: self._facts(name, proxy, calls[name]) for name, proxy in self._wanted.proxies.items()}
        return Plan(facts, services, retained, self._held(holdings), tuple(sorted(self._waits)))

    def _wait(self, who: str, step: str, waits_for: str, reason: str) -> None:
        self._waits.add(Wait(who, step, waits_for, reason))

    # --- services -----------------------------------------------------------------------------------------------------

    def _service(self, name: str, service: WantedService) -> ServicePlan:
        proxies = self._wanted.proxies
        with_identity = [m for m in service.members if proxies[m].identity is not None]
        before = self._record.services.get(name)
        if before is None:
            tls = self._begins_with_tls(service, with_identity)
        elif before:
            tls = bool(service.pinned or with_identity) or not self._may_end_tls(name, service)
        else:
            tls = self._may_begin_tls(name, service, with_identity)
        without = {True: self._without_tls(name, service, tls), False: self._without_plaintext(service)}
        return ServicePlan(tls, self._server_ids(service) if tls else (), without)

    def _begins_with_tls(self, service: WantedService, with_identity: list[str]) -> bool:
        """Whether a new service starts with TLS: if all members can, or if some accept nothing else."""
        if service.pinned:
            return True
        strict = any(
            not self._wanted.proxies[member].plaintext[section]
            for member in with_identity
            for section in service.members[member]
        )
        return bool(with_identity) and (strict or len(with_identity) == len(service.members))

    def _may_begin_tls(self, name: str, service: WantedService, with_identity: list[str]) -> bool:
        counting = [member for member in service.members if self._in_use.counts(member)]
        if not service.pinned and not with_identity:
            return False
        lacking = [member for member in counting if member not in with_identity]
        if not service.pinned and lacking:
            for member in lacking:
                self._wait(service_step(name), TLS, member, "it has no identity")
            return False
        users = [c for c in self._in_use.callers(name) if any(not call.tls for _, call in c.calls)]
        if not users:
            return True
        late = [
            member for member in counting if not self._in_use.takes_tls(member, service.members[member], served=True)
        ]
        for member in late:
            self._wait(
                service_step(name), TLS, member, self._in_use.how(member, "it has not acknowledged that it takes TLS")
            )
        domains = {
            proxy.identity.trust_domain for user in users if (proxy := self._proxy(user.name)) and proxy.identity
        }
        for member in counting:
            for domain in sorted(domains):
                if not self._in_use.surely(member, lambda facts, domain=domain: self._in_use.verifies(facts, domain)):  # type: ignore[misc]
                    self._wait(
                        service_step(name),
                        TLS,
                        member,
                        self._in_use.how(member, f"it does not verify callers of {domain} yet"),
                    )
                    late.append(member)
        return bool(counting) and not late

    def _may_end_tls(self, name: str, service: WantedService) -> bool:
        if not any(call.tls for caller in self._in_use.callers(name) for _, call in caller.calls):
            return True
        counting = [member for member in service.members if self._in_use.counts(member)]
        late = [member for member in counting if not self._in_use.takes_plaintext(member, service.members[member])]
        for member in late:
            self._wait(
                service_step(name),
                PLAINTEXT,
                member,
                self._in_use.how(member, "it has not acknowledged that it takes plaintext"),
            )
        return not late

    def _proxy(self, name: str) -> WantedProxy | None:
        return self._wanted.proxies.get(name)

    def _server_ids(self, service: WantedService) -> tuple[str, ...]:
        if service.pinned:
            return tuple(sorted(service.pinned))
        found = set()
        for member in service.members:
            identities = [facts.identity for facts in self._evidence.of(member).possible]
            identities.append(self._wanted.proxies[member].identity)
            found |= {identity.spiffe_id for identity in identities if identity is not None}
        return tuple(sorted(found))

    def _without_tls(self, name: str, service: WantedService, in_use: bool) -> frozenset[str]:
        out = set()
        ends = not service.pinned and all(self._wanted.proxies[m].identity is None for m in service.members)
        for member, sections in service.members.items():
            lost = self._wanted.proxies[member].identity is None and not ends and not service.pinned
            if not self._in_use.counts(member):
                out.add(member)
            elif lost or not self._in_use.takes_tls(member, sections):
                out.add(member)
                why = "it has no identity" if lost else "it has not acknowledged that it takes TLS"
                if in_use:
                    self._wait(
                        member, TRAFFIC, member, self._in_use.how(member, f"{name} is called by mutual TLS, and {why}")
                    )
        return frozenset(out)

    def _without_plaintext(self, service: WantedService) -> frozenset[str]:
        """Members that accept no plaintext; but never all of them, since trying costs nothing."""
        gone = {member for member in service.members if not self._in_use.counts(member)}
        deaf = {
            member
            for member, sections in service.members.items()
            if member not in gone
            and self._evidence.of(member).possible
            and not any(
                all((one := facts.inbounds.get(s)) is not None and one.plaintext for s in sections)
                for facts in self._evidence.of(member).possible
            )
        }
        if len(gone | deaf) == len(service.members):
            deaf = set()
        return frozenset(gone | deaf)

    # --- identities and keys ------------------------------------------------------------------------------------------

    def _holding(self, name: str, proxy: WantedProxy) -> tuple[Identity | None, Place | None]:
        """Whom the proxy shows, and where its key is."""
        latest = self._in_use.latest(name)
        if (
            latest is None
            or latest.identity is None
            or (latest.identity, latest.place) == (proxy.identity, proxy.place)
        ):
            return proxy.identity, proxy.place
        held = latest.identity, latest.place
        if proxy.identity is None:
            return held if self._is_needed(name, proxy) else (None, proxy.place)
        moves = self._moves(name, proxy.identity, proxy.place, latest)
        return held if moves else (proxy.identity, proxy.place)

    def _is_needed(self, name: str, proxy: WantedProxy) -> bool:
        """Whether it still needs an identity that it is about to lose, since it is called or calls by TLS."""
        needed = False
        for service in self._services_of.get(name, ()):
            for caller in self._in_use.callers_of(service, name, tls=True):
                self._wait(
                    name, NO_TLS, caller.name, self._in_use.how(caller.name, f"it calls {service} by mutual TLS")
                )
                needed = True
        for service in proxy.calls:
            members = self._wanted.services[service].members if self._services[service].tls else {}
            for member, sections in members.items():
                if self._in_use.counts(member) and not self._in_use.takes_plaintext(member, sections):
                    reason = f"it takes no plaintext, and {name} calls {service}"
                    self._wait(name, NO_TLS, member, self._in_use.how(member, reason))
                    needed = True
        return needed

    def _moves(self, name: str, identity: Identity, place: Place | None, latest: Facts) -> list[str]:
        """For whom the proxy waits before it moves to another identity or place; also records the waits."""
        late: list[str] = []

        def waits(step: str, waits_for: str, reason: str) -> None:
            self._wait(name, step, waits_for, reason)
            late.append(waits_for)

        if place is not None and not self._in_use.serves(place, identity):
            waits(OFFLOAD, NODE + place.node, f"its daemon does not serve {identity.spiffe_id} at {place.socket}")
        if latest.identity == identity:
            return late
        domain = identity.trust_domain
        for service in self._services_of.get(name, ()):
            for caller in self._in_use.callers_of(service, name, tls=True):
                uses = [(facts, call) for facts, call in caller.calls if call.tls and name not in call.without]
                if any(identity.spiffe_id not in call.server_ids for _, call in uses):
                    reason = f"it calls {service} and does not accept {identity.spiffe_id} yet"
                    waits(NEW_IDENTITY, caller.name, self._in_use.how(caller.name, reason))
                if any(not self._in_use.verifies(facts, domain) for facts, _ in uses):
                    reason = f"it calls {service} and does not verify {domain} yet"
                    waits(NEW_IDENTITY, caller.name, self._in_use.how(caller.name, reason))
        for service, call in latest.calls.items():
            members = self._wanted.services[service].members if call.tls and service in self._wanted.services else {}
            for member in members:
                if not self._in_use.counts(member) or member in call.without or member == name:
                    continue
                if not self._in_use.surely(member, lambda facts: self._in_use.verifies(facts, domain)):
                    reason = f"it is called by {name} and does not verify {domain} yet"
                    waits(NEW_IDENTITY, member, self._in_use.how(member, reason))
        return late

    def _retained(self, given: Iterable[Identity | None]) -> dict[str, str]:
        """Bundles of trust domains that nobody wants but somebody still shows."""
        wanted = {proxy.identity.trust_domain for proxy in self._wanted.proxies.values() if proxy.identity is not None}
        shown = {identity.trust_domain for identity in given if identity is not None}
        for known in self._evidence.proxies.values():
            if known.presence is not Presence.LOST:
                shown |= {facts.identity.trust_domain for facts in known.possible if facts.identity is not None}
        before = self._record.bundles
        return {d: before[d] for d in sorted(shown - wanted - self._wanted.bundles.keys()) if d in before}

    def _held(
        self, holdings: Mapping[str, tuple[Identity | None, Place | None]]
    ) -> dict[str, tuple[tuple[Identity, Place], ...]]:
        """What nodes have to hold: what proxies use, may be using, and are going to use."""
        found: dict[str, tuple[tuple[Identity, Place], ...]] = {}
        for name, proxy in self._wanted.proxies.items():
            known = self._evidence.of(name)
            pairs = [(proxy.identity, proxy.place), holdings[name]]
            if known.presence is not Presence.LOST:
                pairs += [(facts.identity, facts.place) for facts in known.possible]
            held = {(identity, place): None for identity, place in pairs if identity is not None and place is not None}
            if held:
                found[name] = tuple((i, p) for i, p in held if i is not None and p is not None)
        return found

    # --- what proxies get ---------------------------------------------------------------------------------------------

    def _calls(self, name: str, proxy: WantedProxy) -> dict[str, Call]:
        identity, place = self._holdings[name]
        latest = self._in_use.latest(name)
        return {
            service: self._shared[service, self._calls_by_tls(name, identity, place, latest, service)]
            for service in proxy.calls
        }

    def _calls_by_tls(
        self, name: str, identity: Identity | None, place: Place | None, latest: Facts | None, service: str
    ) -> bool:
        if identity is None or not self._services[service].tls:
            return False
        before = latest.calls.get(service) if latest is not None else None
        if before is None or latest is None or before.tls:
            return True
        if latest.identity != identity:
            self._wait(name, TLS, name, f"it has no certificate of {identity.spiffe_id} yet")
            return False
        late = [
            member
            for member, sections in self._wanted.services[service].members.items()
            if self._in_use.counts(member)
            and member not in before.without
            and self._in_use.takes_plaintext(member, sections)
            and not self._in_use.surely(member, lambda facts: self._in_use.verifies(facts, identity.trust_domain))
        ]
        for member in late:
            reason = f"it does not verify callers of {identity.trust_domain} yet"
            self._wait(name, TLS, member, self._in_use.how(member, reason))
        served = self._in_use.serves(place, identity)
        if not served and place is not None:
            reason = f"its daemon does not serve {identity.spiffe_id} at {place.socket}"
            self._wait(name, TLS, NODE + place.node, reason)
        return served and not late

    def _plaintext_callers(self, calls: Mapping[str, Mapping[str, Call]]) -> Mapping[str, list[str]]:
        """Who may call each service by plaintext now."""
        found: dict[str, list[str]] = defaultdict(list)
        for name, called in calls.items():
            if self._evidence.of(name).presence in (Presence.HERE, Presence.AWAY):
                for service, call in called.items():
                    if not call.tls:
                        found[service].append(name)
        return found

    def _facts(self, name: str, proxy: WantedProxy, calls: Mapping[str, Call]) -> Facts:
        identity, place = self._holdings[name]
        if identity is None:
            taken = {section: Accepts(True, False) for section in proxy.plaintext}
            return Facts(None, place, self._trusts, taken, calls)
        latest, wants = self._in_use.latest(name), proxy.identity is not None
        inbounds = {}
        for section, wanted in proxy.plaintext.items():
            before = latest.inbounds.get(section) if latest is not None else None
            kept = not wanted and wants and before is not None and before.plaintext and self._is_called(name, section)
            inbounds[section] = Accepts(wanted or not wants or kept, True)
        return Facts(identity, place, self._trusts, inbounds, calls)

    def _is_called(self, name: str, section: str) -> bool:
        """Whether a known proxy calls the inbound by plaintext, or may do so now."""
        found = False
        for service in self._services_of.get(name, ()):
            if section not in self._wanted.services[service].members[name]:
                continue
            callers = {caller.name for caller in self._in_use.callers_of(service, name, tls=False)}
            if name not in self._services[service].without[False]:
                callers.update(caller for caller in self._by_plaintext.get(service, ()) if caller != name)
            for caller in sorted(callers):
                self._wait(name, STRICT, caller, self._in_use.how(caller, f"it calls {service} by plaintext"))
                found = True
        return found
