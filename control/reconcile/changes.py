"""Changes of resources, and what must follow each of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from control.ca.authorities import MANAGED_BY
from control.ca.authority import UnusableAuthority
from control.model.resource import Resource
from control.reconcile.snapshots import Snapshots
from control.reconcile.state import State
from control.reconcile.views import Views
from control.store.errors import IncompatibleStore, NotFound, StoreError

log = structlog.get_logger(__name__)


class Changes:
    """Confined to the event loop; the store is used from threads."""

    def __init__(self, state: State, views: Views, snapshots: Snapshots) -> None:
        self._store, self._identities, self._plans = state.store, state.identities, state.plans
        self._quarantines, self._left_out = state.quarantines, state.left_out
        self._pending, self._metrics = state.pending, state.metrics
        self._views, self._snapshots = views, snapshots

    async def put(self, resource: Resource, expected_version: int | None = None) -> Resource:
        """Raises InvalidResource for a MeshIdentity whose CA cannot be used."""
        await self._check([resource])
        stored = await asyncio.to_thread(self._store.put, resource, expected_version)
        await self._after([stored])
        return stored

    async def put_all(self, resources: Sequence[Resource]) -> Sequence[Resource]:
        """Raises InvalidResource, like `put`."""
        await self._check(resources)
        stored = await asyncio.to_thread(self._store.put_all, resources)
        await self._after(stored)
        return stored

    async def _check(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            if resource.kind.type == "MeshIdentity":
                await asyncio.to_thread(self._identities.authorities.check, resource)

    async def delete(self, resource_type: str, mesh: str, name: str, expected_version: int | None = None) -> None:
        await asyncio.to_thread(self._store.delete, resource_type, mesh, name, expected_version)
        if resource_type == "Dataplane":
            await asyncio.to_thread(self._identities.forget, mesh, name)
            self._plans.forget(mesh, name)
            self._quarantines.forget(mesh, name)
        elif resource_type == "Mesh":
            self._identities.forget_mesh(name)
            self._views.forget(name)
            self._snapshots.forget(name)
            self._metrics.forget_ends(name)
            self._left_out.show(name, ())
            self._plans.forget_mesh(name)
            self._quarantines.forget(name)
        elif resource_type == "MeshIdentity":
            self._identities.authorities.forget(mesh, name)
            self._metrics.forget_ends(f"{mesh}/{name}")
            await self._views.view(mesh, fresh=True)  # where its trust is looked for, also without proxies
        elif resource_type == "MeshTrust":
            await self._publish_again(mesh, name)
        self._pending.mark_changed([mesh or name])

    async def _publish_again(self, mesh: str, name: str) -> None:
        """The MeshTrust of a MeshIdentity, which was deleted or changed by somebody: it is made anew."""
        try:
            identity = await asyncio.to_thread(self._store.get, "MeshIdentity", mesh, name)
        except (NotFound, IncompatibleStore):
            return
        await asyncio.to_thread(self._publish, identity)

    async def _after(self, changed: Sequence[Resource]) -> None:
        for resource in changed:
            if resource.kind.type == "MeshIdentity":
                await asyncio.to_thread(self._publish, resource)
            elif resource.kind.type == "MeshTrust" and MANAGED_BY.items() <= resource.labels.items():
                await self._publish_again(resource.mesh, resource.name)
        self._pending.mark_changed({resource.mesh or resource.name for resource in changed})

    def publish_all(self) -> None:
        """The trust in every CA that is stored, and what of the store cannot be read; from a thread."""
        self._left_out.show_all(self._store.unreadable())
        for identity in self._store.list("MeshIdentity"):
            self._publish(identity)

    def _publish(self, identity: Resource) -> None:
        try:
            self._identities.authorities.publish_trust(identity)
            rotation = self._identities.authorities.rotation(identity)
        except UnusableAuthority:
            return  # which was logged, and is shown until it works
        except StoreError as error:
            log.error("cannot store a MeshTrust", mesh=identity.mesh, name=identity.name, error=str(error))
            return
        self._metrics.show_end(f"{identity.mesh}/{identity.name}", rotation.issuer.ends_at)
