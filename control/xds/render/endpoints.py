"""The endpoints of what a proxy calls: all that changes for it when other dataplanes come, move and go."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from control.mesh.view import MeshView
from control.policies.meshloadbalancingstrategy import generate as balancing
from control.xds.encoding.shared import SharedConfigs
from control.xds.render.context import Reached
from envoy_ext.render import Config


def load_assignments(
    view: MeshView, reached: Iterable[Reached], zone: str, shared: SharedConfigs | None = None
) -> dict[str, Config]:
    """By cluster name, for proxies of this zone; one object for all of them that have the same `shared`."""
    kept, found = shared or SharedConfigs(), {}
    for one in reached:
        name = one.destination.name
        found[name] = kept.made(
            ("endpoints", name, zone, one.aware, one.tls), partial(_load_assignment, view, one, zone)
        )
    return found


def _load_assignment(view: MeshView, reached: Reached, zone: str) -> Config:
    endpoints = view.endpoints(reached.destination, reached.tls)
    return balancing.load_assignment(reached.destination.name, endpoints, zone, reached.aware)
