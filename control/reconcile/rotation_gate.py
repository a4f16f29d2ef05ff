"""The gate of a rotation: a CA advances by a step when all proxies and nodes of its mesh are ready for it."""

from __future__ import annotations

import asyncio

import structlog

from control.ca.rotation import WAITS_FOR, Event, Rotation, WrongStage
from control.mesh.view import MeshView
from control.model.resource import Resource
from control.reconcile.daemons import node_with_key
from control.reconcile.proxies import Proxy
from control.reconcile.snapshots import Snapshots
from control.reconcile.state import State
from control.reconcile.views import Views
from control.xds.encoding.encode import SECRET
from control.xds.protocol.states import Phase
from control.xds.snapshot import Snapshot

log = structlog.get_logger(__name__)


def _has_secrets(proxy: Proxy, wanted: Snapshot) -> bool:
    """Whether the proxy has acknowledged the secrets of this snapshot, all that it asked for."""
    secrets = proxy.stream.subscriptions[SECRET] if proxy.stream is not None else None
    return secrets is not None and secrets.phase is Phase.SETTLED and not secrets.lags(wanted)


class RotationGate:
    def __init__(self, state: State, views: Views, snapshots: Snapshots) -> None:
        self._identities, self._proxies, self._daemons = state.identities, state.proxies, state.daemons
        self._pending, self._metrics = state.pending, state.metrics
        self._views, self._snapshots = views, snapshots

    async def rotate(self, identity: Resource, event: Event, force: bool = False) -> Rotation:
        """One step of a rotation. Raises WrongStage if proxies are not ready for it.

        `force`: reset although the CA can still sign, since somebody else has its key.
        """
        mesh, authorities = identity.mesh, self._identities.authorities
        if event is Event.BEGIN:
            rotation = await asyncio.to_thread(authorities.begin, identity)
        elif event is Event.RESET:
            rotation = await asyncio.to_thread(authorities.reset, identity, force)
            log.warning("the CA of a MeshIdentity was reset", mesh=mesh, identity=identity.name, forced=force)
        else:
            before = await asyncio.to_thread(authorities.rotation, identity)
            before.check(event, self._identities.now())
            if event is not Event.ABORT:
                await self._check_proxies(identity, event, before)
            rotation = await asyncio.to_thread(authorities.step, identity, event)
        self._metrics.show_end(f"{mesh}/{identity.name}", rotation.issuer.ends_at)
        self._pending.mark_changed([mesh])
        return rotation

    async def _check_proxies(self, identity: Resource, event: Event, rotation: Rotation) -> None:
        """Checks that every proxy of the mesh is connected and has acknowledged its newest secrets, thus the bundle."""
        view = await self._views.view(identity.mesh, fresh=True)
        late = []
        for dataplane in view.dataplanes:
            if view.identity_of(dataplane) is None:
                continue
            if not await self._has_bundle(view, dataplane):
                late.append(dataplane.name)
            if event is Event.REPLACED and self._signed_by(view, dataplane) not in (None, rotation.issuer.fingerprint):
                late.append(dataplane.name)
        if late:
            names = ", ".join(sorted(set(late))[:10])
            raise WrongStage(
                f"{event.value}: some proxies have not reached this stage: {names}; this stage waits for "
                f"{WAITS_FOR[rotation.stage]}"
            )

    def _signed_by(self, view: MeshView, dataplane: Resource) -> str | None:
        """Fingerprint of the CA of the certificate that the proxy shows; None if it has none to show."""
        own, node = view.identity_of(dataplane), node_with_key(view, dataplane)
        assert own is not None
        if node is not None:
            return self._identities.last_issuer(view.mesh, own.spiffe_id, node) or "unknown"
        held = self._identities.held(view.mesh, dataplane.name)
        # An expired one blocks nothing.
        return held.authority if held is not None and held.is_valid(self._identities.now()) else None

    async def _has_bundle(self, view: MeshView, dataplane: Resource) -> bool:
        node = node_with_key(view, dataplane)
        if node is not None:  # the node has the key; the proxy has no secrets
            return bool(node) and await self._daemons.has_bundle(node)
        connected = self._proxies.named(view.mesh, dataplane.name)
        snapshot = await asyncio.to_thread(self._snapshots.as_it_is, view, dataplane)
        return bool(connected) and all(_has_secrets(p, snapshot) for p in connected)
