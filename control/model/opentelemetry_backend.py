"""MeshOpenTelemetryBackend: a collector that policies refer to, so that its address is in one place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from control.model.base import Model, NonEmpty, Port, is_hostname, is_ip
from control.model.violation import Violation


class Endpoint(Model):
    # Defaults to a collector on the proxy's own host.
    address: NonEmpty = Field(default="127.0.0.1", examples=["otel-collector.example"])
    # 4317 is OTLP over gRPC.
    port: Port = Field(default=4317, examples=[4317])


class MeshOpenTelemetryBackendSpec(Model):
    endpoint: Endpoint = Field(default_factory=Endpoint)
    # OTLP over HTTP is not supported.
    protocol: Literal["grpc"] = "grpc"


def validate(spec: MeshOpenTelemetryBackendSpec) -> Iterator[Violation]:
    address = spec.endpoint.address
    if not is_ip(address) and not is_hostname(address):
        yield Violation(
            "spec.endpoint.address", f"must be an address without scheme, port and path; got {address!r}", "10.0.0.9"
        )
