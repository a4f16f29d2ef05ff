"""Where the routes of a destination lead, for one proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import Destination, MeshView
from control.model.target_ref import BackendRef
from control.policies.matching import outbound_entries
from control.policies.meshhttproute import generate
from envoy_ext.render import Config

TYPE = "MeshHTTPRoute"


def routes(
    view: MeshView, policies: ProxyPolicies, destination: Destination, hash_policies: Sequence[Config] = ()
) -> tuple[list[Config], Mapping[str, Destination]]:
    """Returns the routes, and the destinations that they name, by cluster name.

    `hash_policies`: added to every route, for a load balancer that hashes.
    """
    reached: dict[str, Destination] = {}

    def resolve(reference: BackendRef) -> str | None:
        found = view.resolve_backend(reference, destination.port.section)
        if found is not None:
            reached[found.name] = found
        return found.name if found is not None else None

    entries = outbound_entries(policies.of_type(TYPE), destination.service, destination.port)
    return generate.routes(entries, generate.Destination(destination.name, hash_policies), resolve), reached
