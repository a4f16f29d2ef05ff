"""What the control plane's configuration means for this daemon: a pure function of the message and of the daemon."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from offload.config.identities import SPIFFE_SCHEME, Identity
from offload.config.issuers import MESH_ISSUER
from offload.config.settings import Config
from offload.identities.certificates import CertificateError, read_authorities
from offload.identities.in_force import TrustBundle
from offload.v1 import node_pb2

FROM_MESH = "the control plane"
SPIFFE_ID_MAX = 2048  # bytes: X.509-SVID, section 2
USAGES = ("tls13", "tls12+13")  # not `any`: nothing in a mesh needs signatures of digests


@dataclass(frozen=True)
class MeshIdentity:
    """One identity in the form used by the rest of the daemon, and what the control plane adds."""

    settings: Identity
    mesh: str
    issuer: bytes  # SHA-256 of the issuing CA's certificate
    bundles: tuple[TrustBundle, ...]


@dataclass(frozen=True)
class Bound:
    """`set_by`: the source, in words."""

    value: int
    set_by: str

    def within(self, other: Bound | None) -> Bound:
        return other if other is not None and other.value < self.value else self


@dataclass(frozen=True)
class Limits:
    """Limits for the data plane; None means its own."""

    max_wait_us: Bound | None = None
    queue_limit: Bound | None = None

    def within(self, max_wait_us: int, queue_limit: int) -> tuple[Bound, Bound]:
        """Both limits, never above the daemon's own."""
        wait, queue = Bound(max_wait_us, "data_plane.max_wait_us"), Bound(queue_limit, "data_plane.queue_limit")
        return wait.within(self.max_wait_us), queue.within(self.queue_limit)


@dataclass(frozen=True)
class MeshConfiguration:
    version: str = ""
    identities: Mapping[str, MeshIdentity] = field(default_factory=dict)
    limits: Limits = Limits()
    # What could not be applied, in words; a version with problems does not count as applied.
    problems: tuple[str, ...] = ()


def read_configuration(message: node_pb2.Configuration, config: Config, has_vector_kernels: bool) -> MeshConfiguration:
    """Never raises for anything in the message: a problem with one identity is reported, and the others are applied."""
    problems: list[str] = []
    bundles = _bundles(message, problems)
    identities: dict[str, MeshIdentity] = {}
    taken: list[node_pb2.MeshIdentity] = []
    for wanted in message.identities:
        name = wanted.spiffe_id
        reason = _unfit(wanted, config, has_vector_kernels)
        if name in identities:
            reason = "two meshes of this node define it; one of them needs another trust domain"
        if reason is not None:
            problems.append(f"{name[:256]}: {reason}")
            continue
        try:
            settings = _settings(wanted, config)
        except ValidationError as error:
            problems.append(f"{name[:256]}: {error.errors()[0]['msg']}")
            continue
        identities[name] = MeshIdentity(settings, wanted.mesh, wanted.issuer, bundles.get(wanted.mesh, ()))
        taken.append(wanted)
    return MeshConfiguration(message.version, identities, _limits(taken), tuple(problems))


def _limits(identities: Collection[node_pb2.MeshIdentity]) -> Limits:
    """Batches and the queue are shared by all identities of the node: the strictest of their bounds applies."""
    waits = [Bound(one.max_wait_us, _policy_of(one)) for one in identities if one.HasField("max_wait_us")]
    queues = [Bound(one.max_queue, _policy_of(one)) for one in identities if one.max_queue > 0]
    return Limits(min(waits, key=_strictness, default=None), min(queues, key=_strictness, default=None))


def _strictness(bound: Bound) -> int:
    return bound.value


def _policy_of(identity: node_pb2.MeshIdentity) -> str:
    return f"MeshOffload, for {identity.spiffe_id}"


def _bundles(message: node_pb2.Configuration, problems: list[str]) -> dict[str, tuple[TrustBundle, ...]]:
    """Bundles by mesh: the meshes of a node do not trust each other's CAs."""
    bundles: dict[str, tuple[TrustBundle, ...]] = {}
    for domain in message.trusted_domains:
        try:
            authorities = read_authorities(tuple(domain.authorities))
        except CertificateError as error:
            problems.append(f"trust domain {domain.trust_domain[:256]}: {error}")
            continue
        bundle = TrustBundle(domain.trust_domain, authorities, FROM_MESH)
        bundles[domain.mesh] = (*bundles.get(domain.mesh, ()), bundle)
    return bundles


def _unfit(wanted: node_pb2.MeshIdentity, config: Config, has_vector_kernels: bool) -> str | None:
    """Why this daemon cannot serve the identity as requested."""
    name = wanted.spiffe_id
    if not name.startswith(SPIFFE_SCHEME) or not name.isascii() or not name.isprintable() or len(name) > SPIFFE_ID_MAX:
        return "its name is not a SPIFFE id"
    if wanted.usage not in USAGES:
        return f"the usage must be {' or '.join(USAGES)}, not {wanted.usage[:20]!r}"
    if name in config.identities:
        return "the daemon's own configuration already has an identity of that name"
    sockets = [str(socket.path) for socket in config.sockets.by_name().values()]
    if wanted.socket and wanted.socket not in sockets:
        return f"its socket {wanted.socket[:108]} is not one of this daemon's ({', '.join(sockets)})"
    if wanted.software == node_pb2.MeshIdentity.FORBID and not has_vector_kernels:
        return "software is forbidden, and this host has no vector kernels in use"
    if wanted.software == node_pb2.MeshIdentity.REQUIRE and has_vector_kernels:
        return "software is required; set data_plane.backend: software on this node"
    return None


def _settings(wanted: node_pb2.MeshIdentity, config: Config) -> Identity:
    """Validated as strictly as in the configuration file. ValidationError.

    A dedicated socket belongs to one workload: callers of its identity must come through it.
    """
    names = {str(socket.path): socket.name for socket in config.sockets.dedicated}
    dedicated = list(dict.fromkeys(names.get(path) for path in (wanted.socket, *wanted.former_sockets)))
    selectors: list[dict[str, object]] = []
    for selector in wanted.selectors:
        fields = {name: getattr(selector, name) for name in ("uid", "gid") if selector.HasField(name)}
        # Any socket will do if one of them is shared.
        named = dedicated if fields and None not in dedicated else [None]
        selectors += [fields | {"socket": name} if name else fields for name in named]
    return Identity.model_validate(
        {
            "source": {"generate": {"issuer": MESH_ISSUER, "key_type": wanted.key_type}},
            "selectors": selectors,
            "usage": wanted.usage,
        }
    )
