"""One mesh at one moment, indexed for the questions that configuration asks. Immutable; answers are remembered."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from control.mesh.facts import Facts, Identity, Plan, WantedProxy
from control.model.dataplane import DataplaneSpec, OutboundBackendRef
from control.model.mesh_identity import MeshIdentitySpec, best_matched, zone_of
from control.model.mesh_service import MeshServiceSpec, ServicePort
from control.model.placement import has_proxy
from control.model.reference import ZONE, BackendRef, LabelSelector
from control.model.resource import Resource
from control.model.unreadable import Unreadable
from control.policies.meshloadbalancingstrategy.generate import Endpoint
from control.xds.encoding.shared import SharedConfigs

if TYPE_CHECKING:
    from control.xds.builder import Fixed


@dataclass(frozen=True)
class Destination:
    """One port of one service."""

    service: Resource
    port: ServicePort

    @property
    def name(self) -> str:
        """Of its cluster, its listeners and its routes: Kuma's resource identifier."""
        return f"kri_msvc_{self.service.mesh}___{self.service.name}_{self.port.section}"

    @property
    def sni(self) -> str:
        return f"{self.port.section}.{self.service.name}.{self.service.mesh}.mesh"


class MeshView:
    """All resources of one mesh. `zone` is that of dataplanes without a label kuma.io/zone.

    Without a plan it answers what resources want; with one, what proxies may be given now (transitions.py).
    """

    def __init__(
        self,
        mesh: str,
        resources: Iterable[Resource],
        zone: str = "default",
        before: MeshView | None = None,
        unreadable: Sequence[Unreadable] = (),
        without_ca: Mapping[str, str] | None = None,
        plan: Plan | None = None,
    ) -> None:
        """`before`: an older view of the same mesh; what did not change are the same objects in both.

        `unreadable`: what is left out; what stays in force of it is among the resources. `without_ca`: MeshIdentities
        that never had a CA, and why. They are not in force: nobody can have a certificate.
        """
        self.mesh, self.zone, self.unreadable, self.plan = mesh, zone, tuple(unreadable), plan
        self.without_ca = dict(without_ca or {})
        # Of a view with a plan: the one without.
        self.wanted: MeshView | None = None
        self._by_type: dict[str, dict[str, Resource]] = defaultdict(dict)
        self.resources = tuple(sorted((r for r in resources if r.mesh == mesh), key=lambda r: r.key))
        for resource in self.resources:
            self._by_type[resource.kind.type][resource.name] = resource
        self._members: dict[str, list[Resource]] = {}
        self._identities: dict[str, Identity | None] = {}
        self._endpoints: dict[tuple[str, bool], tuple[Endpoint, ...]] = {}
        self._server_ids: dict[str, tuple[str, ...]] = {}
        self.shared = SharedConfigs()
        # What xds/builder.py and wanted.py keep, by dataplane.
        self.fixed: dict[str, Fixed] = {}
        self.wanted_proxies: dict[str, tuple[Resource, WantedProxy]] = {}
        if before is not None and self._has_surroundings_of(before):
            mine, kept = self._by_type.get("Dataplane", {}), before.wanted_proxies
            self.fixed = {n: fixed for n, fixed in dict(before.fixed).items() if mine.get(n) is fixed.dataplane}
            self.wanted_proxies = {n: one for n, one in dict(kept).items() if mine.get(n) is one[0]}

    def _has_surroundings_of(self, before: MeshView) -> bool:
        """Whether nothing has changed but dataplanes."""
        if self.without_ca.keys() != before.without_ca.keys():
            return False
        mine = (*self._surroundings, *self.unreadable)
        theirs = (*before._surroundings, *before.unreadable)
        return len(mine) == len(theirs) and all(map(operator.is_, mine, theirs))

    @cached_property
    def _surroundings(self) -> Sequence[Resource]:
        return [resource for resource in self.resources if resource.kind.type != "Dataplane"]

    def with_plan(self, plan: Plan, before: MeshView | None) -> MeshView:
        """The same mesh as it is on its way to what is wanted. `before`: an older view with a plan."""
        made = MeshView(self.mesh, self.resources, self.zone, before, self.unreadable, self.without_ca, plan)
        made.resources, made._members, made.wanted = self.resources, self._members, self
        return made

    def of_type(self, type_name: str) -> Sequence[Resource]:
        return list(self._by_type.get(type_name, {}).values())

    def get(self, type_name: str, name: str) -> Resource | None:
        return self._by_type.get(type_name, {}).get(name)

    @property
    def dataplanes(self) -> Sequence[Resource]:
        return self.of_type("Dataplane")

    def withheld(self, name: str) -> str | None:
        """Why the dataplane gets nothing new: it cannot be read, or not be said who it is.

        Without an identity it would take plaintext from everybody.
        """
        dataplane = self.get("Dataplane", name)
        for one in self.unreadable:
            if one.key == ("Dataplane", self.mesh, name):
                return one.remark
            is_unknown = one.type == "MeshIdentity" and one.kept is None
            if is_unknown and dataplane is not None and _may_select(one.data["spec"], dataplane):
                return one.remark
        return None

    def zone_of(self, dataplane: Resource) -> str:
        return dataplane.labels.get(ZONE, self.zone)

    # --- identities and trust -----------------------------------------------------------------------------------------

    @cached_property
    def _mesh_identities(self) -> list[tuple[str, MeshIdentitySpec]]:
        """Those in force."""
        found = [(resource.name, resource.spec) for resource in self.of_type("MeshIdentity")]
        return [(name, spec) for name, spec in found if name not in self.without_ca]

    def _zone_of_identity(self, name: str) -> str:
        return zone_of(self._by_type["MeshIdentity"][name].labels, self.zone)

    def given(self, dataplane: Resource) -> Facts | None:
        """What the plan has for the proxy; None without a plan."""
        return self.plan.facts.get(dataplane.name) if self.plan is not None else None

    def identity_of(self, dataplane: Resource) -> Identity | None:
        """Whom the proxy shows, where there is a plan; else whom it should."""
        given = self.given(dataplane)
        return given.identity if given is not None else self.wanted_identity(dataplane)

    def wanted_identity(self, dataplane: Resource) -> Identity | None:
        """None where no MeshIdentity selects it, or its labels lack what the template needs (see identity_problem)."""
        if dataplane.name not in self._identities:
            self._identities[dataplane.name] = self._find_identity(dataplane)
        return self._identities[dataplane.name]

    def _find_identity(self, dataplane: Resource) -> Identity | None:
        if not has_proxy(dataplane):
            return None
        found = best_matched(self._mesh_identities, dataplane.effective_labels)
        if found is None:
            return None
        name, spec = found
        try:
            spiffe_id = spec.spiffe_id_of(self.mesh, self._zone_of_identity(name), dataplane.effective_labels)
        except KeyError:
            return None
        made_at = self._by_type["MeshIdentity"][name].creation_time
        return Identity(spiffe_id, spiffe_id.removeprefix("spiffe://").partition("/")[0], name, made_at)

    def identity_problem(self, dataplane: Resource) -> str | None:
        """Why a dataplane has not the identity that a MeshIdentity would give it."""
        every = [(resource.name, resource.spec) for resource in self.of_type("MeshIdentity")]
        meant = best_matched(every, dataplane.effective_labels)
        if meant is not None and meant[0] in self.without_ca:
            return f"MeshIdentity {meant[0]} changes nothing yet, since it has no CA: {self.without_ca[meant[0]]}"
        found = best_matched(self._mesh_identities, dataplane.effective_labels)
        if found is None or not has_proxy(dataplane) or self.wanted_identity(dataplane) is not None:
            return None
        try:
            found[1].spiffe_id_of(self.mesh, self._zone_of_identity(found[0]), dataplane.effective_labels)
        except KeyError as missing:
            return f"MeshIdentity {found[0]} needs the label {missing} for its SPIFFE id; set it on the Dataplane"
        return None

    @cached_property
    def trust_bundles(self) -> tuple[tuple[str, str], ...]:
        """(trust domain, PEM of all its CAs), sorted; with those that the plan retains."""
        bundles: dict[str, list[str]] = defaultdict(list)
        for domain, pem in self.plan.retained.items() if self.plan is not None else ():
            bundles[domain].append(pem)
        for trust in self.of_type("MeshTrust"):
            bundles[trust.spec.trust_domain] += [bundle.pem.value.strip() + "\n" for bundle in trust.spec.ca_bundles]
        return tuple((domain, "".join(dict.fromkeys(pems))) for domain, pems in sorted(bundles.items()))

    @property
    def trust_domains(self) -> tuple[str, ...]:
        return tuple(domain for domain, _ in self.trust_bundles)

    # --- services -----------------------------------------------------------------------------------------------------

    def members(self, service: Resource) -> list[Resource]:
        """The dataplanes that the service selects."""
        if service.name not in self._members:
            spec: MeshServiceSpec = service.spec
            candidates = self._candidates(spec)
            self._members[service.name] = [d for d in candidates if spec.selects(d.name, d.effective_labels)]
        return self._members[service.name]

    def _candidates(self, spec: MeshServiceSpec) -> Sequence[Resource]:
        """The dataplanes with the rarest of the selected labels; not all of them for each service."""
        selector = spec.selector.dataplane_labels
        if selector is None or not selector.match_labels:
            return self.dataplanes
        return min((self._by_label.get(label, []) for label in selector.match_labels.items()), key=len)

    @cached_property
    def _by_label(self) -> Mapping[tuple[str, str], list[Resource]]:
        found: dict[tuple[str, str], list[Resource]] = defaultdict(list)
        for dataplane in self.dataplanes:
            for label in dataplane.effective_labels.items():
                found[label].append(dataplane)
        return found

    @cached_property
    def _services_of(self) -> Mapping[str, list[Resource]]:
        """By dataplane, in the order of their names."""
        found: dict[str, list[Resource]] = defaultdict(list)
        for service in self.of_type("MeshService"):
            for dataplane in self.members(service):
                found[dataplane.name].append(service)
        return found

    def endpoints(self, destination: Destination, tls: bool = True) -> tuple[Endpoint, ...]:
        """Of all inbounds that serve the port and are ready, for those who call it by TLS, or by plaintext."""
        if (destination.name, tls) not in self._endpoints:
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
            self._endpoints[destination.name, tls] = tuple(sorted(found))
        return self._endpoints[destination.name, tls]

    def server_ids(self, service: Resource) -> tuple[str, ...]:
        """The SPIFFE ids that may serve it; empty where it is not called by TLS."""
        if service.name not in self._server_ids:
            plan = self.plan.services.get(service.name) if self.plan is not None else None
            self._server_ids[service.name] = plan.server_ids if plan is not None else self._find_server_ids(service)
        return self._server_ids[service.name]

    def calls_by_tls(self, dataplane: Resource, service: Resource) -> bool:
        given = self.given(dataplane)
        call = given.calls.get(service.name) if given is not None else None
        if call is not None:
            return call.tls
        return self.identity_of(dataplane) is not None and bool(self.server_ids(service))

    def takes_plaintext(self, dataplane: Resource, section: str) -> bool | None:
        """Whether the inbound takes plaintext beside TLS; None without a plan, where that is for MeshTLS to say."""
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
            for service in self._services_of.get(dataplane.name, ())
            if any(port.is_served_by(inbound) for port in service.spec.ports)
        ]

    def _select_service(self, labels: Mapping[str, str]) -> Resource | None:
        """The one that the labels select; the smallest name where they select several."""
        wanted = labels.items()
        return next((s for s in self.of_type("MeshService") if wanted <= s.effective_labels.items()), None)

    def resolve_outbound(self, reference: OutboundBackendRef) -> Destination | None:
        if reference.name is not None:
            service = self.get("MeshService", reference.name)
        else:
            service = self._select_service(reference.labels or {})
        return _destination(service, str(reference.port))

    def resolve_backend(self, reference: BackendRef, default_section: str) -> Destination | None:
        """A route's backendRef; without a port it is the one of the route's own service."""
        return _destination(self._select_service(reference.labels), reference.section or default_section)


def _destination(service: Resource | None, section: str) -> Destination | None:
    port = service.spec.port_of(section) if service is not None else None
    return Destination(service, port) if service is not None and port is not None else None


def _may_select(identity: Any, dataplane: Resource) -> bool:
    """Whether a MeshIdentity that cannot be read selects the dataplane, as far as can be told."""
    try:
        selector = LabelSelector.model_validate(identity["selector"]["dataplane"])
    except (ValidationError, KeyError, TypeError):
        return True
    return selector.matches(dataplane.effective_labels)
