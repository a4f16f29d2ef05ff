"""Dataplane: one proxy beside one workload: where it listens, what it fronts, and which services it may call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from control.model.base import Duration, Labels, Model, NonEmpty, Port, is_hostname, is_ip, shown
from control.model.target_ref import DISPLAY_NAME
from control.model.violation import Violation

Protocol = Literal["tcp", "http", "http2", "grpc"]
# The address of Envoy's own admin interface: reachable from its host only.
ADMIN_HOST = "127.0.0.1"
# Envoy counts in milliseconds.
SHORTEST_PROBE = timedelta(milliseconds=1)
# It becomes part of the names of clusters and routes.
PORT_NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HTTP_PROTOCOLS = frozenset({"http", "http2", "grpc"})


class Health(Model):
    ready: bool = Field(examples=[True])


class TcpProbe(Model):
    pass


class ServiceProbe(Model):
    """The proxy's own check of its application; while it fails, the inbound responds with 503 instead of trying."""

    # Short enough that a crashed application is noticed within a few seconds.
    interval: Duration | None = None
    timeout: Duration | None = None
    unhealthy_threshold: Annotated[int, Field(ge=1, le=1000)] | None = None
    healthy_threshold: Annotated[int, Field(ge=1, le=1000)] | None = None
    tcp: TcpProbe | None = None


class Inbound(Model):
    port: Port
    # Where the application listens; defaults to the same port.
    service_port: Port | None = None
    service_address: NonEmpty | None = Field(default=None, examples=["127.0.0.1"])
    address: NonEmpty | None = Field(default=None, examples=["10.0.0.5"])
    name: NonEmpty | None = Field(default=None, examples=["http"])
    # Unless set, the bytes are passed on without interpretation.
    protocol: Protocol = "tcp"
    # Ignored: a listener that no service offers. NotReady: kept out of every service's endpoints.
    state: Literal["Ready", "NotReady", "Ignored"] = "Ready"
    health: Health | None = None
    service_probe: ServiceProbe | None = None

    @property
    def section(self) -> str:
        return self.name or str(self.port)

    @property
    def is_ready(self) -> bool:
        return self.state == "Ready" and (self.health is None or self.health.ready)

    @property
    def is_http(self) -> bool:
        return self.protocol in HTTP_PROTOCOLS


class OutboundBackendRef(Model):
    kind: Literal["MeshService"] = Field(examples=["MeshService"])
    name: NonEmpty | None = Field(default=None, examples=["backend"])
    port: Port
    labels: Labels | None = None


class Outbound(Model):
    # Where the application reaches the service on its own host.
    address: NonEmpty = Field(default="127.0.0.1", examples=["127.0.0.1"])
    port: Port
    backend_ref: OutboundBackendRef = Field(examples=[{"kind": "MeshService", "name": "backend", "port": 80}])


class Admin(Model):
    port: Port = Field(examples=[9901])


class Networking(Model):
    address: NonEmpty = Field(examples=["10.0.0.5"])
    inbound: list[Inbound] = Field(default_factory=list, max_length=64)
    outbound: list[Outbound] = Field(default_factory=list, max_length=2000)
    admin: Admin | None = None


class DataplaneSpec(Model):
    networking: Networking


def _check_ip(path: str, text: str | None) -> Iterator[Violation]:
    if text is not None and not is_ip(text):
        yield Violation(path, f"must be an IP address; got {text!r}", "127.0.0.1")


def validate(spec: DataplaneSpec) -> Iterator[Violation]:
    networking = spec.networking
    yield from _check_address(networking.address)
    for index, inbound in enumerate(networking.inbound):
        yield from _check_inbound(inbound, f"spec.networking.inbound[{index}]", networking.address)
    for index, outbound in enumerate(networking.outbound):
        yield from _check_outbound(outbound, f"spec.networking.outbound[{index}]")
    yield from _check_collisions(networking)


def _check_address(address: str) -> Iterator[Violation]:
    path = "spec.networking.address"
    if address in ("0.0.0.0", "::"):  # noqa: S104 (refused here)
        yield Violation(path, f"must be an address that others can reach; got {address}", "10.0.0.5")
    elif not is_ip(address) and not is_hostname(address):
        yield Violation(path, f"must be an IP address or a domain name; got {address!r}", "10.0.0.5")


def _check_inbound(inbound: Inbound, path: str, address: str) -> Iterator[Violation]:
    yield from _check_ip(f"{path}.serviceAddress", inbound.service_address)
    yield from _check_ip(f"{path}.address", inbound.address)
    probe = inbound.service_probe
    for name in ("interval", "timeout"):
        value = getattr(probe, name) if probe is not None else None
        if value is not None and value < SHORTEST_PROBE:
            yield Violation(f"{path}.serviceProbe.{name}", "must be at least 1ms", f"{name}: 10s")
    listens_on = inbound.address or address
    serves_on = inbound.service_address or "127.0.0.1"
    if serves_on == listens_on and (inbound.service_port or inbound.port) == inbound.port:
        yield Violation(
            f"{path}.servicePort",
            f"the application and the proxy would both listen on {listens_on}:{inbound.port}: "
            "set a servicePort or serviceAddress that differs",
            f"servicePort: {inbound.port + 10000 if inbound.port < 55536 else inbound.port - 10000}",
        )
    if inbound.name is not None and not re.fullmatch(PORT_NAME, inbound.name):
        yield Violation(
            f"{path}.name",
            f"must have only lower-case letters, digits and '-', at most 63; got {shown(inbound.name)}",
            "http",
        )


def _check_outbound(outbound: Outbound, path: str) -> Iterator[Violation]:
    yield from _check_ip(f"{path}.address", outbound.address)
    reference = outbound.backend_ref
    if (reference.name is None) == (not reference.labels):
        yield Violation(
            f"{path}.backendRef",
            "must have either name or labels",
            f"{{kind: MeshService, labels: {{{DISPLAY_NAME}: backend}}, port: 80}}",
        )


def _check_collisions(networking: Networking) -> Iterator[Violation]:
    """Two listeners of one proxy cannot share address and port, nor two inbounds a section name."""
    taken: dict[tuple[str, int], str] = {}
    sections: dict[str, str] = {}
    places: list[tuple[str, str, int]] = []
    for index, inbound in enumerate(networking.inbound):
        path = f"spec.networking.inbound[{index}]"
        places.append((path, inbound.address or networking.address, inbound.port))
        if inbound.section in sections:
            yield Violation(
                f"{path}.name",
                f"{inbound.section!r} is already the name of {sections[inbound.section]}",
                f"name: port-{index}",
            )
        sections.setdefault(inbound.section, path)
    places += [
        (f"spec.networking.outbound[{index}]", outbound.address, outbound.port)
        for index, outbound in enumerate(networking.outbound)
    ]
    if networking.admin is not None:
        # Besides Envoy's own, the listener for the control plane (xds/render/admin.py).
        hosts = dict.fromkeys((ADMIN_HOST, networking.address))
        places += [("spec.networking.admin", host, networking.admin.port) for host in hosts]
    for path, address, port in places:
        if (address, port) in taken:
            yield Violation(
                f"{path}.port",
                f"{address}:{port} is already taken by {taken[address, port]}",
                f"port: {port % 65535 + 1}",
            )
        taken.setdefault((address, port), path)
