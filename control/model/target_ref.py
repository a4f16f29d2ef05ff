"""References between resources: what a policy applies to (targetRef), where requests go (backendRef), who calls.

As in Kuma 3.0, real resources are selected by `labels` only; the label kuma.io/display-name carries a resource's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from control.model.base import Labels, Model, NonEmpty, Port
from control.model.violation import Violation

DISPLAY_NAME = "kuma.io/display-name"
ZONE = "kuma.io/zone"
WORKLOAD = "kuma.io/workload"


class LabelSelector(Model):
    match_labels: Labels = Field(default_factory=dict)

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items())


class TopLevelTargetRef(Model):
    """Which proxies a policy configures. No targetRef at all means the whole mesh."""

    kind: Literal["Mesh", "Dataplane"] = Field(examples=["Dataplane"])
    labels: Labels | None = None
    # An inbound of the dataplane, by name or port number; only for policies that configure inbounds.
    section_name: NonEmpty | None = None


class OutboundTargetRef(Model):
    """Which destinations a `to` entry configures."""

    kind: Literal["Mesh", "MeshService"] = Field(examples=["MeshService"])
    labels: Labels | None = Field(default=None, examples=[{DISPLAY_NAME: "backend"}])
    # A port of the MeshService, by name or number.
    section_name: NonEmpty | None = None


class ServiceTargetRef(OutboundTargetRef):
    """A `to` entry that needs one service, as routes do."""

    kind: Literal["MeshService"] = Field(examples=["MeshService"])


class BackendRef(Model):
    """Where a route sends requests."""

    kind: Literal["MeshService"] = Field(examples=["MeshService"])
    labels: Labels = Field(min_length=1, examples=[{DISPLAY_NAME: "backend-v1"}])
    section_name: NonEmpty | None = None
    port: Port | None = None
    # The share of requests, relative to the sum over all backends of the rule.
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1

    @property
    def section(self) -> str | None:
        return self.section_name or (str(self.port) if self.port else None)


class BackendResourceRef(Model):
    kind: Literal["MeshOpenTelemetryBackend"] = "MeshOpenTelemetryBackend"
    labels: Labels = Field(min_length=1, examples=[{DISPLAY_NAME: "collector"}])


class SpiffeIDMatch(Model):
    type: Literal["Exact", "Prefix"] = Field(examples=["Exact"])
    value: NonEmpty = Field(examples=["spiffe://default.default.mesh.local/workload/cart"])


# A prefix that every SPIFFE id has; reserved, since users cannot write it (check_match).
EVERYONE = "spiffe:"


class Match(Model):
    """A client, by its verified SPIFFE id."""

    spiffe_id: SpiffeIDMatch = Field(alias="spiffeID")


def check_top_level(ref: TopLevelTargetRef | None, configures_inbounds: bool) -> Iterator[Violation]:
    if ref is None:
        return
    if ref.kind == "Mesh":
        for name, value in (("labels", ref.labels), ("sectionName", ref.section_name)):
            if value:
                yield Violation(
                    f"spec.targetRef.{name}",
                    "must not be set with kind Mesh; kind Dataplane selects a part of the mesh",
                    "targetRef: {kind: Dataplane, labels: {app: cart}}",
                )
    elif ref.section_name and not configures_inbounds:
        yield Violation(
            "spec.targetRef.sectionName",
            "can only be used in policies that configure inbounds (rules); this one configures outbounds",
            "targetRef: {kind: Dataplane, labels: {app: cart}}",
        )


def check_outbound(ref: OutboundTargetRef, path: str) -> Iterator[Violation]:
    if ref.kind == "Mesh":
        for name, value in (("labels", ref.labels), ("sectionName", ref.section_name)):
            if value:
                yield Violation(f"{path}.{name}", "must not be set with kind Mesh", "targetRef: {kind: Mesh}")
    elif not ref.labels:
        yield Violation(
            f"{path}.labels",
            "must be set with kind MeshService: services are selected by labels",
            f"labels: {{{DISPLAY_NAME}: backend}}",
        )


_PATH_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
_DOMAIN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")


def trust_domain_problem(domain: str) -> str | None:
    """Why `domain` is not a SPIFFE trust domain name (SPIFFE-ID, section 2.1), or None if it is."""
    if not 1 <= len(domain) <= 255:
        return "a trust domain must have 1 to 255 characters"
    wrong = sorted(set(domain) - _DOMAIN_CHARACTERS)
    if wrong:
        return f"a trust domain must have only lower-case letters, digits, '-', '.', '_'; got {wrong[0]!r}"
    return None


def spiffe_id_problem(spiffe_id: str) -> str | None:
    """Why `spiffe_id` is not a SPIFFE ID (SPIFFE-ID, section 2), or None if it is."""
    if not spiffe_id.startswith("spiffe://"):
        return "must begin with spiffe://"
    if len(spiffe_id.encode()) > 2048:
        return "must have at most 2048 bytes"
    domain, slash, path = spiffe_id.removeprefix("spiffe://").partition("/")
    problem = trust_domain_problem(domain)
    if problem is not None or not slash:
        return problem
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            return "path segments must not be empty, '.' or '..'"
        if set(segment) - _PATH_CHARACTERS:
            return "path segments have only letters, digits, '-', '.', '_'"
    return None


def check_match(match: Match, path: str) -> Iterator[Violation]:
    value = match.spiffe_id.value
    # A prefix may end with a slash, where the next segment begins.
    checked = value.removesuffix("/") if match.spiffe_id.type == "Prefix" else value
    problem = spiffe_id_problem(checked)
    if problem is not None:
        yield Violation(
            f"{path}.spiffeID.value",
            f"must be a SPIFFE ID: {problem}; got {value!r}",
            "spiffe://default.default.mesh.local/workload/cart",
        )
