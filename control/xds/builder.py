"""The snapshot of one proxy in one view, with all that is still as it was taken from the view before.

Most changes of a mesh are dataplanes that come, move and go: endpoints of services. All else that a proxy gets depends
on its own dataplane, on the resources that are no dataplanes, and on who may serve what it calls (labels of others, by
their identities). While these stay, only endpoints are made anew; they are shared among proxies (encoding/shared.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from control.mesh.view import MeshView
from control.model.resource import Resource
from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Config, Encoded
from control.xds.quarantine import IN_FORCE, Choice, Made
from control.xds.render import outbounds, proxy
from control.xds.render.outbounds import Reached
from control.xds.render.proxy import Credential
from control.xds.snapshot import Snapshot


@dataclass(frozen=True)
class Fixed:
    """What a proxy gets but for endpoints, and what that was made of."""

    dataplane: Resource
    credential: Credential | None
    # What a plan says of it, but for the members of services that are left out; and trust that it retains.
    given: Hashable
    choice: Choice
    server_ids: tuple[tuple[str, ...], ...]
    # By type.
    resources: Mapping[str, Mapping[str, Encoded]]
    reached: tuple[Reached, ...]
    problems: tuple[str, ...]
    made_of: Mapping[str, Mapping[str, Made]]

    def holds(self, view: MeshView, credential: Credential | None, choice: Choice) -> bool:
        """Of a view whose resources are the same but for other dataplanes (MeshView sees to that)."""
        made_of = self.credential, self.given, self.choice, self.server_ids
        return made_of == (credential, _given(view, self.dataplane), choice, _server_ids(view, self.reached))


def _server_ids(view: MeshView, reached: tuple[Reached, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(view.server_ids(one.destination.service) for one in reached)


def _given(view: MeshView, dataplane: Resource) -> Hashable:
    plan, facts = view.plan, view.given(dataplane)
    if plan is None or facts is None:
        return None
    by_tls = frozenset(service for service, call in facts.calls.items() if call.tls)
    retained = tuple(plan.retained.items())
    return facts.identity, facts.place, tuple(facts.inbounds.items()), by_tls, retained


def build(view: MeshView, dataplane: Resource, credential: Credential | None, choice: Choice = IN_FORCE) -> Snapshot:
    fixed = view.fixed.get(dataplane.name)
    if fixed is None or not fixed.holds(view, credential, choice):
        fixed = view.fixed[dataplane.name] = _fixed(view, dataplane, credential, choice)
    zone, facts = view.zone_of(dataplane), view.given(dataplane)
    if facts is not None and facts.identity is not None and facts.place is None and credential is None:
        facts = facts.without_certificate()
    endpoints = {one.destination.name: _endpoints(view, one, zone) for one in fixed.reached}
    return Snapshot({**fixed.resources, ENDPOINTS: endpoints}, fixed.problems, facts, fixed.made_of)


def _fixed(view: MeshView, dataplane: Resource, credential: Credential | None, choice: Choice) -> Fixed:
    config = proxy.render(view, dataplane, credential, choice=choice)

    def encoded(type_url: str, configs: Mapping[str, Config]) -> dict[str, Encoded]:
        return {name: view.shared.encode(type_url, name, config) for name, config in configs.items()}

    resources = {
        CLUSTER: encoded(CLUSTER, config.clusters),
        LISTENER: encoded(LISTENER, config.listeners),
        ROUTES: encoded(ROUTES, config.routes),
        SECRET: encoded(SECRET, config.secrets),
    }
    reached = tuple(config.reached)
    ids, problems = _server_ids(view, reached), tuple(config.problems)
    return Fixed(
        dataplane, credential, _given(view, dataplane), choice, ids, resources, reached, problems, config.made_of
    )


def _endpoints(view: MeshView, reached: Reached, zone: str) -> Encoded:
    config = outbounds.load_assignment(view, reached, zone)
    return view.shared.encode(ENDPOINTS, reached.destination.name, config)
