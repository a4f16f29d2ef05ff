"""MeshAccessLog: a line for each request or connection, of inbounds (`rules`) and of outbounds (`to`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from control.model.base import Model, NonEmpty, shown
from control.model.http import file_problem
from control.model.target_ref import OutboundTargetRef, TopLevelTargetRef, check_outbound, check_top_level
from control.model.violation import Violation
from control.policies.meshaccesslog import operators
from control.policies.policy import Policy

_FILE = {"type": "File", "file": {"path": "/dev/stdout"}}


class JsonValue(Model):
    key: NonEmpty = Field(examples=["start_time"])
    value: NonEmpty = Field(examples=["%START_TIME%"])


class Format(Model):
    type: Literal["Plain", "Json"] = Field(examples=["Plain"])
    plain: NonEmpty | None = Field(default=None, examples=["[%START_TIME%] %PROTOCOL% %RESPONSE_CODE%"])
    # An alias is needed since `json` is a method of pydantic's models.
    json_fields: list[JsonValue] | None = Field(default=None, alias="json", min_length=1, max_length=128)
    omit_empty_values: bool | None = None


class FileBackend(Model):
    path: NonEmpty = Field(examples=["/dev/stdout"])
    format: Format | None = Field(default=None, examples=[{"type": "Plain", "plain": "%START_TIME% %RESPONSE_CODE%"}])


class Backend(Model):
    # Kuma's Tcp and OpenTelemetry are not supported.
    type: Literal["File"] = Field(examples=["File"])
    file: FileBackend


class Conf(Model):
    backends: list[Backend] = Field(max_length=16, examples=[[_FILE]])


class Rule(Model):
    default: Conf = Field(examples=[{"backends": [_FILE]}])


class To(Model):
    target_ref: OutboundTargetRef = Field(examples=[{"kind": "Mesh"}])
    default: Conf = Field(examples=[{"backends": [_FILE]}])


class Spec(Model):
    target_ref: TopLevelTargetRef | None = None
    rules: list[Rule] | None = None
    to: list[To] | None = None


def validate(spec: Spec) -> Iterator[Violation]:
    yield from check_top_level(spec.target_ref, configures_inbounds=bool(spec.rules))
    if not spec.rules and not spec.to:
        yield Violation(
            "spec",
            "must have at least one of rules (inbounds), to (outbounds)",
            f"rules: [{{default: {{backends: [{_FILE}]}}}}]",
        )
    for index, rule in enumerate(spec.rules or ()):
        yield from _check_conf(rule.default, f"spec.rules[{index}].default")
    for index, to in enumerate(spec.to or ()):
        yield from check_outbound(to.target_ref, f"spec.to[{index}].targetRef")
        yield from _check_conf(to.default, f"spec.to[{index}].default")


def _check_conf(conf: Conf, path: str) -> Iterator[Violation]:
    for index, backend in enumerate(conf.backends):
        place = f"{path}.backends[{index}].file"
        problem = file_problem(backend.file.path)
        if problem is not None:
            yield Violation(f"{place}.path", f"{problem}; got {shown(backend.file.path)}", "/dev/stdout")
        if backend.file.format is not None:
            yield from _check_format(backend.file.format, f"{place}.format")


def _check_format(form: Format, path: str) -> Iterator[Violation]:
    needed = "plain" if form.type == "Plain" else "json"
    given = [name for name, value in (("plain", form.plain), ("json", form.json_fields)) if value is not None]
    if given != [needed]:
        example = (
            'plain: "%START_TIME%"' if form.type == "Plain" else "json: [{key: start_time, value: '%START_TIME%'}]"
        )
        yield Violation(path, f"must have exactly the field {needed} with type {form.type}", example)
    texts = [(f"{path}.plain", form.plain or "")]
    texts += [(f"{path}.json[{i}].value", field.value) for i, field in enumerate(form.json_fields or ())]
    for place, text in texts:
        problem = operators.problem(text)
        if problem is not None:
            yield Violation(place, problem, "%START_TIME% %RESPONSE_CODE% %REQ(X-TEAM?X-GROUP):20%")
    seen: set[str] = set()
    for index, field in enumerate(form.json_fields or ()):
        if field.key in seen:
            yield Violation(f"{path}.json[{index}].key", f"{field.key!r} is given twice", "key: other")
        seen.add(field.key)


POLICY = Policy("MeshAccessLog", "meshaccesslogs", "mal", frozenset({"inbound", "outbound"}), Spec, validate)
