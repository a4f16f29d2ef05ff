"""MeshHealthCheck: proxies check the endpoints of a service, and exclude the unhealthy ones."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from control.model.base import Duration, Model, NonEmpty, shown
from control.model.http import HeaderName, HeaderValue, file_problem
from control.model.target_ref import OutboundTargetRef, TopLevelTargetRef, check_outbound, check_top_level
from control.model.violation import Violation
from control.policies.policy import Policy

Threshold = Annotated[int, Field(ge=1, le=1000, examples=[3])]
Status = Annotated[int, Field(ge=100, le=599, examples=[200])]


class TcpHealthCheck(Model):
    disabled: bool | None = None
    send: str | None = Field(default=None, examples=["UElORw=="])
    receive: list[str] | None = Field(default=None, examples=[["UE9ORw=="]])


class HeaderKeyValue(Model):
    name: HeaderName = Field(examples=["x-check"])
    value: HeaderValue = Field(examples=["mesh"])


class HeaderModifier(Model):
    set: list[HeaderKeyValue] | None = Field(default=None, max_length=16)
    add: list[HeaderKeyValue] | None = Field(default=None, max_length=16)


class HttpHealthCheck(Model):
    disabled: bool | None = None
    path: NonEmpty | None = Field(default=None, examples=["/health"])
    request_headers_to_add: HeaderModifier | None = None
    expected_statuses: list[Status] | None = Field(default=None, examples=[[200, 204]])


class GrpcHealthCheck(Model):
    disabled: bool | None = None
    service_name: HeaderValue | None = Field(default=None, examples=["shop.Cart"])
    authority: HeaderValue | None = Field(default=None, examples=["cart"])


class Conf(Model):
    interval: Duration | None = None
    # Interval for an unhealthy endpoint; defaults to `interval`.
    unhealthy_interval: Duration | None = None
    timeout: Duration | None = None
    unhealthy_threshold: Threshold | None = None
    healthy_threshold: Threshold | None = None
    initial_jitter: Duration | None = None
    interval_jitter: Duration | None = None
    interval_jitter_percent: Annotated[int, Field(ge=0, le=100, examples=[10])] | None = None
    fail_traffic_on_panic: bool | None = None
    no_traffic_interval: Duration | None = None
    event_log_path: NonEmpty | None = Field(default=None, examples=["/var/log/health.log"])
    always_log_health_check_failures: bool | None = None
    reuse_connection: bool | None = None
    tcp: TcpHealthCheck | None = Field(default=None, examples=[{}])
    http: HttpHealthCheck | None = Field(default=None, examples=[{"path": "/health"}])
    grpc: GrpcHealthCheck | None = Field(default=None, examples=[{}])


class To(Model):
    target_ref: OutboundTargetRef = Field(examples=[{"kind": "Mesh"}])
    default: Conf = Field(examples=[{"interval": "10s", "http": {"path": "/health"}}])


class Spec(Model):
    target_ref: TopLevelTargetRef | None = None
    to: list[To] = Field(min_length=1, max_length=1000)


# Envoy counts in milliseconds: anything shorter would be zero, and checks would follow each other without a pause.
SHORTEST = timedelta(milliseconds=1)
_POSITIVE = ("interval", "unhealthy_interval", "timeout", "no_traffic_interval", "initial_jitter", "interval_jitter")


def validate(spec: Spec) -> Iterator[Violation]:
    yield from check_top_level(spec.target_ref, configures_inbounds=False)
    for index, to in enumerate(spec.to):
        yield from check_outbound(to.target_ref, f"spec.to[{index}].targetRef")
        yield from _check_conf(to.default, f"spec.to[{index}].default")


def _check_conf(conf: Conf, path: str) -> Iterator[Violation]:
    if conf.http is None and conf.tcp is None and conf.grpc is None:
        yield Violation(path, "must have at least one of http, tcp, grpc", "http: {path: /health}")
    for name in _POSITIVE:
        value = getattr(conf, name)
        if value is not None and value < SHORTEST:
            alias = Conf.model_fields[name].alias
            yield Violation(f"{path}.{alias}", "must be at least 1ms", f"{alias}: 10s")
    problem = file_problem(conf.event_log_path) if conf.event_log_path is not None else None
    if problem is not None:
        yield Violation(f"{path}.eventLogPath", f"{problem}; got {shown(conf.event_log_path)}", "/var/log/health.log")
    asked = conf.http.path if conf.http is not None else None
    if asked is not None and (not asked.startswith("/") or re.search(r"[\s#\x00-\x1f\x7f]", asked)):
        yield Violation(f"{path}.http.path", f"must be an absolute path; got {shown(asked)}", "/health")
    if conf.tcp is not None:
        texts = [("send", conf.tcp.send)] + [(f"receive[{i}]", text) for i, text in enumerate(conf.tcp.receive or ())]
        for name, text in texts:
            if text is not None and not is_base64(text):
                yield Violation(f"{path}.tcp.{name}", f"must be base64; got {text!r}", "UElORw==")


def is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return text != ""


POLICY = Policy("MeshHealthCheck", "meshhealthchecks", "mhc", frozenset({"outbound"}), Spec, validate)
