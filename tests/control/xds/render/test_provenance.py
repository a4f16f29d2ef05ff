"""A policy that makes a difference to a resource is among its sources: else it would not be found when refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from control.mesh.choice import Choice
from control.mesh.view import MeshView
from control.policies import POLICIES
from control.xds.encoding.encode import CLUSTER, LISTENER, ROUTES
from control.xds.render import proxy
from control.xds.render.context import ProxyConfig
from tests.control.policies.test_scenarios import NAMES, text_of


def by_type(config: ProxyConfig) -> dict[str, dict[str, Any]]:
    return {CLUSTER: config.clusters, LISTENER: config.listeners, ROUTES: config.routes}


@pytest.mark.parametrize("name", NAMES)
def test_who_makes_a_difference_is_a_source(name: str, scenario: Callable[[str], MeshView]) -> None:
    view = scenario(text_of(name))
    web = view.get("Dataplane", "web-1")
    assert web is not None
    whole = proxy.render(view, web)
    policies = [policy for kind in POLICIES for policy in view.of_type(kind.type)]
    for policy in policies:
        key = (policy.kind.type, policy.name)
        without = by_type(proxy.render(view, web, choice=Choice(left_out=frozenset({key}))))
        for type_url, configs in by_type(whole).items():
            for resource, config in configs.items():
                # One that is only there because a route leads to it is another matter.
                if without[type_url].get(resource, config) != config:
                    assert key in {source.key for source in whole.made_of[type_url][resource]}, (resource, key)


@pytest.mark.parametrize("name", NAMES)
def test_every_resource_has_its_sources(name: str, scenario: Callable[[str], MeshView]) -> None:
    view = scenario(text_of(name))
    web = view.get("Dataplane", "web-1")
    assert web is not None
    config = proxy.render(view, web)
    for type_url, configs in by_type(config).items():
        assert configs.keys() == config.made_of[type_url].keys()
        assert all(config.made_of[type_url].values())
