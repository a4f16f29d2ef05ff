"""The sources of each resource of a proxy: the policies in it, the dataplane, the service that it leads to.

It errs on the side of more: a policy that changes a resource is always among its sources (test_provenance.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from control.mesh.choice import PROTECTING, Made, Source
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import Destination
from control.model.dataplane import Inbound
from control.model.resource import Resource
from control.policies.matching import inbound_entries, outbound_entries
from control.xds.encoding.shared import SharedConfigs


def source(resource: Resource) -> Source:
    # A resource that was deleted and created again reaches the same version again, at another time.
    return Source(resource.kind.type, resource.name, f"{resource.version}@{resource.modification_time}")


def _made(resources: Iterable[Resource]) -> Made:
    return frozenset(map(source, resources))


def of_proxy(policies: ProxyPolicies, dataplane: Resource, *type_names: str) -> Made:
    """All policies of these types that select the proxy."""
    return _made([dataplane, *(policy for name in type_names for policy in policies.of_type(name))])


def of_inbound(policies: ProxyPolicies, dataplane: Resource, inbound: Inbound, closed: bool, *type_names: str) -> Made:
    """Policies of these types with rules for the inbound; `closed`: without those that let callers in."""
    counted = [name for name in type_names if not (closed and name in PROTECTING)]
    entries = [e for name in counted for e in inbound_entries(policies.of_type(name), inbound.section, inbound.port)]
    return _made([dataplane, *(entry.policy for entry in entries)])


def of_destination(shared: SharedConfigs, policies: ProxyPolicies, destination: Destination, *type_names: str) -> Made:
    """Policies of these types with settings for the destination; the same for many proxies."""

    def make() -> Made:
        found = [policies.of_type(name) for name in type_names]
        entries = [e for some in found for e in outbound_entries(some, destination.service, destination.port)]
        return _made([destination.service, *(entry.policy for entry in entries)])

    return shared.made(("made of", destination.name, type_names, policies.key(*type_names)), make)
