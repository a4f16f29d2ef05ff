"""MeshTLS: whether inbounds accept plaintext besides mutual TLS, and which versions and ciphers the mesh speaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from control.model.base import Model
from control.model.target_ref import TopLevelTargetRef, check_top_level
from control.model.unreadable import without_unknown
from control.model.violation import Violation
from control.policies.policy import Policy

# Kuma's 1.0 and 1.1 are left out: RFC 8996 forbids them, and the module does not support them.
Version = Literal["TLSAuto", "TLS12", "TLS13"]
Cipher = Literal[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
]


class TlsVersion(Model):
    min: Version | None = Field(default=None, examples=["TLS13"])
    max: Version | None = Field(default=None, examples=["TLS13"])


class Conf(Model):
    # Strict unless a policy says otherwise: a proxy with an identity accepts no plaintext.
    mode: Literal["Strict", "Permissive"] | None = None
    # TLS 1.3 only, unless a policy says otherwise: then a key of usage tls13 suffices.
    tls_version: TlsVersion | None = None
    # For TLS 1.2; the ciphers of TLS 1.3 are not configurable.
    tls_ciphers: list[Cipher] | None = None
    # Ours. Disabled: the inbound issues no session tickets, so each connection is a full handshake, two signatures.
    # Enabled unless a policy says otherwise: a resumed session costs neither end a signature.
    session_resumption: Literal["Enabled", "Disabled"] | None = None


class Rule(Model):
    default: Conf = Field(examples=[{"mode": "Strict"}])


class Spec(Model):
    target_ref: TopLevelTargetRef | None = None
    rules: list[Rule] = Field(min_length=1, examples=[[{"default": {"mode": "Strict"}}]])


def validate(spec: Spec) -> Iterator[Violation]:
    yield from check_top_level(spec.target_ref, configures_inbounds=True)
    whole_mesh = spec.target_ref is None or spec.target_ref.kind == "Mesh"
    for index, rule in enumerate(spec.rules):
        conf, path = rule.default, f"spec.rules[{index}].default"
        for name, value in (("tlsVersion", conf.tls_version), ("tlsCiphers", conf.tls_ciphers)):
            if value is not None and not whole_mesh:
                yield Violation(
                    f"{path}.{name}",
                    "can only be set with targetRef kind Mesh: both ends must agree",
                    "targetRef: {kind: Mesh}",
                )
        version = conf.tls_version
        if version is not None and version.min == "TLS13" and version.max == "TLS12":
            yield Violation(f"{path}.tlsVersion.min", "must not be higher than max", "min: TLS12")


def keep(spec: Mapping[str, Any]) -> Spec:
    """What stays in force if this version cannot read it: all known fields; if they do not suffice, no plaintext."""
    known = without_unknown(Spec, spec, needed=("targetRef",))
    if known is not None and len(known.rules) == len(spec["rules"]):
        return known
    try:
        target = TopLevelTargetRef.model_validate(spec["targetRef"]) if spec.get("targetRef") is not None else None
    except ValidationError:
        target = None
    return Spec.model_validate({"targetRef": target, "rules": [Rule(default=Conf(mode="Strict"))]})


POLICY = Policy("MeshTLS", "meshtlses", "mtls", frozenset({"inbound"}), Spec, validate, keep)
