"""What a proxy's configuration is made from, and what it is collected in."""

from __future__ import annotations

from dataclasses import dataclass, field

from control.mesh.choice import Made
from control.mesh.proxy_policies import ProxyPolicies, ProxySettings
from control.mesh.view import Destination, MeshView
from control.model.identity import Identity
from control.model.resource import Resource
from control.xds.encoding.encode import CLUSTER, LISTENER, ROUTES
from control.xds.encoding.shared import SharedConfigs
from envoy_ext.render import Config


@dataclass(frozen=True)
class ProxyContext:
    """One proxy in one view, and what holds for all its listeners and clusters."""

    view: MeshView
    dataplane: Resource
    policies: ProxyPolicies
    settings: ProxySettings
    identity: Identity | None
    # For connection managers; None if nothing is traced.
    tracing: Config | None
    shared: SharedConfigs


@dataclass(frozen=True)
class Reached:
    """A destination whose endpoints a proxy needs. `aware`: of its own zone first; `tls`: those called by TLS."""

    destination: Destination
    aware: bool
    tls: bool


@dataclass
class ProxyConfig:
    """Resources by name, for each type of xDS except endpoints (endpoints.py); and problems, in words."""

    clusters: dict[str, Config] = field(default_factory=dict)
    listeners: dict[str, Config] = field(default_factory=dict)
    routes: dict[str, Config] = field(default_factory=dict)
    secrets: dict[str, Config] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    # The destinations whose endpoints are needed.
    reached: list[Reached] = field(default_factory=list)
    # By type of xDS and name; without endpoints and secrets, which no policy is in.
    made_of: dict[str, dict[str, Made]] = field(default_factory=lambda: {CLUSTER: {}, LISTENER: {}, ROUTES: {}})
