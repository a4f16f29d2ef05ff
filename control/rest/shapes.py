"""The forms of requests and responses that are not resources."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from control.model.base import Labels

TokenKind = Literal["dataplane", "node", "admin"]
RotationStage = Literal["Stable", "Distributing", "Issuing", "Retiring"]


class Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", populate_by_name=True)


class Status(BaseModel):
    status: str


class Readiness(Body):
    status: str
    left_out: list[str] = Field(description="mesh/type/name of resources that this version cannot read and leaves out")


# --- tokens and certificates of administrators ------------------------------------------------------------------------


class TokenRequest(Body):
    mesh: str = Field(default="", description="for dataplane tokens only")
    name: str = Field(default="", max_length=253)
    labels: Labels = Field(default_factory=dict)
    valid_for: str = Field(default="24h", examples=["24h"])


class Token(Body):
    token: str


class Revocation(Body):
    token: str = Field(description="the token, or the id (jti) of a token or of an administrator's certificate")
    reason: str = ""
    force: bool = Field(default=False, description="also accept an id that is not recorded here")


class Revoked(Body):
    jti: str
    what: str = Field(description="description of what was revoked")


class SigningKeys(Body):
    keys: list[str]


class SigningKey(Body):
    key: str


class CertificateRequest(Body):
    name: str = Field(description="name of the administrator", examples=["alice"])
    request: str = Field(description="a certificate request (PKCS#10) in PEM form, without names")
    valid_for: str = Field(default="24h", examples=["24h"])


class Certificate(Body):
    certificate: str
    jti: str
    not_after: str


# --- rotation ---------------------------------------------------------------------------------------------------------


class RotationRequest(Body):
    action: Literal["begin", "distributed", "replaced", "retired", "abort", "reset"]
    force: bool = Field(default=False, description="with reset: although the CA can still sign")


class RotationState(Body):
    stage: RotationStage
    waits_for: str
    issuer: str = Field(description="SHA-256 of the issuing CA")
    bundle: list[str]
    issuer_not_after: str
    problem: str | None = Field(default=None, description="why the CA cannot sign")


# --- inspection -------------------------------------------------------------------------------------------------------


class HeldCertificate(Body):
    not_after: str
    renew_at: str | None = None


class RefusedResource(Body):
    resource: str
    because: str = Field(description="as reported by the proxy")
    changed: list[str] = Field(description="what has changed since the proxy last accepted it")


class LeftOutPolicy(Body):
    type: str = Field(description="with the name: of the policy; empty: all that allow access at these resources")
    name: str
    resources: list[str] = Field(description="resources that the proxy rejects with this policy")
    because: str = Field(description="as reported by the proxy")
    since: str


class TypeState(Body):
    state: str
    sent_version: str
    acknowledged_version: str
    wanted_version: str
    refused: str | None = None
    refusals: list[RefusedResource] = Field(default_factory=list)


class Connection(Body):
    connected_seconds: int
    token_until: str | None = Field(default=None, description="after that, reconnecting requires another token")
    types: dict[str, TypeState]


class Waiting(Body):
    """A step of a change that waits: a dataplane's, or `service <name>`'s; for a dataplane, or `node <name>`."""

    who: str
    step: str
    waits_for: str
    reason: str


class Overview(Body):
    name: str
    mesh: str
    spiffe_id: str | None = Field(alias="spiffeID")
    mode: Literal["Offload", "EnvoyTLS"]
    certificate: HeldCertificate | None
    problems: list[str]
    left_out: list[LeftOutPolicy]
    waits: list[Waiting]
    # Whether it has reached the wanted state, and can be served.
    settled: bool
    connections: list[Connection]


class PoliciesOfType(Body):
    type: str
    policies: list[dict[str, Any]]


class ProxyConfiguration(Body):
    clusters: list[dict[str, Any]]
    endpoints: list[dict[str, Any]]
    listeners: list[dict[str, Any]]
    routes: list[dict[str, Any]]
    problems: list[str]


class Access(Body):
    inbound: str
    allowed: bool
    reason: str
