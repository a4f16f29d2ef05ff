"""The CAs of a mesh in the store, the MeshTrusts made of them, and certificates for those who may have them.

Everything is kept, sealed: after a restart the same CA signs, and proxies on Envoy's own TLS keep their certificates.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from control.ca.authority import Authority, UnusableAuthority, from_pem, generate
from control.ca.issue import RefusedRequest, Svid, issue, key_of_request
from control.ca.rotation import Event, Rotation, Stage, WrongStage
from control.kinds import KINDS
from control.model.mesh_identity import DEFAULT_EXPIRY, MeshIdentitySpec
from control.model.resource import Resource, parse
from control.policies.meshoffload.schema import KeyType
from control.store.errors import Conflict
from control.store.store import Store
from control.xds.admin import control_plane_id
from control.xds.proxy import Credential
from control.xds.view import Identity

MANAGED_BY = {"kuma.io/managed-by": "mesh-identity"}
# Of the half life: so much earlier or later do renewals begin, so that those who started together do not stay together.
RENEWAL_JITTER = 0.1
ISSUER_FRESH_S = 2.0
# Of the certificate with which the control plane calls a proxy; it is made for each call.
OWN_LIFETIME = timedelta(minutes=5)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Held:
    """A certificate that the control plane keeps for a proxy on Envoy's own TLS."""

    credential: Credential
    spiffe_id: str
    authority: str
    key_type: KeyType
    not_after: datetime
    renew_at: datetime


class Identities:
    def __init__(self, store: Store, zone: str, clock: Callable[[], datetime] = _now) -> None:
        self._store, self._zone, self._now = store, zone, clock
        self._held: dict[tuple[str, str], Held] = {}
        # Of whom the store is known to have none; asked for each build of a proxy in mode Offload.
        self._without: set[tuple[str, str]] = set()
        # One proxy's certificate must not be made twice at once, by two builds of its configuration.
        self._making = threading.Lock()
        self._signed_by: dict[tuple[str, str, str], str] = {}
        self._issuers: dict[tuple[str, str], tuple[float, Rotation, timedelta]] = {}

    # --- authorities --------------------------------------------------------------------------------------------------

    @staticmethod
    def _ca_name(mesh: str, identity: str) -> str:
        return f"mesh/{mesh}/ca/{identity}"

    def rotation(self, mesh: str, identity: Resource) -> Rotation:
        """The CAs of a MeshIdentity; made where it has none yet. Raises UnusableAuthority."""
        spec: MeshIdentitySpec = identity.spec
        name = self._ca_name(mesh, identity.name)
        kept = self._store.secret(name)
        if kept is None:
            fresh = Rotation(Stage.STABLE, self._new_authority(mesh, spec))
            try:
                self._store.put_secret(name, fresh.to_json().encode(), only_new=True)
            except Conflict:
                kept = self._store.secret(name)  # another replica was faster
            else:
                return fresh
        return Rotation.from_json((kept or b"").decode(), self._now())

    def _new_authority(self, mesh: str, spec: MeshIdentitySpec) -> Authority:
        files = spec.provider.bundled.ca
        if files is None:
            return generate(spec.trust_domain(mesh, self._zone), self._now())
        certificate, key = files.certificate.file.path, files.private_key.file.path
        try:
            pem, key_pem = Path(certificate).read_text(), Path(key).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableAuthority(f"the CA files of the MeshIdentity cannot be read: {error}") from error
        return from_pem(pem, key_pem, f"{certificate} and {key}", self._now())

    def begin_rotation(self, mesh: str, identity: Resource) -> Rotation:
        """A new CA: generated, or read again from the files. Raises WrongStage, UnusableAuthority."""
        new = self._new_authority(mesh, identity.spec)
        if new.fingerprint == self.rotation(mesh, identity).current.fingerprint:
            raise WrongStage("the files still have the CA that is in force: put the new one there first")
        return self.step(mesh, identity, Event.BEGIN, new)

    def step(self, mesh: str, identity: Resource, event: Event, new: Authority | None = None) -> Rotation:
        """Raises WrongStage, Conflict."""
        before = self.rotation(mesh, identity)
        after = before.step(event, new)
        name = self._ca_name(mesh, identity.name)
        kept = self._store.secret(name)
        self._store.put_secret(name, after.to_json().encode(), expected=kept)
        self._issuers.pop((mesh, identity.name), None)
        self.publish_trust(mesh, identity)
        return after

    def publish_trust(self, mesh: str, identity: Resource) -> Resource | None:
        """The MeshTrust of a MeshIdentity, made or brought up to date; None where the MeshIdentity wants none."""
        spec: MeshIdentitySpec = identity.spec
        if spec.provider.bundled.mesh_trust_creation == "Disabled":
            return None
        # In the order of their making: a swap of the two in the middle of a rotation is no change of the bundle.
        authorities = sorted(
            self.rotation(mesh, identity).bundle, key=lambda a: (a.certificate.not_valid_before_utc, a.fingerprint)
        )
        bundles = [{"type": "Pem", "pem": {"value": authority.certificate_pem}} for authority in authorities]
        document = {
            "type": "MeshTrust",
            "name": identity.name,
            "mesh": mesh,
            "labels": MANAGED_BY,
            "spec": {"trustDomain": spec.trust_domain(mesh, self._zone), "caBundles": bundles},
        }
        return self._store.put(parse(document, KINDS))

    # --- certificates -------------------------------------------------------------------------------------------------

    def _issuing(self, mesh: str, mesh_identity: str) -> tuple[Rotation, timedelta]:
        """Read anew every moment or so: another replica may have rotated."""
        key, now = (mesh, mesh_identity), time.monotonic()
        kept = self._issuers.get(key)
        if kept is None or now - kept[0] > ISSUER_FRESH_S:
            resource = self._store.get("MeshIdentity", mesh, mesh_identity)
            spec: MeshIdentitySpec = resource.spec
            kept = self._issuers[key] = (now, self.rotation(mesh, resource), spec.provider.expiry or DEFAULT_EXPIRY)
        return kept[1], kept[2]

    def issuer(self, mesh: str, mesh_identity: str) -> Authority:
        """The CA that signs now. Raises NotFound, UnusableAuthority."""
        return self._issuing(mesh, mesh_identity)[0].issuer

    def sign(self, mesh: str, identity: Identity, request_der: bytes, node: str = "") -> Svid:
        """For a node: the key stays there. Raises RefusedRequest, NotFound, UnusableAuthority."""
        _check_not_ours(identity)
        key = key_of_request(request_der, identity.spiffe_id)
        rotation, expiry = self._issuing(mesh, identity.mesh_identity)
        svid = issue(rotation.issuer, key, identity.spiffe_id, expiry, self._now())
        self._signed_by[mesh, identity.spiffe_id, node] = rotation.issuer.fingerprint
        return svid

    def own(self, mesh: str, identity: Identity) -> Credential:
        """For the control plane itself, to call a proxy with this identity; for a few minutes. UnusableAuthority."""
        issuer, key = self._issuing(mesh, identity.mesh_identity)[0].issuer, _generate_key("p256")
        svid = issue(issuer, key.public_key(), control_plane_id(identity.trust_domain), OWN_LIFETIME, self._now())
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return Credential(svid.chain_pem, key.private_bytes(pem, form, serialization.NoEncryption()).decode())

    def last_issuer(self, mesh: str, spiffe_id: str, node: str) -> str | None:
        """Fingerprint of the CA of the last certificate for the node; None if none was asked for since the start."""
        return self._signed_by.get((mesh, spiffe_id, node))

    def credential(self, mesh: str, dataplane: str, identity: Identity, key_type: KeyType) -> Held:
        """For a proxy on Envoy's own TLS: the one it has, or a new one when half of its life is over."""
        _check_not_ours(identity)
        with self._making:
            rotation, expiry = self._issuing(mesh, identity.mesh_identity)
            held = self._held.get((mesh, dataplane)) or self._load(mesh, dataplane)
            if held is None or not self._is_good(held, identity, rotation, key_type):
                held = self._renew(mesh, dataplane, identity, rotation, expiry, key_type)
            self._held[mesh, dataplane] = held
            self._without.discard((mesh, dataplane))
            return held

    def _is_good(self, held: Held, identity: Identity, rotation: Rotation, key_type: KeyType) -> bool:
        return (
            held.spiffe_id == identity.spiffe_id
            and held.authority == rotation.issuer.fingerprint
            and held.key_type == key_type
            and self._now() < held.renew_at
        )

    def _renew(
        self,
        mesh: str,
        dataplane: str,
        identity: Identity,
        rotation: Rotation,
        expiry: timedelta,
        key_type: KeyType,
    ) -> Held:
        key = _generate_key(key_type)
        svid = issue(rotation.issuer, key.public_key(), identity.spiffe_id, expiry, self._now())
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key_pem = key.private_bytes(pem, form, serialization.NoEncryption()).decode()
        spread = (svid.half_life - self._now()) * RENEWAL_JITTER * random.uniform(-1, 1)  # noqa: S311 (no secret)
        kept = {
            "chain": svid.chain_pem,
            "key": key_pem,
            "spiffeID": identity.spiffe_id,
            "authority": rotation.issuer.fingerprint,
            "keyType": key_type,
            "renewAt": (svid.half_life + spread).timestamp(),
        }
        self._store.put_secret(self._svid_name(mesh, dataplane), json.dumps(kept).encode())
        return self._held_of(kept)

    @staticmethod
    def _svid_name(mesh: str, dataplane: str) -> str:
        return f"mesh/{mesh}/svid/{dataplane}"

    def _load(self, mesh: str, dataplane: str) -> Held | None:
        kept = self._store.secret(self._svid_name(mesh, dataplane))
        return None if kept is None else self._held_of(json.loads(kept))

    @staticmethod
    def _held_of(kept: dict[str, object]) -> Held:
        chain = str(kept["chain"])
        certificate = x509.load_pem_x509_certificate(chain.encode())
        return Held(
            credential=Credential(chain, str(kept["key"])),
            spiffe_id=str(kept["spiffeID"]),
            authority=str(kept["authority"]),
            key_type=kept["keyType"],  # type: ignore[arg-type]  # as it was written
            not_after=certificate.not_valid_after_utc,
            renew_at=datetime.fromtimestamp(float(str(kept["renewAt"])), UTC),
        )

    def held(self, mesh: str, dataplane: str) -> Held | None:
        """What is kept for the proxy now; for `mesh inspect` and the expiry metric."""
        return self._held.get((mesh, dataplane))

    def keeps(self, mesh: str, dataplane: str) -> bool:
        """Whether the proxy has a certificate for Envoy's own TLS that is still valid."""
        key = mesh, dataplane
        held = self._held.get(key)
        if held is None and key not in self._without:
            held = self._load(mesh, dataplane)
            if held is None:
                self._without.add(key)
            else:
                self._held[key] = held
        return held is not None and self._now() < held.not_after

    def forget(self, mesh: str, dataplane: str) -> None:
        """When the dataplane is gone, or has its key at a daemon."""
        self._held.pop((mesh, dataplane), None)
        self._without.discard((mesh, dataplane))
        self._store.delete_secret(self._svid_name(mesh, dataplane))


def _check_not_ours(identity: Identity) -> None:
    """No workload may call itself what lets the control plane into proxies. Raises RefusedRequest."""
    if identity.spiffe_id == control_plane_id(identity.trust_domain):
        raise RefusedRequest(f"{identity.spiffe_id} is the control plane's own: give the workload another path")


PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _generate_key(key_type: KeyType) -> PrivateKey:
    if key_type.startswith("rsa"):
        return rsa.generate_private_key(65537, int(key_type.removeprefix("rsa")))
    if key_type == "ed25519":
        # Envoy's own TLS takes no Ed25519 certificates.
        return ec.generate_private_key(ec.SECP256R1())
    return ec.generate_private_key(ec.SECP256R1() if key_type == "p256" else ec.SECP384R1())
