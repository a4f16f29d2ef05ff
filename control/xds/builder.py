"""The snapshots of the proxies of one mesh, reusing everything that is unchanged since the previous view.

Most changes of a mesh are dataplanes that come, move and go: endpoints of services. All else that a proxy gets depends
on its own dataplane, on the resources that are not dataplanes, and on who may serve what it calls (labels of others, by
their identities). While these stay, only endpoints are rebuilt; they are shared among proxies (encoding/shared.py).
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from control.mesh.choice import IN_FORCE, Choice, Made
from control.mesh.view import MeshView
from control.model.identity import Credential
from control.model.resource import Resource
from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Encoded
from control.xds.encoding.shared import SharedConfigs
from control.xds.render.context import Reached
from control.xds.render.endpoints import load_assignments
from control.xds.render.proxy import render
from control.xds.snapshot import Snapshot


@dataclass(frozen=True)
class Rendered:
    """What a proxy gets except endpoints, and what that was made of."""

    dataplane: Resource
    credential: Credential | None
    # What the plan says about it, except for left-out members of services; and the trust that the plan retains.
    given: Hashable
    choice: Choice
    server_ids: tuple[tuple[str, ...], ...]
    # Keyed by type.
    resources: Mapping[str, Mapping[str, Encoded]]
    reached: tuple[Reached, ...]
    problems: tuple[str, ...]
    made_of: Mapping[str, Mapping[str, Made]]

    def holds(self, view: MeshView, credential: Credential | None, choice: Choice) -> bool:
        """Whether it is still valid in a view where only other dataplanes changed (ensured by SnapshotBuilder)."""
        made_of = self.credential, self.given, self.choice, self.server_ids
        return made_of == (credential, _given(view, self.dataplane), choice, _server_ids(view, self.reached))


@dataclass
class _Made:
    """What was made for one view; used by several threads."""

    shared: SharedConfigs = field(default_factory=SharedConfigs)
    # Keyed by dataplane.
    rendered: dict[str, Rendered] = field(default_factory=dict)

    def for_view(self, before: MeshView, view: MeshView) -> _Made:
        """The part that may still be valid in a newer view."""
        if not view.has_surroundings_of(before):
            return _Made()
        rendered = dict(self.rendered)
        still = {name: one for name, one in rendered.items() if view.get("Dataplane", name) is one.dataplane}
        return _Made(rendered=still)


class SnapshotBuilder:
    """Builds for one mesh. Used by several threads, also with older views while the newest is being read."""

    def __init__(self) -> None:
        self._newest: MeshView | None = None
        # When a view is no longer used, what was made for it is freed with it.
        self._made: WeakKeyDictionary[MeshView, _Made] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def build(
        self, view: MeshView, dataplane: Resource, credential: Credential | None, choice: Choice = IN_FORCE
    ) -> Snapshot:
        made = self._made_for(view)
        rendered = made.rendered.get(dataplane.name)
        if rendered is None or not rendered.holds(view, credential, choice):
            rendered = _render(view, dataplane, credential, choice, made.shared)
            made.rendered[dataplane.name] = rendered
        facts = view.given(dataplane)
        if facts is not None and facts.identity is not None and facts.place is None and credential is None:
            facts = facts.without_certificate()
        assignments = load_assignments(view, rendered.reached, view.zone_of(dataplane), made.shared)
        endpoints = {name: made.shared.encode(ENDPOINTS, name, config) for name, config in assignments.items()}
        return Snapshot({**rendered.resources, ENDPOINTS: endpoints}, rendered.problems, facts, rendered.made_of)

    def _made_for(self, view: MeshView) -> _Made:
        with self._lock:
            found = self._made.get(view)
            if found is None:
                before = self._newest
                found = self._made[before].for_view(before, view) if before is not None else _Made()
                self._made[view], self._newest = found, view
            return found


def _render(
    view: MeshView, dataplane: Resource, credential: Credential | None, choice: Choice, shared: SharedConfigs
) -> Rendered:
    config = render(view, dataplane, credential, choice, shared)
    by_type = {
        CLUSTER: config.clusters,
        LISTENER: config.listeners,
        ROUTES: config.routes,
        SECRET: config.secrets,
    }
    resources = {
        type_url: {name: shared.encode(type_url, name, one) for name, one in configs.items()}
        for type_url, configs in by_type.items()
    }
    reached = tuple(config.reached)
    ids, problems = _server_ids(view, reached), tuple(config.problems)
    return Rendered(
        dataplane, credential, _given(view, dataplane), choice, ids, resources, reached, problems, config.made_of
    )


def _server_ids(view: MeshView, reached: Iterable[Reached]) -> tuple[tuple[str, ...], ...]:
    return tuple(view.server_ids(one.destination.service) for one in reached)


def _given(view: MeshView, dataplane: Resource) -> Hashable:
    plan, facts = view.plan, view.given(dataplane)
    if plan is None or facts is None:
        return None
    by_tls = frozenset(service for service, call in facts.calls.items() if call.tls)
    retained = tuple(plan.retained.items())
    return facts.identity, facts.place, tuple(facts.inbounds.items()), by_tls, retained
