"""What a mesh's resources want of each proxy and service, as far as they depend on each other."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from control.mesh import http_routes
from control.mesh.facts import Place, Wanted, WantedProxy, WantedService
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import Destination, MeshView
from control.model.dataplane import DataplaneSpec
from control.model.placement import node_of
from control.model.resource import Resource
from control.policies.matching import inbound_entries, merged
from control.policies.meshtls import generate as tls
from control.policies.meshtls.schema import Conf as TlsConf


class Wants:
    """What one mesh wants, view after view.

    While nothing but other dataplanes changes, a dataplane wants the same as before.
    """

    def __init__(self) -> None:
        # The last view and what its proxies want, replaced as one: threads that overlap never mix two views.
        self._kept: tuple[MeshView, Mapping[str, tuple[Resource, WantedProxy]]] | None = None

    def of(self, view: MeshView) -> Wanted:
        """What a view without a plan wants."""
        last, routes = self._kept, _Routes(view)
        before = last[1] if last is not None and view.has_surroundings_of(last[0]) else {}
        now = dict[str, tuple[Resource, WantedProxy]]()
        for dataplane in view.dataplanes:
            kept = before.get(dataplane.name)
            if kept is None or kept[0] is not dataplane:
                kept = dataplane, _proxy(view, dataplane, routes)
            now[dataplane.name] = kept
        self._kept = view, now
        services = {service.name: _service(view, service) for service in view.of_type("MeshService")}
        bundles = dict(view.trust_bundles)
        digests = {domain: digest_of_pem(pem) for domain, pem in bundles.items()}
        return Wanted({name: wanted for name, (_, wanted) in now.items()}, services, bundles, digests)


def _proxy(view: MeshView, dataplane: Resource, routes: _Routes) -> WantedProxy:
    policies, identity = ProxyPolicies(view, dataplane), view.identity_of(dataplane)
    settings, spec = policies.offload, dataplane.spec
    place = Place(node_of(dataplane) or "", settings.socket) if settings.mode == "Offload" and identity else None
    plaintext = {}
    for inbound in spec.networking.inbound:
        conf = merged(inbound_entries(policies.of_type("MeshTLS"), inbound.section, inbound.port), TlsConf)
        plaintext[inbound.section] = identity is None or tls.is_permissive(conf)
    return WantedProxy(identity, place, plaintext, _calls(view, dataplane, policies, routes))


def _calls(view: MeshView, dataplane: Resource, policies: ProxyPolicies, routes: _Routes) -> tuple[str, ...]:
    spec: DataplaneSpec = dataplane.spec
    found = dict[str, None]()
    for outbound in spec.networking.outbound:
        destination = view.resolve_outbound(outbound.backend_ref)
        if destination is None:
            continue
        # The service itself is included: a route to another one may be left out for the proxy (xds/quarantine.py).
        found[destination.service.name] = None
        if destination.port.is_http:
            found |= dict.fromkeys(routes.services(policies, destination))
    return tuple(found)


class _Routes:
    """Where routes lead in one view; the same for all proxies that the same policies select."""

    def __init__(self, view: MeshView) -> None:
        self._view, self._services = view, dict[Hashable, Sequence[str]]()

    def services(self, policies: ProxyPolicies, destination: Destination) -> Sequence[str]:
        key = destination.name, policies.key(http_routes.TYPE)
        if key not in self._services:
            self._services[key] = self._find(policies, destination)
        return self._services[key]

    def _find(self, policies: ProxyPolicies, destination: Destination) -> Sequence[str]:
        try:
            _, reached = http_routes.routes(self._view, policies, destination)
        except Exception:  # noqa: BLE001 (the build of the proxy meets it too, and says what is left out for it)
            return ()
        return [one.service.name for one in reached.values()]


def _service(view: MeshView, service: Resource) -> WantedService:
    members = {}
    for dataplane in view.members(service):
        inbounds = dataplane.spec.networking.inbound
        sections = tuple(i.section for i in inbounds if any(port.is_served_by(i) for port in service.spec.ports))
        if sections:
            members[dataplane.name] = sections
    pinned = frozenset(identity.value for identity in service.spec.identities or ())
    return WantedService(members, pinned or None)


@lru_cache(1024)
def digest_of_pem(pem: str) -> str:
    certificates = x509.load_pem_x509_certificates(pem.encode())
    return digest_of(tuple(one.public_bytes(serialization.Encoding.DER) for one in certificates))


def digest_of(certificates: tuple[bytes, ...]) -> str:
    """Digest of a bundle (DER), independent of its order."""
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(der).digest() for der in certificates))).hexdigest()[:16]
