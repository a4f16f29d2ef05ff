"""The newest view of each mesh: what is stored, and what is given of it now."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from control.mesh.view import MeshView, view_of
from control.model.resource import Resource
from control.model.unreadable import Unreadable
from control.reconcile.state import State


@dataclass(frozen=True)
class Current:
    """A view, and how current it is: the number of local changes when it was read, and the store's generation."""

    epoch: int
    generation: int
    # What is stored, without and with what is given of it now.
    wanted: MeshView
    view: MeshView


class Views:
    """Confined to the event loop; the store is used from threads."""

    def __init__(self, state: State, zone: str) -> None:
        self._store, self._authorities, self._zone = state.store, state.identities.authorities, zone
        self._plans, self._left_out = state.plans, state.left_out
        self._daemons, self._pending = state.daemons, state.pending
        self._current: dict[str, Current] = {}
        # A thousand proxies that connect at once read a mesh once.
        self._loading: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reading: set[asyncio.Task[MeshView]] = set()
        # The views that were offered to proxies.
        self.offered: dict[str, MeshView] = {}

    async def view(self, mesh: str, fresh: bool = False, moved: bool = False) -> MeshView:
        """The view with its plan. It is the same object as before if nothing has changed.

        `fresh`: read the store again. `moved`: there is news from proxies or nodes since the last plan.
        """
        # The threads of a caller that is cancelled (a proxy that hangs up) go on: so does the lock, or two would plan
        # at once.
        reading = asyncio.create_task(self._view(mesh, fresh, moved))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        return await asyncio.shield(reading)

    async def _view(self, mesh: str, fresh: bool, moved: bool) -> MeshView:
        async with self._loading[mesh]:
            epoch, kept = self._pending.epochs[mesh], self._current.get(mesh)
            if kept is None or kept.epoch != epoch or fresh:
                before = kept.wanted if kept is not None else None
                generation, wanted = await asyncio.to_thread(self._load, mesh, before)
            else:
                generation, wanted = kept.generation, kept.wanted
            if kept is None or kept.wanted is not wanted or moved:
                before = kept.view if kept is not None else None
                view = await self._plans.given(wanted, before, self._daemons.known(mesh))
            else:
                view = kept.view
            self._current[mesh] = Current(epoch, generation, wanted, view)
            return view

    async def all_views(self) -> list[MeshView]:
        return [await self.view(mesh) for mesh in await asyncio.to_thread(self._store.names, "Mesh")]

    def current(self, mesh: str) -> MeshView | None:
        """The view as it was read last."""
        kept = self._current.get(mesh)
        return kept.view if kept is not None else None

    def all_current(self) -> Iterator[MeshView]:
        return (kept.view for kept in list(self._current.values()))

    def generation(self, mesh: str) -> int | None:
        """The store's generation when the mesh was read last."""
        kept = self._current.get(mesh)
        return kept.generation if kept is not None else None

    def forget(self, mesh: str) -> None:
        self._current.pop(mesh, None)

    def forget_others(self, meshes: Collection[str]) -> list[str]:
        """Forgets all meshes but these; returns the forgotten ones."""
        gone = [mesh for mesh in self._current if mesh not in meshes]
        for mesh in gone:
            self.forget(mesh)
        return gone

    def _load(self, mesh: str, before: MeshView | None) -> tuple[int, MeshView]:
        # Unreadable resources come last: what stays in force of them has the same key.
        known: Sequence[Resource | Unreadable] = (*before.resources, *before.unreadable) if before is not None else ()
        content = self._store.read_mesh(mesh, {one.key: one for one in known})
        without_ca = self._authorities.without(
            resource for resource in content.resources if resource.kind.type == "MeshIdentity"
        )
        self._left_out.show(mesh, content.unreadable)
        if before is not None and before.without_ca == without_ca:
            now, same = (*content.resources, *content.unreadable), {id(one) for one in known}
            if len(now) == len(same) and all(id(one) in same for one in now):
                return content.generation, before
        view = view_of(mesh, content.resources, self._zone, content.unreadable, without_ca, before)
        return content.generation, view
