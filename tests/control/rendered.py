"""All that one proxy gets, endpoints too, as plain dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field

from control.mesh.view import MeshView
from control.model.identity import Credential
from control.model.resource import Resource
from control.xds.render.context import ProxyConfig
from control.xds.render.endpoints import load_assignments
from control.xds.render.proxy import render
from envoy_ext.render import Config


@dataclass
class Rendered(ProxyConfig):
    endpoints: dict[str, Config] = field(default_factory=dict)


def rendered(view: MeshView, dataplane: Resource, credential: Credential | None = None) -> Rendered:
    config = render(view, dataplane, credential)
    return Rendered(**vars(config), endpoints=load_assignments(view, config.reached, view.zone_of(dataplane)))
