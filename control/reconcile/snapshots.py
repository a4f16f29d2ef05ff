"""The snapshot that a proxy should have now: with its certificate, and without what it rejects.

Snapshots are built off the event loop, a bounded number at a time.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from control.ca.authority import UnusableAuthority
from control.ca.issue import RefusedRequest
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import MeshView
from control.model.identity import Credential
from control.model.resource import Resource
from control.policies.meshoffload.schema import KeyType
from control.reconcile.proxies import Proxy
from control.reconcile.state import State
from control.store.errors import StoreError
from control.xds.builder import SnapshotBuilder
from control.xds.snapshot import Snapshot

log = structlog.get_logger(__name__)

# Building holds the interpreter's lock most of the time: more at once would only delay responses to proxies.
BUILDS_AT_ONCE = 2


class Withheld(Exception):
    """A proxy that gets no new configuration; the message says why. It keeps what it has."""


class Snapshots:
    def __init__(self, state: State) -> None:
        self._identities, self._quarantines, self._metrics = state.identities, state.quarantines, state.metrics
        self._builders: dict[str, SnapshotBuilder] = {}
        self._threads = ThreadPoolExecutor(BUILDS_AT_ONCE, thread_name_prefix="snapshot")

    async def of(self, view: MeshView, name: str) -> Snapshot | None:
        """Runs `build` on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.build, view, name)

    async def of_all(self, view: MeshView, proxies: Sequence[Proxy]) -> list[tuple[Proxy, Snapshot | None]]:
        """Builds, on one thread, those that can be made."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._build_all, view, proxies)

    def _build_all(self, view: MeshView, proxies: Sequence[Proxy]) -> list[tuple[Proxy, Snapshot | None]]:
        built = []
        for proxy in proxies:
            try:
                built.append((proxy, self.build(view, proxy.name)))
            except Withheld as withheld:
                log.error(
                    "a proxy keeps its configuration", mesh=proxy.mesh, dataplane=proxy.name, reason=str(withheld)
                )
            except Exception:  # one proxy's configuration must not keep the others from theirs
                log.exception("cannot build a snapshot", mesh=proxy.mesh, dataplane=proxy.name)
        return built

    def build(self, view: MeshView, name: str) -> Snapshot | None:
        """The snapshot of one proxy now; None if there is no such dataplane. May renew its certificate.

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
        self._metrics.build.observe(time.perf_counter() - began)
        return built

    def as_it_is(self, view: MeshView, dataplane: Resource) -> Snapshot:
        """What the proxy should have, with its present certificate: a check issues none."""
        held = self._identities.held(view.mesh, dataplane.name)
        credential = held.credential if held is not None and view.identity_of(dataplane) is not None else None
        return self._builder(view.mesh).build(view, dataplane, credential)

    def _without_broken(self, view: MeshView, dataplane: Resource, credential: Credential | None) -> Snapshot:
        """Treats what cannot be made, or breaks the rules of Envoy's API, as if the proxy had rejected it already."""
        while True:
            choice = self._quarantines.choice(view, dataplane)
            try:
                built = self._builder(view.mesh).build(view, dataplane, credential, choice)
            except Exception as error:
                if not self._quarantines.failed(view, dataplane, choice, repr(error)):
                    raise
                # Only the place is logged: a traceback takes seconds to write, for each trial of each proxy.
                place = traceback.extract_tb(error.__traceback__)[-1]
                at = f"{place.filename}:{place.lineno}"
                who = {"mesh": view.mesh, "dataplane": dataplane.name}
                log.error("cannot build a configuration", error=repr(error), at=at, **who)
                continue
            self._quarantines.made(view, dataplane, choice)
            if not self._refuse_broken(view, dataplane, built):
                return built

    def _refuse_broken(self, view: MeshView, dataplane: Resource, built: Snapshot) -> bool:
        """Returns whether another one should be tried."""
        again = False
        for type_url, broken in built.broken.items():
            made_of = built.made_of.get(type_url, {})
            content = {name: made_of[name] for name in broken if name in made_of}
            detail = "; ".join(f"{name}: {text}" for name, text in broken.items())
            again |= bool(content) and self._quarantines.refused(view, dataplane, type_url, content, detail)
        return again

    def _credential(self, view: MeshView, dataplane: Resource, key_type: KeyType) -> Credential | None:
        identity = view.identity_of(dataplane)
        if identity is None:
            return None
        try:
            held = self._identities.credential(view.mesh, dataplane.name, identity, key_type)
        except (UnusableAuthority, RefusedRequest, StoreError) as error:
            # The proxy keeps its certificate; the next look retries.
            log.error("no certificate for a proxy", mesh=view.mesh, dataplane=dataplane.name, error=str(error))
            return None
        return held.credential

    def _builder(self, mesh: str) -> SnapshotBuilder:
        """The mesh's only one: threads that make it at once agree on the first."""
        found = self._builders.get(mesh)
        return found if found is not None else self._builders.setdefault(mesh, SnapshotBuilder())

    def forget(self, mesh: str) -> None:
        self._builders.pop(mesh, None)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
