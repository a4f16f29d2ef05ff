"""What the control plane's configuration means for this daemon: a pure function of the message and of the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from offload.certificates import CertificateError, read_authorities
from offload.config import MESH_ISSUER, Config, Identity, wanted_sockets
from offload.identities import TrustBundle
from offload.v1 import node_pb2

FROM_MESH = "the control plane"


@dataclass(frozen=True)
class MeshIdentity:
    """One identity as the rest of the daemon knows identities, and what the control plane adds."""

    settings: Identity
    mesh: str
    issuer: bytes  # SHA-256 of the certificate of the CA that signs now
    bundles: tuple[TrustBundle, ...]


@dataclass(frozen=True)
class MeshConfiguration:
    version: str = ""
    identities: Mapping[str, MeshIdentity] = field(default_factory=dict)
    # What could not be done, in words; a version with problems does not count as taken.
    problems: tuple[str, ...] = ()


def read_configuration(message: node_pb2.Configuration, config: Config, has_vector_kernels: bool) -> MeshConfiguration:
    """Never raises for anything in the message: what is wrong with one identity is said, and the others are taken."""
    problems: list[str] = []
    bundles = _bundles(message, problems)
    identities: dict[str, MeshIdentity] = {}
    for wanted in message.identities:
        name = wanted.spiffe_id
        reason = _unfit(wanted, config, has_vector_kernels)
        if reason is not None:
            problems.append(f"{name[:256]}: {reason}")
            continue
        try:
            settings = _settings(wanted)
        except ValidationError as error:
            problems.append(f"{name[:256]}: {error.errors()[0]['msg']}")
            continue
        identities[name] = MeshIdentity(settings, wanted.mesh, wanted.issuer, bundles)
    return MeshConfiguration(message.version, identities, tuple(problems))


def _bundles(message: node_pb2.Configuration, problems: list[str]) -> tuple[TrustBundle, ...]:
    bundles = []
    for domain in message.trusted_domains:
        try:
            authorities = read_authorities(tuple(domain.authorities))
        except CertificateError as error:
            problems.append(f"trust domain {domain.trust_domain[:256]}: {error}")
            continue
        bundles.append(TrustBundle(domain.trust_domain, authorities, FROM_MESH))
    return tuple(bundles)


def _unfit(wanted: node_pb2.MeshIdentity, config: Config, has_vector_kernels: bool) -> str | None:
    """Why this daemon cannot serve the identity as it is wanted."""
    if wanted.spiffe_id in config.identities:
        return "the daemon's own configuration has an identity of that name"
    sockets = [str(socket.path) for socket in wanted_sockets(config.sockets)]
    if wanted.socket and wanted.socket not in sockets:
        return f"its socket {wanted.socket[:108]} is none of this daemon's ({', '.join(sockets)})"
    if wanted.software == node_pb2.MeshIdentity.FORBID and not has_vector_kernels:
        return "software is forbidden, and this host has no vector kernels in use"
    if wanted.software == node_pb2.MeshIdentity.REQUIRE and has_vector_kernels:
        return "software is required; set data_plane.backend: software on this node"
    return None


def _settings(wanted: node_pb2.MeshIdentity) -> Identity:
    """As if it stood in the configuration file, and as strictly. ValidationError."""
    selectors = []
    for selector in wanted.selectors:
        fields = {name: getattr(selector, name) for name in ("uid", "gid") if selector.HasField(name)}
        selectors.append(fields)
    return Identity.model_validate(
        {
            "source": {"generate": {"issuer": MESH_ISSUER, "key_type": wanted.key_type}},
            "selectors": selectors,
            "usage": wanted.usage,
        }
    )
