"""MeshIdentity: which dataplanes get which SPIFFE id, from which CA. MeshTrust: which CAs speak for a trust domain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal

from cryptography import x509
from pydantic import Field

from control.model.base import Duration, Model, NonEmpty
from control.model.target_ref import WORKLOAD, ZONE, LabelSelector, spiffe_id_problem, trust_domain_problem
from control.model.unreadable import without_unknown
from control.model.violation import Violation

DEFAULT_TRUST_DOMAIN = "{{ .Mesh }}.{{ .Zone }}.mesh.local"
DEFAULT_PATH = "/workload/{{ .Workload }}"
# Long enough to survive half a day's outage of the control plane, since renewal begins at half of it.
DEFAULT_EXPIRY = timedelta(hours=24)
SHORTEST_EXPIRY = timedelta(minutes=1)

_PLACEHOLDER = re.compile(r"\{\{\s*(?:\.([A-Za-z]+)|label\s+\"([^\"]+)\")\s*\}\}")


class Selector(Model):
    dataplane: LabelSelector = Field(examples=[{"matchLabels": {}}])


class SpiffeID(Model):
    trust_domain: NonEmpty | None = Field(default=None, examples=["{{ .Mesh }}.{{ .Zone }}.mesh.local"])
    path: NonEmpty | None = Field(default=None, examples=['/ns/shop/sa/{{ label "app" }}'])


class Autogenerate(Model):
    enabled: bool = Field(examples=[True])


class File(Model):
    path: NonEmpty = Field(examples=["/etc/mesh/ca.pem"])


class DataSource(Model):
    """Where the control plane reads a PEM file from; keys are never written into a resource."""

    type: Literal["File"] = Field(examples=["File"])
    file: File


class CertificateAuthorityFiles(Model):
    certificate: DataSource = Field(examples=[{"type": "File", "file": {"path": "/etc/mesh/ca.pem"}}])
    private_key: DataSource = Field(examples=[{"type": "File", "file": {"path": "/etc/mesh/ca.key"}}])


class CertificateParameters(Model):
    expiry: Duration | None = Field(default=None, examples=["24h"])


class Bundled(Model):
    # Whether a MeshTrust is created from the CA of this identity.
    mesh_trust_creation: Literal["Enabled", "Disabled"] = "Enabled"
    autogenerate: Autogenerate | None = None
    ca: CertificateAuthorityFiles | None = None
    certificate_parameters: CertificateParameters | None = None


class Provider(Model):
    type: Literal["Bundled"] = Field(examples=["Bundled"])
    bundled: Bundled = Field(examples=[{"autogenerate": {"enabled": True}}])

    @property
    def expiry(self) -> timedelta:
        parameters = self.bundled.certificate_parameters
        return (parameters.expiry if parameters else None) or DEFAULT_EXPIRY


class MeshIdentitySpec(Model):
    selector: Selector = Field(examples=[{"dataplane": {"matchLabels": {}}}])
    spiffe_id: SpiffeID | None = Field(default=None, alias="spiffeID")
    provider: Provider = Field(examples=[{"type": "Bundled", "bundled": {"autogenerate": {"enabled": True}}}])

    def trust_domain(self, mesh: str, zone: str) -> str:
        template = (self.spiffe_id.trust_domain if self.spiffe_id else None) or DEFAULT_TRUST_DOMAIN
        return _render(template, {"Mesh": mesh, "Zone": zone}, {})

    def spiffe_id_of(self, mesh: str, zone: str, labels: Mapping[str, str]) -> str:
        """The SPIFFE id of a dataplane with these labels; KeyError names a label that it lacks.

        `zone` is the identity's (zone_of). The dataplane's own zone label says where it runs, for load balancing: the
        CA is the same there, and it speaks for one trust domain.
        """
        domain = self.trust_domain(mesh, zone)
        template = (self.spiffe_id.path if self.spiffe_id else None) or DEFAULT_PATH
        values = {"TrustDomain": domain}
        if WORKLOAD in labels:
            values["Workload"] = labels[WORKLOAD]
        return f"spiffe://{domain}{_render(template, values, labels)}"


def _render(template: str, values: Mapping[str, str], labels: Mapping[str, str]) -> str:
    def replace(found: re.Match[str]) -> str:
        field, label = found.groups()
        if field == "Workload" and field not in values:
            raise KeyError(WORKLOAD)
        return values[field] if field else labels[label]

    return _PLACEHOLDER.sub(replace, template)


def zone_of(labels: Mapping[str, str], zone: str) -> str:
    """The zone in the trust domain of a MeshIdentity with these labels: its own, else the control plane's."""
    return labels.get(ZONE, zone)


def best_matched(
    identities: Iterable[tuple[str, MeshIdentitySpec]], labels: Mapping[str, str]
) -> tuple[str, MeshIdentitySpec] | None:
    """The (name, spec) that governs a dataplane: most matched labels first, then the smaller name, as in Kuma."""
    matching = [(name, spec) for name, spec in identities if spec.selector.dataplane.matches(labels)]
    return min(matching, key=lambda item: (-len(item[1].selector.dataplane.match_labels), item[0]), default=None)


class Pem(Model):
    value: NonEmpty = Field(examples=["-----BEGIN CERTIFICATE-----\n..."])


class CaBundle(Model):
    type: Literal["Pem"] = Field(examples=["Pem"])
    pem: Pem


class MeshTrustSpec(Model):
    trust_domain: NonEmpty = Field(examples=["default.default.mesh.local"])
    ca_bundles: list[CaBundle] = Field(
        min_length=1, max_length=64, examples=[[{"type": "Pem", "pem": {"value": "-----BEGIN CERTIFICATE-----\n..."}}]]
    )


def validate_identity(spec: MeshIdentitySpec) -> Iterator[Violation]:
    template = spec.spiffe_id or SpiffeID()
    yield from _check_template("spec.spiffeID.trustDomain", template.trust_domain, {"Mesh", "Zone"}, labels=False)
    yield from _check_template("spec.spiffeID.path", template.path, {"TrustDomain", "Workload"}, labels=True)
    bundled = spec.provider.bundled
    generated = bundled.autogenerate is not None and bundled.autogenerate.enabled
    if generated == (bundled.ca is not None):
        yield Violation(
            "spec.provider.bundled",
            "must have either autogenerate.enabled: true, or ca with certificate and privateKey",
            "bundled: {autogenerate: {enabled: true}}",
        )
    parameters = bundled.certificate_parameters
    if parameters and parameters.expiry is not None and parameters.expiry < SHORTEST_EXPIRY:
        yield Violation(
            "spec.provider.bundled.certificateParameters.expiry",
            "must be at least 1m: certificates are renewed at half of this time",
            "24h",
        )


def keep_identity(spec: Mapping[str, Any]) -> MeshIdentitySpec | None:
    """What stays in force if this version cannot read it; whom it selects and which ids it gives must be known fully.

    Without identities a mesh would accept plaintext from everybody.
    """
    return without_unknown(MeshIdentitySpec, spec, needed=("selector", "spiffeID"))


def _check_template(path: str, template: str | None, fields: set[str], labels: bool) -> Iterator[Violation]:
    if template is None:
        return
    allowed = ", ".join([f"{{{{ .{name} }}}}" for name in sorted(fields)] + (['{{ label "name" }}'] if labels else []))
    for field, label in _PLACEHOLDER.findall(template):
        if (field and field not in fields) or (label and not labels):
            name = f".{field}" if field else f'label "{label}"'
            yield Violation(path, f"{name} is not a known variable (allowed: {allowed})", _template_example(labels))
            return
    literal = _PLACEHOLDER.sub("x", template)
    if "{{" in literal or "}}" in literal:
        yield Violation(path, f"has a placeholder that cannot be read (allowed: {allowed})", _template_example(labels))
    elif labels:
        problem = spiffe_id_problem(f"spiffe://x{literal}") if literal.startswith("/") else "must begin with '/'"
        if problem is not None:
            yield Violation(path, f"must give the path of a SPIFFE ID: {problem}", _template_example(labels))
    elif (problem := trust_domain_problem(literal)) is not None:
        yield Violation(path, f"must give a trust domain: {problem}", _template_example(labels))


def _template_example(path: bool) -> str:
    return DEFAULT_PATH if path else DEFAULT_TRUST_DOMAIN


def validate_trust(spec: MeshTrustSpec) -> Iterator[Violation]:
    problem = trust_domain_problem(spec.trust_domain)
    if problem is not None:
        yield Violation("spec.trustDomain", f"{problem}; got {spec.trust_domain!r}", "default.default.mesh.local")
    for index, bundle in enumerate(spec.ca_bundles):
        problem = _bundle_problem(bundle.pem.value)
        if problem is not None:
            yield Violation(f"spec.caBundles[{index}].pem.value", problem, "-----BEGIN CERTIFICATE-----")


def _bundle_problem(pem: str) -> str | None:
    if "PRIVATE KEY" in pem:
        return "contains a private key: a trust bundle has certificates only; replace this key, as it is exposed"
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, x509.InvalidVersion):
        return "must contain certificates in PEM form"
    for number, certificate in enumerate(certificates, start=1):
        try:
            is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
            is_authority = False
        if not is_authority:
            return f"certificate {number} is not a CA certificate (basic constraints: CA)"
    return None
