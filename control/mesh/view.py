"""One mesh at one moment, indexed for the questions that configuration asks. Immutable, and without caches."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from control.mesh.facts import Facts, Plan
from control.model.dataplane import DataplaneSpec, OutboundBackendRef
from control.model.identity import Identity
from control.model.mesh_identity import MeshIdentitySpec, best_matched, zone_of
from control.model.mesh_service import MeshServiceSpec, ServicePort
from control.model.placement import has_proxy
from control.model.resource import Resource
from control.model.target_ref import ZONE, BackendRef, LabelSelector
from control.model.unreadable import Unreadable
from control.policies.meshloadbalancingstrategy.generate import Endpoint


@dataclass(frozen=True)
class Destination:
    """One port of one service."""

    service: Resource
    port: ServicePort

    @property
    def name(self) -> str:
        """The name of its cluster, listeners and routes: Kuma's resource identifier."""
        return f"kri_msvc_{self.service.mesh}___{self.service.name}_{self.port.section}"

    @property
    def sni(self) -> str:
        return f"{self.port.section}.{self.service.name}.{self.service.mesh}.mesh"


@dataclass(frozen=True)
class _Index:
    """What follows from the resources alone; a view with a plan shares that of the view without."""

    by_type: Mapping[str, Mapping[str, Resource]]
    # Whom each dataplane should show.
    identities: Mapping[str, Identity | None]
    # The dataplanes that each service selects, and the services of each dataplane, in the order of their names.
    members: Mapping[str, tuple[Resource, ...]]
    services: Mapping[str, tuple[Resource, ...]]


@dataclass(frozen=True, eq=False)
class MeshView:
    """All resources of one mesh; made by `view_of`.

    Without a plan it says what resources want; with one, what proxies may be given now (transitions.py).
    """

    mesh: str
    # The zone of dataplanes without a label kuma.io/zone.
    zone: str
    resources: tuple[Resource, ...]
    # Resources that are left out; what stays in force of them is among the resources.
    unreadable: tuple[Unreadable, ...]
    # MeshIdentities that never had a CA, and why. They are not in force: nobody can have a certificate.
    without_ca: Mapping[str, str]
    # (trust domain, PEM of all its CAs), sorted; includes those that the plan retains.
    trust_bundles: tuple[tuple[str, str], ...]
    _index: _Index = field(repr=False)
    plan: Plan | None = None
    # In a view with a plan: the view without.
    wanted: MeshView | None = None

    def with_plan(self, plan: Plan) -> MeshView:
        """The same mesh, on its way to what is wanted."""
        return replace(self, plan=plan, wanted=self, trust_bundles=_trust_bundles(self._index, plan))

    def has_surroundings_of(self, before: MeshView) -> bool:
        """Whether only dataplanes have changed since, and all else is the same objects in both."""
        return _same_surroundings(self.resources, self.unreadable, self.without_ca, before)

    def of_type(self, type_name: str) -> Sequence[Resource]:
        return tuple(self._index.by_type.get(type_name, {}).values())

    def get(self, type_name: str, name: str) -> Resource | None:
        return self._index.by_type.get(type_name, {}).get(name)

    @property
    def dataplanes(self) -> Sequence[Resource]:
        return self.of_type("Dataplane")

    def withheld(self, name: str) -> str | None:
        """Why the dataplane gets nothing new: it cannot be read, or its identity cannot be determined.

        Without an identity it would accept plaintext from everybody.
        """
        dataplane = self.get("Dataplane", name)
        for one in self.unreadable:
            if one.key == ("Dataplane", self.mesh, name):
                return one.message
            is_unknown = one.type == "MeshIdentity" and one.kept is None
            if is_unknown and dataplane is not None and _may_select(one.data["spec"], dataplane):
                return one.message
        return None

    def zone_of(self, dataplane: Resource) -> str:
        return dataplane.labels.get(ZONE, self.zone)

    # --- identities and trust -----------------------------------------------------------------------------------------

    def given(self, dataplane: Resource) -> Facts | None:
        """What the plan has for the proxy; None without a plan."""
        return self.plan.facts.get(dataplane.name) if self.plan is not None else None

    def identity_of(self, dataplane: Resource) -> Identity | None:
        """Whom the proxy shows, if there is a plan; else whom it should show."""
        given = self.given(dataplane)
        return given.identity if given is not None else self.wanted_identity(dataplane)

    def wanted_identity(self, dataplane: Resource) -> Identity | None:
        """None where no MeshIdentity selects it, or its labels lack what the template needs (see identity_problem)."""
        return self._index.identities.get(dataplane.name)

    def identity_problem(self, dataplane: Resource) -> str | None:
        """Why a dataplane does not have the identity that a MeshIdentity would give it."""
        every = [(resource.name, resource.spec) for resource in self.of_type("MeshIdentity")]
        meant = best_matched(every, dataplane.effective_labels)
        if meant is not None and meant[0] in self.without_ca:
            return f"MeshIdentity {meant[0]} has no effect yet, since it has no CA: {self.without_ca[meant[0]]}"
        if meant is None or not has_proxy(dataplane) or self.wanted_identity(dataplane) is not None:
            return None
        zone = zone_of(self._index.by_type["MeshIdentity"][meant[0]].labels, self.zone)
        try:
            meant[1].spiffe_id_of(self.mesh, zone, dataplane.effective_labels)
        except KeyError as missing:
            return f"MeshIdentity {meant[0]} needs the label {missing} for its SPIFFE id; set it on the Dataplane"
        return None

    @property
    def trust_domains(self) -> tuple[str, ...]:
        return tuple(domain for domain, _ in self.trust_bundles)

    # --- services -----------------------------------------------------------------------------------------------------

    def members(self, service: Resource) -> Sequence[Resource]:
        """The dataplanes that the service selects."""
        return self._index.members.get(service.name, ())

    def endpoints(self, destination: Destination, tls: bool = True) -> tuple[Endpoint, ...]:
        """All ready inbounds that serve the port, for callers by TLS, or by plaintext."""
        plan = self.plan.services.get(destination.service.name) if self.plan is not None else None
        without = plan.without[tls] if plan is not None else frozenset()
        found = set()
        for dataplane in self.members(destination.service):
            if dataplane.name in without:
                continue
            spec: DataplaneSpec = dataplane.spec
            for inbound in spec.networking.inbound:
                if inbound.is_ready and destination.port.is_served_by(inbound):
                    address = inbound.address or spec.networking.address
                    found.add(Endpoint(address, inbound.port, self.zone_of(dataplane)))
        return tuple(sorted(found))

    def server_ids(self, service: Resource) -> tuple[str, ...]:
        """The SPIFFE ids that may serve it; empty if it is not called by TLS."""
        plan = self.plan.services.get(service.name) if self.plan is not None else None
        return plan.server_ids if plan is not None else self._find_server_ids(service)

    def calls_by_tls(self, dataplane: Resource, service: Resource) -> bool:
        given = self.given(dataplane)
        call = given.calls.get(service.name) if given is not None else None
        if call is not None:
            return call.tls
        return self.identity_of(dataplane) is not None and bool(self.server_ids(service))

    def takes_plaintext(self, dataplane: Resource, section: str) -> bool | None:
        """Whether the inbound accepts plaintext besides TLS; None without a plan, when MeshTLS decides."""
        given = self.given(dataplane)
        return given.inbounds[section].plaintext if given is not None and section in given.inbounds else None

    def _find_server_ids(self, service: Resource) -> tuple[str, ...]:
        if service.spec.identities:
            return tuple(sorted({identity.value for identity in service.spec.identities}))
        identities = [self.identity_of(dataplane) for dataplane in self.members(service)]
        if not identities or None in identities:
            return ()
        return tuple(sorted({identity.spiffe_id for identity in identities if identity is not None}))

    def services_of(self, dataplane: Resource, section: str) -> list[str]:
        """Names of the services that offer this inbound."""
        inbound = next(i for i in dataplane.spec.networking.inbound if i.section == section)
        return [
            service.name
            for service in self._index.services.get(dataplane.name, ())
            if any(port.is_served_by(inbound) for port in service.spec.ports)
        ]

    def _select_service(self, labels: Mapping[str, str]) -> Resource | None:
        """The service that the labels select; the smallest name if they select several."""
        wanted = labels.items()
        return next((s for s in self.of_type("MeshService") if wanted <= s.effective_labels.items()), None)

    def resolve_outbound(self, reference: OutboundBackendRef) -> Destination | None:
        if reference.name is not None:
            service = self.get("MeshService", reference.name)
        else:
            service = self._select_service(reference.labels or {})
        return _destination(service, str(reference.port))

    def resolve_backend(self, reference: BackendRef, default_section: str) -> Destination | None:
        """Resolves a route's backendRef; without a port it is the one of the route's own service."""
        return _destination(self._select_service(reference.labels), reference.section or default_section)


def view_of(
    mesh: str,
    resources: Iterable[Resource],
    zone: str = "default",
    unreadable: Iterable[Unreadable] = (),
    without_ca: Mapping[str, str] | None = None,
    before: MeshView | None = None,
) -> MeshView:
    """The view, without a plan, of those resources that are in this mesh.

    `before`: an earlier view of the mesh, which spares computing again who its unchanged dataplanes are.
    """
    own = tuple(sorted((resource for resource in resources if resource.mesh == mesh), key=lambda r: r.key))
    found: dict[str, dict[str, Resource]] = defaultdict(dict)
    for resource in own:
        found[resource.kind.type][resource.name] = resource
    by_type = MappingProxyType({type_name: MappingProxyType(some) for type_name, some in found.items()})
    dataplanes = tuple(by_type.get("Dataplane", {}).values())
    members = _members(by_type.get("MeshService", {}).values(), dataplanes)
    services: dict[str, list[Resource]] = defaultdict(list)
    for service_name, selected in members.items():
        for dataplane in selected:
            services[dataplane.name].append(by_type["MeshService"][service_name])
    known: Mapping[str, Resource] = by_type.get("MeshIdentity", {})
    specs = [(one.name, one.spec) for one in known.values() if one.name not in (without_ca or {})]
    left_out = tuple(unreadable)
    holds = before is not None and before.zone == zone and _same_surroundings(own, left_out, without_ca or {}, before)
    unchanged = before._index if before is not None and holds else None
    identities = {
        one.name: unchanged.identities[one.name]
        if unchanged is not None and unchanged.by_type.get("Dataplane", {}).get(one.name) is one
        else _identity(mesh, zone, one, specs, known)
        for one in dataplanes
    }
    index = _Index(
        by_type,
        MappingProxyType(identities),
        MappingProxyType(members),
        MappingProxyType({name: tuple(some) for name, some in services.items()}),
    )
    without = MappingProxyType(dict(without_ca or {}))
    return MeshView(mesh, zone, own, left_out, without, _trust_bundles(index, None), index)


def _same_surroundings(
    resources: Sequence[Resource], unreadable: Sequence[Unreadable], without_ca: Mapping[str, str], before: MeshView
) -> bool:
    if without_ca.keys() != before.without_ca.keys():
        return False
    mine, theirs = _surroundings(resources, unreadable), _surroundings(before.resources, before.unreadable)
    return len(mine) == len(theirs) and all(map(operator.is_, mine, theirs))


def _surroundings(resources: Sequence[Resource], unreadable: Sequence[Unreadable]) -> list[object]:
    return [*(resource for resource in resources if resource.kind.type != "Dataplane"), *unreadable]


def _members(services: Iterable[Resource], dataplanes: Sequence[Resource]) -> dict[str, tuple[Resource, ...]]:
    by_label: dict[tuple[str, str], list[Resource]] = defaultdict(list)
    for dataplane in dataplanes:
        for label in dataplane.effective_labels.items():
            by_label[label].append(dataplane)

    def candidates(spec: MeshServiceSpec) -> Sequence[Resource]:
        """The dataplanes with the rarest of the selected labels, so that not all are tried for each service."""
        selector = spec.selector.dataplane_labels
        if selector is None or not selector.match_labels:
            return dataplanes
        return min((by_label.get(label, []) for label in selector.match_labels.items()), key=len)

    return {
        service.name: tuple(d for d in candidates(service.spec) if service.spec.selects(d.name, d.effective_labels))
        for service in services
    }


def _identity(
    mesh: str,
    zone: str,
    dataplane: Resource,
    specs: Sequence[tuple[str, MeshIdentitySpec]],
    identities: Mapping[str, Resource],
) -> Identity | None:
    """Whom a dataplane should show, by the MeshIdentities in force."""
    found = best_matched(specs, dataplane.effective_labels) if has_proxy(dataplane) else None
    if found is None:
        return None
    name, spec = found
    try:
        spiffe_id = spec.spiffe_id_of(mesh, zone_of(identities[name].labels, zone), dataplane.effective_labels)
    except KeyError:
        return None
    trust_domain = spiffe_id.removeprefix("spiffe://").partition("/")[0]
    return Identity(spiffe_id, trust_domain, name, identities[name].creation_time)


def _trust_bundles(index: _Index, plan: Plan | None) -> tuple[tuple[str, str], ...]:
    bundles: dict[str, list[str]] = defaultdict(list)
    for domain, pem in plan.retained.items() if plan is not None else ():
        bundles[domain].append(pem)
    for trust in index.by_type.get("MeshTrust", {}).values():
        bundles[trust.spec.trust_domain] += [bundle.pem.value.strip() + "\n" for bundle in trust.spec.ca_bundles]
    return tuple((domain, "".join(dict.fromkeys(pems))) for domain, pems in sorted(bundles.items()))


def _destination(service: Resource | None, section: str) -> Destination | None:
    port = service.spec.port_of(section) if service is not None else None
    return Destination(service, port) if service is not None and port is not None else None


def _may_select(identity: Any, dataplane: Resource) -> bool:
    """Whether a MeshIdentity that cannot be read may select the dataplane."""
    try:
        selector = LabelSelector.model_validate(identity["selector"]["dataplane"])
    except (ValidationError, KeyError, TypeError):
        return True
    return selector.matches(dataplane.effective_labels)
