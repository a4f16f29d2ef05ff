"""What one proxy should have: resources by type and name, each with the version that the proxy will be told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from control.mesh.choice import Made
from control.mesh.facts import Facts
from control.xds.encoding import encode
from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Encoded

TYPES = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET)
_NOTHING: Mapping[str, Encoded] = {}


@dataclass(frozen=True)
class Snapshot:
    """Immutable; resources are shared with the snapshots of other proxies."""

    resources: Mapping[str, Mapping[str, Encoded]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    # What it means for others once it is acknowledged; None if nobody needs that.
    facts: Facts | None = None
    # By type and name; see render/provenance.py.
    made_of: Mapping[str, Mapping[str, Made]] = field(default_factory=dict)

    @cached_property
    def broken(self) -> Mapping[str, Mapping[str, str]]:
        """What breaks rules of Envoy's API, by type and name: Envoy would reject it."""
        found = {
            type_url: {name: "; ".join(one.broken) for name, one in resources.items() if one.broken}
            for type_url, resources in self.resources.items()
        }
        return {type_url: broken for type_url, broken in found.items() if broken}

    def of_type(self, type_url: str) -> Mapping[str, Encoded]:
        return self.resources.get(type_url, _NOTHING)

    def version(self, type_url: str) -> str:
        """The version of a client that has all of this type."""
        resources = self.of_type(type_url)
        if type_url == ENDPOINTS:
            versions = {name: cluster.version for name, cluster in self.of_type(CLUSTER).items()}
            resources = {name: fold(resource, versions.get(name, "")) for name, resource in resources.items()}
        return encode.version_of(type_url, resources.values())


def fold(resource: Encoded, version: str) -> Encoded:
    """The same bytes under a version that also changes with `version`: for endpoints, with that of their cluster.

    When a cluster changes, Envoy warms a new one, which waits for endpoints; they must be sent again although they
    did not change.
    """
    folded = hashlib.sha256(f"{resource.version}\0{version}".encode()).hexdigest()[:16]
    return encode.shared(resource.name, resource.any_bytes, folded)


def no_endpoints(cluster: str) -> Encoded:
    """The response for a cluster that does not exist: Envoy proceeds at once instead of waiting for a timeout."""
    return encode.of_message(ENDPOINTS, cluster, encode.MESSAGES[ENDPOINTS](cluster_name=cluster))
