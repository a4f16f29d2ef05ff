"""MeshMetric: the proxy's own metrics, offered to Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from control.model.base import Model, NonEmpty, Port
from control.model.target_ref import TopLevelTargetRef, check_top_level
from control.model.violation import Violation
from control.policies.policy import Policy

_PROMETHEUS = {"type": "Prometheus", "prometheus": {"port": 5670}}


class Sidecar(Model):
    # Includes metrics that never changed.
    include_unused: bool | None = None


class PrometheusBackend(Model):
    # The same as Kuma's.
    port: Port = Field(default=5670, examples=[5670])
    path: NonEmpty = Field(default="/metrics", examples=["/metrics"])


class Backend(Model):
    # Kuma's OpenTelemetry is not supported.
    type: Literal["Prometheus"] = Field(examples=["Prometheus"])
    prometheus: PrometheusBackend = Field(default_factory=PrometheusBackend, examples=[{"port": 5670}])


class Conf(Model):
    sidecar: Sidecar | None = None
    backends: list[Backend] | None = Field(default=None, max_length=8, examples=[[_PROMETHEUS]])


class Spec(Model):
    target_ref: TopLevelTargetRef | None = None
    default: Conf = Field(examples=[{"backends": [_PROMETHEUS]}])


def validate(spec: Spec) -> Iterator[Violation]:
    yield from check_top_level(spec.target_ref, configures_inbounds=False)
    ports: set[int] = set()
    for index, backend in enumerate(spec.default.backends or ()):
        path = f"spec.default.backends[{index}].prometheus"
        if not re.fullmatch(r"/[A-Za-z0-9/._-]*", backend.prometheus.path):
            yield Violation(f"{path}.path", f"must be an absolute path; got {backend.prometheus.path!r}", "/metrics")
        if backend.prometheus.port in ports:
            yield Violation(f"{path}.port", f"{backend.prometheus.port} is given twice", "port: 5671")
        ports.add(backend.prometheus.port)


POLICY = Policy("MeshMetric", "meshmetrics", "mm", frozenset({"proxy"}), Spec, validate)
