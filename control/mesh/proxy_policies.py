"""The policies that select one proxy, by type, looked up once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from control.mesh.choice import IN_FORCE, Choice
from control.mesh.view import MeshView
from control.model.resource import Resource
from control.policies.matching import inbound_entries, matching, merged, proxy_entries
from control.policies.meshmetric.schema import Conf as MetricConf
from control.policies.meshoffload.generate import OffloadSettings, settings
from control.policies.meshoffload.schema import Conf as OffloadConf
from control.policies.meshtls.schema import Conf as TlsConf
from control.policies.meshtrace.schema import Conf as TraceConf


class ProxyPolicies:
    def __init__(self, view: MeshView, dataplane: Resource, choice: Choice = IN_FORCE) -> None:
        self._view, self._labels, self._given = view, dataplane.effective_labels, view.given(dataplane)
        self.choice = choice
        self._by_type: dict[str, list[Resource]] = {}

    def of_type(self, type_name: str) -> Sequence[Resource]:
        """The weakest first, as `matching` orders them."""
        if type_name not in self._by_type:
            found = matching(self._view.of_type(type_name), self._labels, self.choice.shadow)
            left_out = self.choice.left_out
            self._by_type[type_name] = [policy for policy in found if (type_name, policy.name) not in left_out]
        return self._by_type[type_name]

    def key(self, *type_names: str) -> tuple[tuple[str, ...], ...]:
        """Equal for two proxies of one view that are selected by the same policies of these types."""
        return tuple(tuple(policy.name for policy in self.of_type(type_name)) for type_name in type_names)

    @cached_property
    def wanted_offload(self) -> OffloadSettings:
        return settings(merged(proxy_entries(self.of_type("MeshOffload")), OffloadConf))

    @cached_property
    def offload(self) -> OffloadSettings:
        """The plan says where the key is now: it waits for the node's daemon before the key moves."""
        found, given = self.wanted_offload, self._given
        if given is None or given.identity is None:
            return found
        if given.place is None:
            return replace(found, mode="EnvoyTLS")
        return replace(found, mode="Offload", socket=given.place.socket)


@dataclass(frozen=True)
class ProxySettings:
    """What the policies of a proxy say about the proxy as a whole."""

    policies: ProxyPolicies
    offload: OffloadSettings
    trace: TraceConf | None
    metric: MetricConf | None
    # Versions and ciphers for outgoing calls: from the policies for the whole mesh, which bind both ends.
    client_tls: TlsConf | None


def settings_of(view: MeshView, dataplane: Resource, choice: Choice = IN_FORCE) -> ProxySettings:
    policies = ProxyPolicies(view, dataplane, choice)
    of_type = policies.of_type
    whole_mesh = [p for p in of_type("MeshTLS") if p.spec.target_ref is None or p.spec.target_ref.kind == "Mesh"]
    return ProxySettings(
        policies,
        policies.offload,
        merged(proxy_entries(of_type("MeshTrace")), TraceConf),
        merged(proxy_entries(of_type("MeshMetric")), MetricConf),
        merged(inbound_entries(whole_mesh, "", 0), TlsConf),
    )
