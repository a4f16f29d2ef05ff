"""The control plane at work: changes come in, every connected proxy gets its new snapshot.

Changes are collected for a moment (debounce), then each mesh that changed is read once and the snapshots of its
connected proxies are built, a bounded number at a time and in random order, off the event loop.
"""

from __future__ import annotations

import asyncio
import operator
import random
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from control.ca.authorities import MANAGED_BY
from control.ca.authority import UnusableAuthority
from control.ca.identities import Identities
from control.ca.issue import RefusedRequest
from control.ca.rotation import WAITS_FOR, Event, Rotation, WrongStage
from control.mesh.evidence import OFFLINE_AFTER_S
from control.mesh.facts import Facts, NodeKnown
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.transitions import OFFLOAD
from control.mesh.view import MeshView, view_of
from control.metrics import Metrics
from control.model.identity import Credential
from control.model.resource import Resource
from control.model.unreadable import Unreadable
from control.policies.meshoffload.schema import KeyType
from control.reconcile.left_out import LeftOut
from control.reconcile.orphans import fingerprints, orphans
from control.reconcile.plans import Transitions
from control.reconcile.proxies import Proxy, Refusal
from control.reconcile.quarantines import Quarantines
from control.store.errors import IncompatibleStore, NotFound, StoreError
from control.store.store import Store
from control.xds.builder import SnapshotBuilder
from control.xds.encoding.encode import SECRET
from control.xds.protocol.states import Phase
from control.xds.snapshot import Snapshot

log = structlog.get_logger(__name__)

# A deployment changes many resources one after the other; one push for all of them.
DEBOUNCE_S = 0.05
DEBOUNCE_MAX_S = 0.5
# Building holds the interpreter's lock most of the time: more at once would only slow the answers to proxies.
BUILDS_AT_ONCE = 2
# Snapshots that a thread builds before it hands them over: handing over costs half as much as building one.
BUILDS_IN_A_ROW = 16
# Changes by others (a restore, another replica) are looked for so often.
POLL_S = 2.0
# So often is it asked whose certificate is due: clocks can be set, and machines can sleep.
LOOK_S = 1.0
# So often is something small written, which a full disk or a lock refuses; at every poll while it is refused.
PROBE_S = 10.0


@dataclass(frozen=True)
class Kept:
    """A view, and what was known when it was read: the number of changes made here, and the store's generation."""

    epoch: int
    generation: int
    # What is stored, and with what is given of it now.
    wanted: MeshView
    view: MeshView


class Withheld(Exception):
    """A proxy that gets no new configuration; says why. It goes on with what it has."""


class Nodes(Protocol):
    """What the control plane asks about the daemons of nodes."""

    async def has_bundle(self, node: str) -> bool:
        """Whether the node has taken its configuration."""

    def known(self, mesh: str) -> Mapping[str, NodeKnown]:
        """What the connected nodes say that they have of the mesh."""

    def word(self, node: str, spiffe_id: str, socket: str) -> str | None:
        """Why the node cannot sign for the identity now, as it says itself; None where it can."""


def _has_secrets(proxy: Proxy, wanted: Snapshot) -> bool:
    """Whether the proxy has acknowledged the secrets of this snapshot, all that it asked for."""
    secrets = proxy.stream.subscriptions[SECRET] if proxy.stream is not None else None
    return secrets is not None and secrets.phase is Phase.SETTLED and not secrets.lags(wanted)


def has_everything(proxy: Proxy) -> bool:
    """Whether the proxy has acknowledged all that it was offered."""
    if proxy.stream is None or proxy.snapshot is None:
        return False
    asked = [one for one in proxy.stream.subscriptions.values() if one.is_asked]
    return bool(asked) and all(one.phase is Phase.SETTLED and not one.lags(proxy.snapshot) for one in asked)


class ControlPlane:
    """Runs in one event loop; the store is used from threads."""

    def __init__(
        self,
        store: Store,
        zone: str = "default",
        metrics: Metrics | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        offline_after: float = OFFLINE_AFTER_S,
    ) -> None:
        """`clock`: what certificates go by. `offline_after`: seconds, see mesh/evidence.py."""
        self.store, self.zone = store, zone
        self.identities = Identities(store, zone, clock)
        self.metrics = metrics or Metrics()
        self.left_out = LeftOut(self.metrics)
        self.transitions = Transitions(store, self.metrics, offline_after)
        self.quarantines = Quarantines(self.metrics)
        self._views: dict[str, Kept] = {}
        self._snapshots: dict[str, SnapshotBuilder] = defaultdict(SnapshotBuilder)
        self._epochs: dict[str, int] = defaultdict(int)
        # A thousand proxies that come at once read a mesh once.
        self._loading: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._proxies: dict[str, set[Proxy]] = defaultdict(set)
        self._dirty: set[str] = set()
        # Meshes whose proxies or nodes have acknowledged something, or come or gone; and the views that proxies have.
        self._moved: set[str] = set()
        self._offered: dict[str, MeshView] = {}
        # Proxies that have gone over to a node: the keys that they had themselves are of no use any more.
        self._gone_over: set[tuple[str, str]] = set()
        # Proxies whose configuration is to be made again: a certificate is to be renewed, or a policy to be left out.
        self._due: set[Proxy] = set()
        self._changed = asyncio.Event()
        self._generation = -1
        self._store_works, self._probe_at = True, 0.0
        self._watchers: list[Callable[[], None]] = []
        self._nodes: Nodes | None = None
        self._builders = ThreadPoolExecutor(BUILDS_AT_ONCE, thread_name_prefix="snapshot")

    # --- changes ------------------------------------------------------------------------------------------------------

    async def put(self, resource: Resource, expected_version: int | None = None) -> Resource:
        """Raises InvalidResource for a MeshIdentity whose CA cannot be used."""
        await self._check([resource])
        stored = await asyncio.to_thread(self.store.put, resource, expected_version)
        await self._after_change([stored])
        return stored

    async def put_all(self, resources: Sequence[Resource]) -> Sequence[Resource]:
        """Raises InvalidResource, as `put`."""
        await self._check(resources)
        stored = await asyncio.to_thread(self.store.put_all, resources)
        await self._after_change(stored)
        return stored

    async def _check(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            if resource.kind.type == "MeshIdentity":
                await asyncio.to_thread(self.identities.authorities.check, resource)

    async def delete(self, resource_type: str, mesh: str, name: str, expected_version: int | None = None) -> None:
        await asyncio.to_thread(self.store.delete, resource_type, mesh, name, expected_version)
        if resource_type == "Dataplane":
            await asyncio.to_thread(self.identities.forget, mesh, name)
            self.transitions.forget(mesh, name)
            self.quarantines.forget(mesh, name)
        elif resource_type == "Mesh":
            self.identities.forget_mesh(name)
            self._views.pop(name, None)
            self._snapshots.pop(name, None)
            self.metrics.forget_ends(name)
            self.left_out.show(name, ())
            self.transitions.forget_mesh(name)
            self.quarantines.forget(name)
        elif resource_type == "MeshIdentity":
            self.identities.authorities.forget(mesh, name)
            self.metrics.forget_ends(f"{mesh}/{name}")
            await self.view(mesh, fresh=True)  # where its trust is looked for, also without proxies
        elif resource_type == "MeshTrust":
            await self._publish_again(mesh, name)
        self.mark_changed([mesh or name])

    async def _publish_again(self, mesh: str, name: str) -> None:
        """The MeshTrust of a MeshIdentity, which was deleted or changed by somebody: it is made anew."""
        try:
            identity = await asyncio.to_thread(self.store.get, "MeshIdentity", mesh, name)
        except (NotFound, IncompatibleStore):
            return
        await asyncio.to_thread(self._publish, identity)

    async def _after_change(self, resources: Iterable[Resource]) -> None:
        changed = list(resources)
        for resource in changed:
            if resource.kind.type == "MeshIdentity":
                await asyncio.to_thread(self._publish, resource)
            elif resource.kind.type == "MeshTrust" and MANAGED_BY.items() <= resource.labels.items():
                await self._publish_again(resource.mesh, resource.name)
        self.mark_changed({resource.mesh or resource.name for resource in changed})

    def _publish(self, identity: Resource) -> None:
        try:
            self.identities.authorities.publish_trust(identity)
            rotation = self.identities.authorities.rotation(identity)
        except UnusableAuthority:
            return  # which was logged, and is shown until it works
        except StoreError as error:
            log.error("a MeshTrust cannot be stored", mesh=identity.mesh, name=identity.name, error=str(error))
            return
        self._show_end(identity, rotation)

    def _show_end(self, identity: Resource, rotation: Rotation) -> None:
        """Of the CA that signs now."""
        end = rotation.issuer.certificate.not_valid_after_utc.timestamp()
        self.metrics.show_end(f"{identity.mesh}/{identity.name}", end)

    def mark_changed(self, meshes: Iterable[str]) -> None:
        for mesh in meshes:
            self._dirty.add(mesh)
            # A proxy that comes before the push reads anew.
            self._epochs[mesh] += 1
            self._changed.set()

    def mark_moved(self, meshes: Iterable[str]) -> None:
        """There is news of proxies or nodes."""
        self._moved.update(meshes)
        self._changed.set()

    def settled(self, proxy: Proxy) -> None:
        """The proxy has acknowledged all that it was given."""
        facts = proxy.claims.possible[-1]
        if facts.place is not None:
            self._gone_over.add((proxy.mesh, proxy.name))
        self.mark_moved([proxy.mesh])

    def watch(self, changed: Callable[[], None]) -> None:
        """`changed` is called after every push."""
        self._watchers.append(changed)

    def ask_nodes(self, nodes: Nodes) -> None:
        """Who is asked before each step of a rotation, and what they hold."""
        self._nodes = nodes

    # --- rotation of CAs ----------------------------------------------------------------------------------------------

    async def rotate(self, identity: Resource, event: Event, force: bool = False) -> Rotation:
        """One step of a rotation. Raises WrongStage where proxies are not as far as the step needs them.

        `force`: a reset although the CA can still sign, since somebody else has its key.
        """
        mesh, authorities = identity.mesh, self.identities.authorities
        if event is Event.BEGIN:
            rotation = await asyncio.to_thread(authorities.begin, identity)
        elif event is Event.RESET:
            rotation = await asyncio.to_thread(authorities.reset, identity, force)
            log.warning(
                "the CA of a MeshIdentity was replaced at once", mesh=mesh, identity=identity.name, forced=force
            )
        else:
            before = await asyncio.to_thread(authorities.rotation, identity)
            before.check(event, self.identities.now())
            if event is not Event.ABORT:
                await self._check_proxies(identity, event, before)
            rotation = await asyncio.to_thread(authorities.step, identity, event)
        self._show_end(identity, rotation)
        self.mark_changed([mesh])
        return rotation

    async def _check_proxies(self, identity: Resource, event: Event, rotation: Rotation) -> None:
        """Every proxy of the mesh has to be connected and to have taken its newest secrets; then it has the bundle."""
        view = await self.view(identity.mesh, fresh=True)
        late = []
        for dataplane in view.dataplanes:
            own = view.identity_of(dataplane)
            if own is None:
                continue
            if not await self._has_bundle(view, dataplane):
                late.append(dataplane.name)
            signed_by: str | None
            node = self._node_with_key(view, dataplane)
            if node is not None:
                signed_by = self.identities.last_issuer(identity.mesh, own.spiffe_id, node) or "unknown"
            else:
                held = self.identities.held(identity.mesh, dataplane.name)
                # One that has ended is in nobody's way.
                signed_by = held.authority if held is not None and held.is_valid(self.identities.now()) else None
            if event is Event.REPLACED and signed_by not in (None, rotation.issuer.fingerprint):
                late.append(dataplane.name)
        if late:
            names = ", ".join(sorted(set(late))[:10])
            raise WrongStage(
                f"{event.value}: not every proxy is as far: {names}; this stage waits for {WAITS_FOR[rotation.stage]}"
            )

    async def _has_bundle(self, view: MeshView, dataplane: Resource) -> bool:
        node = self._node_with_key(view, dataplane)
        if node is not None:  # the node has it; the proxy has no secrets
            return bool(node) and self._nodes is not None and await self._nodes.has_bundle(node)
        connected = self.connected(view.mesh, dataplane.name)
        snapshot = await asyncio.to_thread(self._as_it_is, view, dataplane)
        return bool(connected) and all(_has_secrets(p, snapshot) for p in connected)

    def _as_it_is(self, view: MeshView, dataplane: Resource) -> Snapshot:
        """What the proxy should have, with the certificate that it has: a check makes none."""
        held = self.identities.held(view.mesh, dataplane.name)
        credential = held.credential if held is not None and view.identity_of(dataplane) is not None else None
        return self._snapshots[view.mesh].build(view, dataplane, credential)

    @staticmethod
    def _node_with_key(view: MeshView, dataplane: Resource) -> str | None:
        given = view.given(dataplane)
        return given.place.node if given is not None and given.place is not None else None

    # --- views and snapshots ------------------------------------------------------------------------------------------

    async def view(self, mesh: str, fresh: bool = False, moved: bool = False) -> MeshView:
        """With what is given now of what is wanted. The same object as before where nothing has changed.

        `fresh`: as the store has it now. `moved`: there is news of proxies or nodes since the last plan.
        """
        async with self._loading[mesh]:
            epoch, kept = self._epochs[mesh], self._views.get(mesh)
            if kept is None or kept.epoch != epoch or fresh:
                before = kept.wanted if kept is not None else None
                generation, wanted = await asyncio.to_thread(self._load, mesh, before)
            else:
                generation, wanted = kept.generation, kept.wanted
            if kept is None or kept.wanted is not wanted or moved:
                nodes = self._nodes.known(mesh) if self._nodes is not None else {}
                view = await self.transitions.given(wanted, kept.view if kept is not None else None, nodes)
            else:
                view = kept.view
            self._views[mesh] = Kept(epoch, generation, wanted, view)
            return view

    async def all_views(self) -> list[MeshView]:
        return [await self.view(mesh) for mesh in await asyncio.to_thread(self.store.names, "Mesh")]

    def _load(self, mesh: str, before: MeshView | None) -> tuple[int, MeshView]:
        # What is unreadable comes last: what stays in force of it has the same key.
        known: Sequence[Resource | Unreadable] = (*before.resources, *before.unreadable) if before is not None else ()
        content = self.store.read_mesh(mesh, {one.key: one for one in known})
        without_ca = self.identities.authorities.without(
            resource for resource in content.resources if resource.kind.type == "MeshIdentity"
        )
        view = view_of(mesh, content.resources, self.zone, content.unreadable, without_ca)
        self.left_out.show(mesh, view.unreadable)
        if before is None or before.without_ca != view.without_ca:
            return content.generation, view
        now = (*view.resources, *view.unreadable)
        if len(known) == len(now) and all(map(operator.is_, known, now)):
            return content.generation, before
        return content.generation, view

    def build(self, view: MeshView, name: str) -> Snapshot | None:
        """The snapshot of one proxy now; None where there is no such dataplane. May renew its certificate.

        Raises Withheld.
        """
        reason = view.withheld(name)
        if reason is not None:
            raise Withheld(reason)
        dataplane = view.get("Dataplane", name)
        if dataplane is None:
            return None
        began = time.perf_counter()
        settings = ProxyPolicies(view, dataplane).offload
        # In mode Offload the key is at the node's daemon.
        credential = self._credential(view, dataplane, settings.key_type) if settings.mode == "EnvoyTLS" else None
        built = self._without_broken(view, dataplane, credential)
        self.metrics.build.observe(time.perf_counter() - began)
        return built

    def _without_broken(self, view: MeshView, dataplane: Resource, credential: Credential | None) -> Snapshot:
        """As if the proxy had refused already what cannot be made, or breaks the rules of Envoy's API."""
        while True:
            choice = self.quarantines.choice(view, dataplane)
            try:
                built = self._snapshots[view.mesh].build(view, dataplane, credential, choice)
            except Exception as error:
                if not self.quarantines.failed(view, dataplane, choice, repr(error)):
                    raise
                # With its place only: a traceback takes seconds to write, for each trial of each proxy.
                place = traceback.extract_tb(error.__traceback__)[-1]
                at = f"{place.filename}:{place.lineno}"
                who = {"mesh": view.mesh, "dataplane": dataplane.name}
                log.error("a configuration cannot be made", error=repr(error), at=at, **who)
                continue
            self.quarantines.made(view, dataplane, choice)
            again = False
            for type_url, broken in built.broken.items():
                made_of = built.made_of.get(type_url, {})
                content = {name: made_of[name] for name in broken if name in made_of}
                detail = "; ".join(f"{name}: {text}" for name, text in broken.items())
                again |= bool(content) and self.quarantines.refused(view, dataplane, type_url, content, detail)
            if not again:
                return built

    def _credential(self, view: MeshView, dataplane: Resource, key_type: KeyType) -> Credential | None:
        identity = view.identity_of(dataplane)
        if identity is None:
            return None
        try:
            held = self.identities.credential(view.mesh, dataplane.name, identity, key_type)
        except (UnusableAuthority, RefusedRequest, StoreError) as error:
            # The proxy keeps the certificate that it has; the next look tries again.
            log.error("no certificate for a proxy", mesh=view.mesh, dataplane=dataplane.name, error=str(error))
            return None
        return held.credential

    async def _build(self, view: MeshView, name: str) -> Snapshot | None:
        return await asyncio.get_running_loop().run_in_executor(self._builders, self.build, view, name)

    # --- proxies ------------------------------------------------------------------------------------------------------

    def connected(self, mesh: str, name: str) -> list[Proxy]:
        """More than one while a proxy restarts."""
        return [proxy for proxy in self._proxies[mesh] if proxy.name == name]

    async def connect(
        self, mesh: str, name: str, refusal_of: Refusal = lambda _: None, token_ends_at: int | None = None
    ) -> Proxy:
        """A proxy that came; it has a snapshot, or is `gone` where there is no such dataplane."""
        await self.view(mesh)  # so that the proxy is not taken for one that is new
        proxy = Proxy(mesh, name, refusal_of, token_ends_at, self.transitions.connect(mesh, name))
        self._proxies[mesh].add(proxy)
        self.metrics.proxies.labels(mesh).set(len(self._proxies[mesh]))
        self.mark_moved([mesh])
        try:
            view = await self.view(mesh)
            snapshot = await self._build(view, name)
            # A push may have been faster, and had a newer view.
            if not proxy.has_offer:
                proxy.offer(snapshot, view.get("Dataplane", name))
        except BaseException:
            self.disconnect(proxy)
            raise
        return proxy

    def took(self, proxy: Proxy, type_url: str) -> None:
        """The proxy has taken what was sent last of this type."""
        if self.quarantines.took(proxy.mesh, proxy.name, type_url, proxy.sent.get(type_url, {})):
            self._build_again(proxy)

    async def refused(self, proxy: Proxy, type_url: str, detail: str) -> None:
        """The proxy has refused what was sent last of this type: what it refuses it for is left out."""
        view = await self.view(proxy.mesh)
        dataplane, content = view.get("Dataplane", proxy.name), proxy.sent.get(type_url)
        if dataplane is not None and content and self.quarantines.refused(view, dataplane, type_url, content, detail):
            self._build_again(proxy)

    def _build_again(self, proxy: Proxy) -> None:
        self._due.update(self.connected(proxy.mesh, proxy.name))
        self._changed.set()

    def disconnect(self, proxy: Proxy) -> None:
        self._proxies[proxy.mesh].discard(proxy)
        self.transitions.disconnect(proxy.mesh, proxy.name, proxy.claims)
        self.metrics.proxies.labels(proxy.mesh).set(len(self._proxies[proxy.mesh]))
        self.mark_moved([proxy.mesh])

    def _count_waiting(self, mesh: str) -> None:
        kept = self._views.get(mesh)
        if kept is None or kept.view.plan is None:
            return
        connected = {proxy.name for proxy in self._proxies[mesh]}
        waiting = {wait.who for wait in kept.view.plan.waits if wait.step == OFFLOAD}
        self.metrics.waiting.labels(mesh).set(len(waiting & connected))
        self.metrics.unserved.labels(mesh).set(
            sum(
                facts.place is not None and name in connected and self._word(facts) is not None
                for name, facts in kept.view.plan.facts.items()
            )
        )

    def _word(self, facts: Facts) -> str | None:
        place, identity = facts.place, facts.identity
        if place is None or identity is None or not place.node or self._nodes is None:
            return None
        return self._nodes.word(place.node, identity.spiffe_id, place.socket)

    def unserved(self, view: MeshView, dataplane: Resource) -> str | None:
        """Why the daemon that has the proxy's key cannot sign for it now, in its own words; None where it can."""
        given = view.given(dataplane)
        return self._word(given) if given is not None else None

    # --- at work ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.to_thread(self._publish_all)
        poll = asyncio.create_task(self._poll())
        try:
            while True:
                await self._changed.wait()
                began = time.perf_counter()
                await self._debounce(began)
                meshes, self._dirty = self._dirty, set()
                due, self._due = self._due, set()
                moved, self._moved = self._moved, set()
                for mesh in meshes | moved:
                    await self._push(mesh, fresh=mesh in meshes)
                    self._count_waiting(mesh)
                await self._offer_again([proxy for proxy in due if proxy.mesh not in meshes])
                await self._forget_keys()
                for changed in self._watchers:
                    changed()
                self.metrics.push.observe(time.perf_counter() - began)
        finally:
            poll.cancel()
            self._builders.shutdown(wait=False, cancel_futures=True)

    def _publish_all(self) -> None:
        self.left_out.show_all(self.store.unreadable())
        for identity in self.store.list("MeshIdentity"):
            self._publish(identity)

    async def _debounce(self, began: float) -> None:
        while self._changed.is_set() and time.perf_counter() - began < DEBOUNCE_MAX_S:
            self._changed.clear()
            await asyncio.sleep(DEBOUNCE_S)
        self._changed.clear()

    async def _push(self, mesh: str, fresh: bool) -> None:
        """`fresh`: the store has something new; else there is news of proxies, which may change nothing for them."""
        if not self._proxies[mesh]:
            return  # who comes reads it anew
        try:
            view = await self.view(mesh, fresh, moved=True)
        except StoreError as error:
            # Proxies go on with what they have; the change is not forgotten.
            log.error("a change cannot be read, trying again", mesh=mesh, error=str(error))
            self._dirty.add(mesh)
            await asyncio.sleep(POLL_S)
            self._changed.set()
            return
        except Exception:  # nor may one mesh keep the others from theirs
            log.exception("a mesh could not be read", mesh=mesh)
            return
        if fresh or self._offered.get(mesh) is not view:
            self._offered[mesh] = view
            await self._offer(view, self._proxies[mesh])

    async def _forget_keys(self) -> None:
        """Of proxies that have gone over to the offload."""
        over, self._gone_over = self._gone_over, set()
        for mesh, name in over:
            try:
                if await asyncio.to_thread(self.identities.keeps, mesh, name):
                    await asyncio.to_thread(self.identities.forget, mesh, name)
                    log.info("a proxy has gone over to the offload", mesh=mesh, dataplane=name)
            except StoreError as error:
                log.error("the key of a proxy cannot be forgotten", mesh=mesh, dataplane=name, error=str(error))

    async def _offer(self, view: MeshView, proxies_of_it: Iterable[Proxy]) -> None:
        """New snapshots for all of them, in no order, so that none is always the last."""
        waiting = list(proxies_of_it)
        random.shuffle(waiting)
        some = [waiting[at : at + BUILDS_IN_A_ROW] for at in range(0, len(waiting), BUILDS_IN_A_ROW)]
        await asyncio.gather(*(self._offer_some(view, batch) for batch in some))

    async def _offer_some(self, view: MeshView, some: Sequence[Proxy]) -> None:
        loop = asyncio.get_running_loop()
        for proxy, snapshot in await loop.run_in_executor(self._builders, self._build_some, view, some):
            proxy.offer(snapshot, view.get("Dataplane", proxy.name))

    def _build_some(self, view: MeshView, some: Sequence[Proxy]) -> list[tuple[Proxy, Snapshot | None]]:
        built = []
        for proxy in some:
            try:
                built.append((proxy, self.build(view, proxy.name)))
            except Withheld as withheld:
                log.error("a proxy stays at what it has", mesh=proxy.mesh, dataplane=proxy.name, reason=str(withheld))
            except Exception:  # one proxy's configuration must not keep the others from theirs
                log.exception("a snapshot could not be built", mesh=proxy.mesh, dataplane=proxy.name)
        return built

    async def _poll(self) -> None:
        look_at = 0.0
        while True:
            try:
                if time.monotonic() >= look_at:
                    await self._look()
                    look_at = time.monotonic() + POLL_S * random.uniform(0.8, 1.2)  # noqa: S311 (no secret)
                await self._look_at_certificates()
                self.transitions.tell()
                late = self.transitions.due()
                if late:
                    self.mark_moved(late)
            except Exception:  # one look that fails must not be the last
                log.exception("a look for changes failed, trying on")
            await asyncio.sleep(min(LOOK_S, POLL_S))

    async def _look(self) -> None:
        """For changes by others, and whether the store takes changes at all."""
        try:
            if self.store.problem is not None or time.monotonic() >= self._probe_at:
                self._probe_at = time.monotonic() + PROBE_S
                await asyncio.to_thread(self.store.probe)
            # Last, since a probe can wait: what changed here in the meantime would look like somebody else's change.
            generation = await asyncio.to_thread(self.store.generation)
            if generation != self._generation:
                await self._notice(generation)
        except StoreError as error:
            if self._store_works:
                log.error("the store does not answer", error=str(error))
            self._store_works = False
        else:
            if not self._store_works:
                log.info("the store answers again")
            self._store_works = True
            self._generation = generation
            self.metrics.generation.set(generation)
        self.metrics.store_up.set(self._store_works)

    async def _notice(self, generation: int) -> None:
        """Changes by others; those that were made here have been read already."""
        self.left_out.show("", await asyncio.to_thread(self.store.unreadable, "Mesh"))
        if self._generation >= 0:  # else it has just been done
            await asyncio.to_thread(self._publish_all)
        connected = [mesh for mesh, proxies in self._proxies.items() if proxies]
        for mesh in self._views.keys() - set(connected):
            self._views.pop(mesh, None)
            self._snapshots.pop(mesh, None)
        for mesh in connected:
            kept = self._views.get(mesh)
            if kept is None or kept.generation != generation:
                try:
                    is_new = await self.view(mesh, fresh=True) is not self._offered.get(mesh)
                except Exception:  # noqa: BLE001
                    self.mark_changed([mesh])  # the push says what is wrong, and tries again
                else:
                    if is_new:  # unless a push that is under way offers it
                        self.mark_moved([mesh])
        # Nodes look at meshes that have no proxies, too.
        self._changed.set()

    async def _look_at_certificates(self) -> None:
        """CAs that failed are asked again, and proxies whose certificate is due get a snapshot with a new one."""
        try:
            self.mark_changed(await asyncio.to_thread(self.identities.authorities.retry))
        except StoreError:
            return  # _look says so
        for kept in list(self._views.values()):
            for trust in orphans(kept.view):
                await self._retire(kept.view, trust)
        self.metrics.show_failing(f"{mesh}/{name}" for mesh, name in self.identities.authorities.troubles())
        for connected in self._proxies.values():
            self._due |= {proxy for proxy in connected if self.identities.is_due(proxy.mesh, proxy.name)}
        if self._due:
            self._changed.set()

    async def _retire(self, view: MeshView, trust: Resource) -> None:
        """The trust in a CA whose MeshIdentity was deleted ends when nobody needs it any more."""
        connected = self._proxies[view.mesh]
        if view.mesh in self._dirty | self._moved or not all(has_everything(proxy) for proxy in connected):
            return
        if self.transitions.may_show(view.mesh, trust.name):
            return  # somebody still has, or may have, the identity that was deleted
        gone = fingerprints(trust)
        for dataplane in view.dataplanes:
            identity, node = view.identity_of(dataplane), self._node_with_key(view, dataplane)
            if identity is not None and identity.mesh_identity == trust.name:
                return
            if identity is None or not node:
                continue
            last = self.identities.last_issuer(view.mesh, identity.spiffe_id, node)
            if last is None or last in gone:
                return
        try:
            await asyncio.to_thread(self.store.delete, "MeshTrust", view.mesh, trust.name, trust.version)
            await asyncio.to_thread(self.identities.forget_of, view.mesh, gone)
        except StoreError as error:
            log.error("a MeshTrust cannot be taken away", mesh=view.mesh, name=trust.name, error=str(error))
            return
        log.info("the CA of a deleted MeshIdentity is not trusted any more", mesh=view.mesh, identity=trust.name)
        self.mark_changed([view.mesh])

    async def _offer_again(self, due: Sequence[Proxy]) -> None:
        by_mesh: dict[str, list[Proxy]] = defaultdict(list)
        for proxy in due:
            by_mesh[proxy.mesh].append(proxy)
        for mesh, some in by_mesh.items():
            try:
                await self._offer(await self.view(mesh), some)
            except StoreError as error:
                log.error("configurations cannot be made now", mesh=mesh, error=str(error))
