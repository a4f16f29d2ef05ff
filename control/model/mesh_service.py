"""MeshService: what clients call: a selection of dataplanes, the ports they offer, and who they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from control.model.base import Model, NonEmpty, Port, refuse, shown
from control.model.dataplane import HTTP_PROTOCOLS, PORT_NAME, Inbound, Protocol
from control.model.target_ref import LabelSelector, spiffe_id_problem
from control.model.violation import Violation


def _target_port(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refuse(f"must be a port number or the name of an inbound; got {value!r}")
    if isinstance(value, int) and not 1 <= value <= 65535:
        raise refuse(f"must be a port from 1 to 65535, or the name of an inbound; got {value}")
    if value == "":
        raise refuse("must be a port number or the name of an inbound; got an empty string")
    return value


class DataplaneRef(Model):
    name: NonEmpty = Field(examples=["backend-1"])


class Selector(Model):
    dataplane_ref: DataplaneRef | None = None
    dataplane_labels: LabelSelector | None = Field(default=None, examples=[{"matchLabels": {"app": "backend"}}])


class ServicePort(Model):
    port: Port = Field(examples=[80])
    name: NonEmpty | None = Field(default=None, examples=["http"])
    # The inbound of the selected dataplanes, by port or by name; defaults to the service's own port.
    target_port: Annotated[int | str, BeforeValidator(_target_port), Field(examples=[8080])] | None = None
    app_protocol: Protocol = "tcp"

    @property
    def section(self) -> str:
        return self.name or str(self.port)

    @property
    def is_http(self) -> bool:
        return self.app_protocol in HTTP_PROTOCOLS

    def is_section(self, name: str) -> bool:
        return name in (self.name, str(self.port))

    def is_served_by(self, inbound: Inbound) -> bool:
        target = self.target_port if self.target_port is not None else self.port
        return inbound.port == target if isinstance(target, int) else inbound.name == target


class ServiceIdentity(Model):
    type: Literal["SpiffeID"] = Field(examples=["SpiffeID"])
    value: NonEmpty = Field(examples=["spiffe://default.default.mesh.local/workload/backend"])


class MeshServiceSpec(Model):
    selector: Selector = Field(examples=[{"dataplaneLabels": {"matchLabels": {"app": "backend"}}}])
    ports: list[ServicePort] = Field(min_length=1, max_length=64, examples=[[{"port": 80, "appProtocol": "http"}]])
    # SPIFFE ids that may serve it; defaults to those of the selected dataplanes.
    identities: list[ServiceIdentity] | None = None

    def port_of(self, section: str) -> ServicePort | None:
        return next((port for port in self.ports if port.is_section(section)), None)

    def selects(self, name: str, labels: Mapping[str, str]) -> bool:
        if self.selector.dataplane_ref is not None:
            return self.selector.dataplane_ref.name == name
        return self.selector.dataplane_labels is not None and self.selector.dataplane_labels.matches(labels)


def validate(spec: MeshServiceSpec) -> Iterator[Violation]:
    example = "selector: {dataplaneLabels: {matchLabels: {app: backend}}}"
    if (spec.selector.dataplane_ref is None) == (spec.selector.dataplane_labels is None):
        yield Violation("spec.selector", "must have exactly one of dataplaneRef, dataplaneLabels", example)
    labels = spec.selector.dataplane_labels
    if labels is not None and not labels.match_labels:
        yield Violation(
            "spec.selector.dataplaneLabels.matchLabels", "must not be empty: it would select every proxy", example
        )
    seen: dict[str, int] = {}
    for index, port in enumerate(spec.ports):
        if port.name is not None and not re.fullmatch(PORT_NAME, port.name):
            yield Violation(
                f"spec.ports[{index}].name",
                f"must have only lower-case letters, digits and '-', at most 63; got {shown(port.name)}",
                "http",
            )
        for section in {str(port.port), port.section}:
            if section in seen:
                yield Violation(
                    f"spec.ports[{index}]", f"{section} is already a port of spec.ports[{seen[section]}]", "port: 81"
                )
            seen.setdefault(section, index)
    for index, identity in enumerate(spec.identities or ()):
        problem = spiffe_id_problem(identity.value)
        if problem is not None:
            yield Violation(
                f"spec.identities[{index}].value",
                f"must be a SPIFFE ID: {problem}; got {identity.value!r}",
                "spiffe://default.default.mesh.local/workload/backend",
            )
