"""Which policies apply to what, and how several become one configuration. Rules of Kuma 3.0, pure functions.

Theory of operation
-------------------
A policy's top-level targetRef selects proxies: the mesh, dataplanes by labels, or one inbound of them by section name.
Below it, configuration stands in one of three places: `default` (the proxy as a whole), `rules` (its inbounds), `to`
(its outbounds, each entry with a targetRef of its own).

A policy with the label `kuma.io/effect: shadow` applies to nothing; `mesh inspect config --shadow` shows it.

Everything that applies to one thing is put in order, the weakest first:

1. top-level kind: Mesh before Dataplane;
2. top-level section: without before with a sectionName;
3. kind of the `to` entry: Mesh before MeshService, and MeshService before one of its ports;
4. name of the policy: the larger first, so that the smaller name wins;
5. place in the policy: the later entry wins.

In that order they are merged as JSON merge patches (RFC 7396): mappings field by field, lists and scalars as a whole.
`rules` of MeshTrafficPermission are the exception: they are all in force together (a deny wins wherever it stands).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from control.model.base import Model
from control.model.kuma_labels import is_shadow
from control.model.mesh_service import ServicePort
from control.model.resource import Resource
from control.model.target_ref import OutboundTargetRef, TopLevelTargetRef

C = TypeVar("C", bound=Model)

_TO_ORDER = {"Mesh": 0, "MeshService": 1}


@dataclass(frozen=True)
class Entry:
    """One piece of configuration, where it came from, and how strong it is."""

    conf: Any
    policy: Resource
    index: int
    to: OutboundTargetRef | None = None

    @property
    def origin(self) -> str:
        return f"{self.policy.kind.type}/{self.policy.name}"


def selects(ref: TopLevelTargetRef | None, labels: Mapping[str, str]) -> bool:
    """Whether a top-level targetRef selects the dataplane with these (effective) labels."""
    if ref is None or ref.kind == "Mesh":
        return True
    return all(labels.get(key) == value for key, value in (ref.labels or {}).items())


def selects_inbound(ref: TopLevelTargetRef | None, section: str, port: int) -> bool:
    """Whether it selects this inbound of a dataplane that it selects."""
    return ref is None or ref.section_name is None or ref.section_name in (section, str(port))


def selects_service(ref: OutboundTargetRef, service: Resource, port: ServicePort) -> bool:
    if ref.kind == "Mesh":
        return True
    labels = service.effective_labels
    return all(labels.get(key) == value for key, value in (ref.labels or {}).items()) and (
        ref.section_name is None or port.is_section(ref.section_name)
    )


def matching(policies: Iterable[Resource], labels: Mapping[str, str], shadow: bool = False) -> list[Resource]:
    """The policies (of one type) that select a dataplane, the weakest first; `shadow`: also those without effect."""
    chosen = [
        policy
        for policy in policies
        if (shadow or not is_shadow(policy.labels)) and selects(policy.spec.target_ref, labels)
    ]
    chosen.sort(key=lambda policy: policy.name, reverse=True)
    chosen.sort(key=lambda policy: _strength(policy.spec.target_ref))
    return chosen


def _strength(ref: TopLevelTargetRef | None) -> tuple[int, int]:
    if ref is None or ref.kind == "Mesh":
        return (0, 0)
    return (1, int(ref.section_name is not None))


def proxy_entries(policies: Sequence[Resource]) -> list[Entry]:
    """Entries of policies with a `default`; `policies` as returned by `matching`."""
    return [Entry(policy.spec.default, policy, 0) for policy in policies]


def inbound_entries(policies: Sequence[Resource], section: str, port: int) -> list[Entry]:
    """Entries of policies with `rules`, for one inbound."""
    return [
        Entry(rule.default, policy, index)
        for policy in policies
        if selects_inbound(policy.spec.target_ref, section, port)
        for index, rule in enumerate(policy.spec.rules or ())
    ]


def outbound_entries(policies: Sequence[Resource], service: Resource, port: ServicePort) -> list[Entry]:
    """Entries of policies with `to`, for one port of a service."""
    entries = [
        Entry(to if policy.kind.type == "MeshHTTPRoute" else to.default, policy, index, to.target_ref)
        for policy in policies
        for index, to in enumerate(policy.spec.to or ())
        if selects_service(to.target_ref, service, port)
    ]
    entries.sort(key=_outbound_strength)
    return entries


def _outbound_strength(entry: Entry) -> tuple[int, int, int, int]:
    """Sort key; stable sorting preserves the order of names and places that `matching` made."""
    assert entry.to is not None
    top = _strength(entry.policy.spec.target_ref)
    return (*top, _TO_ORDER[entry.to.kind], int(entry.to.section_name is not None))


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def merged(entries: Sequence[Entry], model: type[C]) -> C | None:
    """The one configuration that results from the entries, the weakest first; None if there are none."""
    if not entries:
        return None
    if len(entries) == 1 and isinstance(entries[0].conf, model):
        return entries[0].conf
    data: Any = {}
    for entry in entries:
        data = merge_patch(data, entry.conf.to_data())
    return model.model_validate(data)
