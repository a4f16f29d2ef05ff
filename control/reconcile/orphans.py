"""MeshTrusts that the control plane derived from a MeshIdentity that no longer exists.

Such a CA stays trusted until nobody needs it: until every proxy and node has the change, handshakes with its
certificates would fail. Then it goes, as its key did: a leaked key must not be usable for ever.
"""

from __future__ import annotations

import asyncio

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from control.ca.authorities import MANAGED_BY
from control.mesh.view import MeshView
from control.model.resource import Resource
from control.reconcile.daemons import node_with_key
from control.reconcile.state import State
from control.store.errors import StoreError

log = structlog.get_logger(__name__)


def orphans(view: MeshView) -> list[Resource]:
    unreadable = {one.key for one in view.unreadable}
    return [
        trust
        for trust in view.of_type("MeshTrust")
        if MANAGED_BY.items() <= trust.labels.items()
        and view.get("MeshIdentity", trust.name) is None
        and ("MeshIdentity", view.mesh, trust.name) not in unreadable
    ]


def fingerprints(trust: Resource) -> frozenset[str]:
    """SHA-256 of its CAs, hexadecimal."""
    return frozenset(
        certificate.fingerprint(hashes.SHA256()).hex()
        for bundle in trust.spec.ca_bundles
        for certificate in x509.load_pem_x509_certificates(bundle.pem.value.encode())
    )


class OrphanedTrust:
    """Confined to the event loop; the store is used from threads."""

    def __init__(self, state: State) -> None:
        self._store, self._identities, self._plans = state.store, state.identities, state.plans
        self._proxies, self._pending = state.proxies, state.pending

    async def retire(self, view: MeshView) -> None:
        """Ends the trust in a CA whose MeshIdentity was deleted, once nobody needs it any more."""
        for trust in orphans(view):
            if not self._is_needed(view, trust):
                await self._take_away(view.mesh, trust)

    def _is_needed(self, view: MeshView, trust: Resource) -> bool:
        """Whether somebody needs it, as far as is known; also if somebody has not got the newest state yet."""
        work = self._pending.work
        if view.mesh in work.changed | work.moved:
            return True
        if not all(proxy.has_everything for proxy in self._proxies.of(view.mesh)):
            return True
        if self._plans.may_show(view.mesh, trust.name):
            return True  # somebody still has, or may have, the deleted identity
        gone = fingerprints(trust)
        return any(self._uses(view, dataplane, trust, gone) for dataplane in view.dataplanes)

    def _uses(self, view: MeshView, dataplane: Resource, trust: Resource, gone: frozenset[str]) -> bool:
        identity, node = view.identity_of(dataplane), node_with_key(view, dataplane)
        if identity is not None and identity.mesh_identity == trust.name:
            return True
        if identity is None or not node:
            return False
        last = self._identities.last_issuer(view.mesh, identity.spiffe_id, node)
        return last is None or last in gone

    async def _take_away(self, mesh: str, trust: Resource) -> None:
        try:
            await asyncio.to_thread(self._store.delete, "MeshTrust", mesh, trust.name, trust.version)
            await asyncio.to_thread(self._identities.forget_of, mesh, fingerprints(trust))
        except StoreError as error:
            log.error("cannot remove a MeshTrust", mesh=mesh, name=trust.name, error=str(error))
            return
        log.info("the CA of a deleted MeshIdentity is no longer trusted", mesh=mesh, identity=trust.name)
        self._pending.mark_changed([mesh])
