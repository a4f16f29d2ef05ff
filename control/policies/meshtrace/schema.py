"""MeshTrace: spans of HTTP requests, to Zipkin or an OpenTelemetry collector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from control.model.base import Model, Percentage, is_hostname, is_ip
from control.model.http import HeaderName, HeaderValue, Line
from control.model.target_ref import DISPLAY_NAME, BackendResourceRef, TopLevelTargetRef, check_top_level
from control.model.violation import Violation
from control.policies.policy import Policy

_ZIPKIN = {"type": "Zipkin", "zipkin": {"url": "http://zipkin:9411/api/v2/spans"}}


class ZipkinBackend(Model):
    url: Line = Field(examples=["http://zipkin:9411/api/v2/spans"])
    trace_id_128_bit: bool = Field(default=False, alias="traceId128bit")
    api_version: Literal["httpJson", "httpProto"] = "httpJson"
    # Zipkin's convention: client and server spans of a call share one id.
    shared_span_context: bool = True


class OpenTelemetryBackend(Model):
    backend_ref: BackendResourceRef = Field(
        examples=[{"kind": "MeshOpenTelemetryBackend", "labels": {DISPLAY_NAME: "collector"}}]
    )


class Backend(Model):
    # Kuma's Datadog is not supported.
    type: Literal["Zipkin", "OpenTelemetry"] = Field(examples=["Zipkin"])
    zipkin: ZipkinBackend | None = None
    open_telemetry: OpenTelemetryBackend | None = None


class Sampling(Model):
    """Per cent of requests; 100 unless set, as in Envoy."""

    overall: Percentage | None = None
    client: Percentage | None = None
    random: Percentage | None = None


class HeaderTag(Model):
    name: HeaderName = Field(examples=["x-team"])
    default: HeaderValue | None = None


class Tag(Model):
    name: Line = Field(examples=["team"])
    literal: Line | None = Field(default=None, examples=["core"])
    header: HeaderTag | None = None


class Conf(Model):
    backends: list[Backend] | None = Field(default=None, max_length=1, examples=[[_ZIPKIN]])
    sampling: Sampling | None = Field(default=None, examples=[{"overall": 10}])
    tags: list[Tag] | None = Field(default=None, max_length=64)


class Spec(Model):
    target_ref: TopLevelTargetRef | None = None
    default: Conf = Field(examples=[{"backends": [_ZIPKIN]}])


def validate(spec: Spec) -> Iterator[Violation]:
    yield from check_top_level(spec.target_ref, configures_inbounds=False)
    for index, backend in enumerate(spec.default.backends or ()):
        yield from _check_backend(backend, f"spec.default.backends[{index}]")
    for index, tag in enumerate(spec.default.tags or ()):
        if (tag.literal is None) == (tag.header is None):
            yield Violation(
                f"spec.default.tags[{index}]", "must have exactly one of literal, header", "{name: team, literal: core}"
            )


def _check_backend(backend: Backend, path: str) -> Iterator[Violation]:
    needed = "zipkin" if backend.type == "Zipkin" else "openTelemetry"
    given = [
        n for n, value in (("zipkin", backend.zipkin), ("openTelemetry", backend.open_telemetry)) if value is not None
    ]
    if given != [needed]:
        example = (
            "zipkin: {url: 'http://zipkin:9411/api/v2/spans'}"
            if backend.type == "Zipkin"
            else f"openTelemetry: {{backendRef: {{labels: {{{DISPLAY_NAME}: collector}}}}}}"
        )
        yield Violation(path, f"must have exactly the field {needed} with type {backend.type}", example)
    elif backend.zipkin is not None and not is_http_url(backend.zipkin.url):
        yield Violation(
            f"{path}.zipkin.url",
            f"must be an http URL with host and path; got {backend.zipkin.url!r}",
            "http://zipkin:9411/api/v2/spans",
        )


def is_http_url(text: str) -> bool:
    """Whether it has a valid host, and nothing that is not allowed in a request: Envoy connects to it."""
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port or 80
        there = is_ip(host) or is_hostname(host)
        plain = url.username is None and not url.fragment and " " not in text
        return url.scheme == "http" and there and plain and url.path.startswith("/") and port > 0
    except ValueError:
        return False


POLICY = Policy("MeshTrace", "meshtraces", "mtr", frozenset({"proxy"}), Spec, validate)
