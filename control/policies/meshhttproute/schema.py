"""MeshHTTPRoute: where requests to a service go: matches, filters, weighted backends (canary, blue/green)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from control.model import regex
from control.model.base import Model, NonEmpty, Percentage, Port, is_rfc1123_subdomain, shown
from control.model.http import HeaderName, HeaderValue, Line, ParameterName, path_problem
from control.model.target_ref import (
    DISPLAY_NAME,
    BackendRef,
    ServiceTargetRef,
    TopLevelTargetRef,
    check_outbound,
    check_top_level,
)
from control.model.violation import Violation
from control.policies.policy import Policy

Method = Literal["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"]


class PathMatch(Model):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = Field(examples=["PathPrefix"])
    value: NonEmpty = Field(examples=["/api"])


class QueryParamsMatch(Model):
    type: Literal["Exact", "RegularExpression"] = Field(examples=["Exact"])
    name: ParameterName = Field(examples=["version"])
    value: HeaderValue = Field(examples=["v2"])


class HeaderMatch(Model):
    type: Literal["Exact", "Present", "RegularExpression", "Absent", "Prefix"] = "Exact"
    name: HeaderName
    value: HeaderValue = Field(default="", examples=["v2"])


class Match(Model):
    path: PathMatch | None = Field(default=None, examples=[{"type": "PathPrefix", "value": "/"}])
    method: Method | None = None
    query_params: list[QueryParamsMatch] | None = None
    headers: list[HeaderMatch] | None = None


class HeaderKeyValue(Model):
    name: HeaderName
    value: HeaderValue = Field(examples=["v2"])


class HeaderModifier(Model):
    set: list[HeaderKeyValue] | None = Field(default=None, max_length=16)
    add: list[HeaderKeyValue] | None = Field(default=None, max_length=16)
    remove: list[HeaderName] | None = Field(default=None, max_length=16)


class PathRewrite(Model):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"] = Field(examples=["ReplaceFullPath"])
    replace_full_path: Line | None = Field(default=None, examples=["/new"])
    replace_prefix_match: Line | None = Field(default=None, examples=["/new"])


class RequestRedirect(Model):
    scheme: Literal["http", "https"] | None = None
    hostname: NonEmpty | None = Field(default=None, examples=["www.example.com"])
    path: PathRewrite | None = None
    port: Port | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class URLRewrite(Model):
    hostname: NonEmpty | None = Field(default=None, examples=["www.example.com"])
    path: PathRewrite | None = None


class RequestMirror(Model):
    # Percentage of the requests; all of them unless set.
    percentage: Percentage | None = None
    backend_ref: BackendRef = Field(examples=[{"kind": "MeshService", "labels": {DISPLAY_NAME: "shadow"}}])


class Filter(Model):
    type: Literal[
        "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror"
    ] = Field(examples=["RequestHeaderModifier"])
    request_header_modifier: HeaderModifier | None = Field(
        default=None, examples=[{"set": [{"name": "x-a", "value": "b"}]}]
    )
    response_header_modifier: HeaderModifier | None = Field(default=None, examples=[{"remove": ["server"]}])
    request_redirect: RequestRedirect | None = Field(default=None, examples=[{"scheme": "https"}])
    url_rewrite: URLRewrite | None = Field(default=None, alias="urlRewrite", examples=[{"hostname": "www.example.com"}])
    request_mirror: RequestMirror | None = None


class RuleConf(Model):
    filters: list[Filter] | None = Field(default=None, max_length=32)
    backend_refs: list[BackendRef] | None = Field(
        default=None,
        max_length=64,
        examples=[[{"kind": "MeshService", "labels": {DISPLAY_NAME: "backend-v1"}, "weight": 90}]],
    )


class Rule(Model):
    matches: list[Match] = Field(
        min_length=1, max_length=64, examples=[[{"path": {"type": "PathPrefix", "value": "/"}}]]
    )
    default: RuleConf = Field(
        examples=[{"backendRefs": [{"kind": "MeshService", "labels": {DISPLAY_NAME: "backend-v1"}}]}]
    )


class To(Model):
    target_ref: ServiceTargetRef = Field(examples=[{"kind": "MeshService", "labels": {DISPLAY_NAME: "backend"}}])
    rules: list[Rule] = Field(min_length=1, max_length=256)


class Spec(Model):
    target_ref: TopLevelTargetRef | None = None
    to: list[To] = Field(min_length=1, max_length=256)


# The field of a Filter that each type requires.
_FIELD_OF = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "RequestMirror": "requestMirror",
}


def validate(spec: Spec) -> Iterator[Violation]:
    yield from check_top_level(spec.target_ref, configures_inbounds=False)
    for index, to in enumerate(spec.to):
        yield from check_outbound(to.target_ref, f"spec.to[{index}].targetRef")
        for number, rule in enumerate(to.rules):
            path = f"spec.to[{index}].rules[{number}]"
            for position, match in enumerate(rule.matches):
                yield from _check_match(match, f"{path}.matches[{position}]")
            yield from _check_filters(rule, f"{path}.default")
            yield from _check_backends(rule, f"{path}.default")


def _check_match(match: Match, path: str) -> Iterator[Violation]:
    if match.path is not None:
        yield from _check_path(match.path, f"{path}.path.value")
    for index, header in enumerate(match.headers or ()):
        place = f"{path}.headers[{index}].value"
        if header.type in ("Present", "Absent") and header.value:
            yield Violation(place, f"must not be set with type {header.type}", "{type: Present, name: x-version}")
        elif header.type == "Prefix" and not header.value:
            yield Violation(place, "must not be empty with type Prefix; use type Present to match any value", "v")
        elif header.type == "RegularExpression":
            yield from _check_regex(header.value, place)
    seen: set[str] = set()
    for index, parameter in enumerate(match.query_params or ()):
        if parameter.name in seen:
            yield Violation(f"{path}.queryParams[{index}].name", f"{parameter.name!r} is matched twice", "name: other")
        seen.add(parameter.name)
        if parameter.type == "RegularExpression":
            yield from _check_regex(parameter.value, f"{path}.queryParams[{index}].value")


def _check_path(match: PathMatch, path: str) -> Iterator[Violation]:
    if match.type == "RegularExpression":
        yield from _check_regex(match.value, path)
        return
    problem = path_problem(match.value)
    if problem is not None:
        example = "/" + re.sub(r"[?#\s].*", "", match.value, flags=re.DOTALL).lstrip("/")
        yield Violation(path, f"{problem}; got {shown(match.value)}", example)
    elif match.type == "PathPrefix" and match.value != "/" and match.value.endswith("/"):
        yield Violation(
            path, "must not end with '/': prefixes match whole path segments", match.value.rstrip("/") or "/"
        )


def _check_regex(pattern: str, path: str) -> Iterator[Violation]:
    problem = regex.problem(pattern)
    if problem is not None:
        yield Violation(path, f"must be a regular expression (RE2): {problem}", "/api/v[0-9]+/.*")


def _only_prefixes(matches: Sequence[Match]) -> bool:
    return all(match.path is not None and match.path.type == "PathPrefix" for match in matches)


def _check_filters(rule: Rule, path: str) -> Iterator[Violation]:
    filters = rule.default.filters or []
    types = [entry.type for entry in filters]
    for index, entry in enumerate(filters):
        place, needed = f"{path}.filters[{index}]", _FIELD_OF[entry.type]
        given = [name for name in _FIELD_OF.values() if entry.to_data().get(name) is not None]
        if given != [needed]:
            yield Violation(
                place,
                f"must have exactly the field {needed} with type {entry.type}",
                f"{{type: {entry.type}, {needed}: ...}}",
            )
            continue
        yield from _check_filter(entry, place, _only_prefixes(rule.matches))
    if "RequestRedirect" in types and (rule.default.backend_refs or "URLRewrite" in types):
        yield Violation(f"{path}.filters", "RequestRedirect excludes backendRefs and URLRewrite", "")
    for once in ("RequestRedirect", "URLRewrite"):
        if types.count(once) > 1:
            yield Violation(f"{path}.filters", f"{once} can be given only once", "")


def _check_filter(entry: Filter, path: str, only_prefixes: bool) -> Iterator[Violation]:
    if entry.request_header_modifier is not None:
        yield from _check_headers(entry.request_header_modifier, f"{path}.requestHeaderModifier")
    if entry.response_header_modifier is not None:
        yield from _check_headers(entry.response_header_modifier, f"{path}.responseHeaderModifier")
    for name, changed in (("requestRedirect", entry.request_redirect), ("urlRewrite", entry.url_rewrite)):
        if changed is None:
            continue
        if changed.hostname is not None and (
            not is_rfc1123_subdomain(changed.hostname) or re.fullmatch(r"[0-9.]+", changed.hostname)
        ):
            yield Violation(
                f"{path}.{name}.hostname",
                f"must be a lower-case host name, not an IP address; got {changed.hostname!r}",
                "www.example.com",
            )
        if changed.path is not None:
            yield from _check_rewrite(changed.path, f"{path}.{name}.path", only_prefixes)


def _check_rewrite(rewrite: PathRewrite, path: str, only_prefixes: bool) -> Iterator[Violation]:
    fields = {"ReplaceFullPath": rewrite.replace_full_path, "ReplacePrefixMatch": rewrite.replace_prefix_match}
    needed = rewrite.type[0].lower() + rewrite.type[1:]
    value = fields.pop(rewrite.type)
    if value is None or any(fields.values()):
        yield Violation(
            path,
            f"must have exactly the field {needed} with type {rewrite.type}",
            f"{{type: {rewrite.type}, {needed}: /new}}",
        )
    elif not value.startswith("/"):
        yield Violation(f"{path}.{needed}", f"must be an absolute path; got {shown(value)}", "/new")
    elif rewrite.type == "ReplacePrefixMatch" and not only_prefixes:
        yield Violation(
            f"{path}.{needed}",
            "can only be used where every match has a path of type PathPrefix",
            "path: {type: PathPrefix, value: /old}",
        )


def _check_headers(modifier: HeaderModifier, path: str) -> Iterator[Violation]:
    if not (modifier.set or modifier.add or modifier.remove):
        yield Violation(path, "must have at least one of set, add, remove", "set: [{name: x-version, value: v2}]")
    seen: set[str] = set()
    named = [(f"{path}.set[{i}].name", h.name) for i, h in enumerate(modifier.set or ())]
    named += [(f"{path}.add[{i}].name", h.name) for i, h in enumerate(modifier.add or ())]
    named += [(f"{path}.remove[{i}]", name) for i, name in enumerate(modifier.remove or ())]
    for place, name in named:
        if name in seen:
            yield Violation(place, f"{name!r} is given twice; each header takes one action", "x-other")
        if name == "host" or name.startswith(":"):
            yield Violation(
                place,
                f"{name!r} cannot be changed here; use URLRewrite",
                "{type: URLRewrite, urlRewrite: {hostname: a.example}}",
            )
        seen.add(name)


def _check_backends(rule: Rule, path: str) -> Iterator[Violation]:
    references = rule.default.backend_refs
    if references is not None and sum(reference.weight for reference in references) == 0:
        yield Violation(f"{path}.backendRefs", "must have a weight above 0 in at least one entry", "weight: 1")


POLICY = Policy("MeshHTTPRoute", "meshhttproutes", "mhttpr", frozenset({"outbound"}), Spec, validate)
