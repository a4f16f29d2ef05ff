"""What a mesh's resources want of each proxy and service, as far as they depend on each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from control.mesh.facts import Place, Wanted, WantedProxy, WantedService
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import Destination, MeshView
from control.model.dataplane import DataplaneSpec
from control.model.placement import node_of
from control.model.resource import Resource
from control.policies.matching import inbound_entries, merged
from control.policies.meshtls import generate as tls
from control.policies.meshtls.schema import Conf as TlsConf
from control.xds.render import outbounds
from control.xds.render.outbounds import OutboundContext


def wanted_of(view: MeshView) -> Wanted:
    """Of a view without a plan."""
    proxies = {}
    for dataplane in view.dataplanes:
        kept = view.wanted_proxies.get(dataplane.name)
        if kept is None:
            kept = view.wanted_proxies[dataplane.name] = (dataplane, _proxy(view, dataplane))
        proxies[dataplane.name] = kept[1]
    services = {service.name: _service(view, service) for service in view.of_type("MeshService")}
    bundles = dict(view.trust_bundles)
    return Wanted(proxies, services, bundles, {domain: digest_of_pem(pem) for domain, pem in bundles.items()})


def _proxy(view: MeshView, dataplane: Resource) -> WantedProxy:
    policies, identity = ProxyPolicies(view, dataplane), view.identity_of(dataplane)
    settings, spec = policies.offload, dataplane.spec
    place = Place(node_of(dataplane) or "", settings.socket) if settings.mode == "Offload" and identity else None
    plaintext = {}
    for inbound in spec.networking.inbound:
        conf = merged(inbound_entries(policies.of_type("MeshTLS"), inbound.section, inbound.port), TlsConf)
        plaintext[inbound.section] = identity is None or tls.is_permissive(conf)
    return WantedProxy(identity, place, plaintext, _calls(view, dataplane, policies))


def _calls(view: MeshView, dataplane: Resource, policies: ProxyPolicies) -> tuple[str, ...]:
    spec: DataplaneSpec = dataplane.spec
    context, found = OutboundContext(view, dataplane, policies, None, None), dict[str, None]()
    for outbound in spec.networking.outbound:
        destination = view.resolve_outbound(outbound.backend_ref)
        if destination is None:
            continue
        # The service itself too: a route that leads elsewhere may be left out for the proxy (xds/quarantine.py).
        found[destination.service.name] = None
        if destination.port.is_http:
            found |= dict.fromkeys(one.service.name for one in _reached(context, destination))
    return tuple(found)


def _reached(context: OutboundContext, destination: Destination) -> Sequence[Destination]:
    try:
        return outbounds.routes(context, destination)[1]
    except Exception:  # noqa: BLE001 (the build of the proxy meets it too, and says what is left out for it)
        return ()


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
    """Of a bundle, whatever order it is in; DER."""
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(der).digest() for der in certificates))).hexdigest()[:16]
