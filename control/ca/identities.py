"""Certificates for those who are entitled to them: nodes, for their requests, and proxies on Envoy's own TLS.

Those of proxies are stored sealed, so that they survive a restart. A certificate once issued is served to its expiry,
whatever happens to the CA, as long as the proxy has the SPIFFE id that it is for.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from control.ca.authorities import Authorities, Issuing
from control.ca.authority import Authority, UnusableAuthority
from control.ca.issue import RefusedRequest, Svid, issue, key_of_request
from control.ca.rotation import Rotation
from control.model.identity import Credential, Identity, control_plane_id
from control.policies.meshoffload.schema import KeyType
from control.store.errors import StoreError, WrongStoreKey
from control.store.store import Store, svid_secret

log = structlog.get_logger(__name__)

# Fraction of the half life by which renewals begin earlier or later, so that proxies that started together drift apart.
RENEWAL_JITTER = 0.1
# Lifetime of the certificate with which the control plane calls a proxy; a new one is issued for each call.
OWN_LIFETIME = timedelta(minutes=5)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Held:
    """A certificate that the control plane keeps for a proxy on Envoy's own TLS."""

    credential: Credential
    spiffe_id: str
    # The MeshIdentity that issued it ("" if an older version stored it), and the fingerprint of the issuing CA.
    mesh_identity: str
    authority: str
    key_type: KeyType
    not_before: datetime
    not_after: datetime
    renew_at: datetime

    def is_valid(self, now: datetime) -> bool:
        return self.not_before <= now < self.not_after

    def is_due(self, now: datetime) -> bool:
        """Whether it needs renewal. One that is not valid yet was issued while the clock was ahead."""
        return now >= self.renew_at or now < self.not_before


class Identities:
    def __init__(self, store: Store, zone: str, clock: Callable[[], datetime] = _now) -> None:
        self._store, self._now = store, clock
        self.authorities = Authorities(store, zone, clock)
        self._held: dict[tuple[str, str], Held] = {}
        # Dataplanes known to have nothing in the store; looked up for each build of a proxy in mode Offload.
        self._without: set[tuple[str, str]] = set()
        # One proxy's certificate must not be made twice at once, by two builds of its configuration.
        self._making = threading.Lock()
        self._signed_by: dict[tuple[str, str, str], str] = {}

    def now(self) -> datetime:
        """The time that certificates are checked against."""
        return self._now()

    # --- nodes, and the control plane itself --------------------------------------------------------------------------

    def issuer(self, mesh: str, mesh_identity: str, made_at: str = "") -> Authority:
        """The issuing CA. Raises NotFound, UnusableAuthority."""
        return self.authorities.issuing(mesh, mesh_identity, made_at).rotation.issuer

    def _issuing(self, mesh: str, identity: Identity) -> Issuing:
        return self.authorities.issuing(mesh, identity.mesh_identity, identity.made_at)

    def sign(self, mesh: str, identity: Identity, request_der: bytes, node: str = "") -> Svid:
        """Signs a node's request; the key stays on the node. Raises RefusedRequest, NotFound, UnusableAuthority."""
        _check_not_ours(identity)
        key = key_of_request(request_der, identity.spiffe_id)
        found = self._issuing(mesh, identity)
        issuer = found.rotation.issuer
        svid = issue(issuer, key, identity.spiffe_id, found.expiry, self._now())
        self._signed_by[mesh, identity.spiffe_id, node] = issuer.fingerprint
        return svid

    def own(self, mesh: str, identity: Identity) -> Credential:
        """A short-lived certificate for the control plane's own calls to this identity. Raises UnusableAuthority."""
        issuer, key = self._issuing(mesh, identity).rotation.issuer, _generate_key("p256")
        svid = issue(issuer, key.public_key(), control_plane_id(identity.trust_domain), OWN_LIFETIME, self._now())
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return Credential(svid.chain_pem, key.private_bytes(pem, form, serialization.NoEncryption()).decode())

    def last_issuer(self, mesh: str, spiffe_id: str, node: str) -> str | None:
        """Fingerprint of the CA of the node's last certificate; None if it requested none since the start."""
        return self._signed_by.get((mesh, spiffe_id, node))

    # --- proxies on Envoy's own TLS -----------------------------------------------------------------------------------

    def credential(self, mesh: str, dataplane: str, identity: Identity, key_type: KeyType) -> Held:
        """The proxy's certificate, or a new one once half of its life is over.

        Raises RefusedRequest, UnusableAuthority or StoreError if the proxy has none and none can be issued.
        """
        _check_not_ours(identity)
        with self._making:
            held = self._held.get((mesh, dataplane)) or self._load(mesh, dataplane)
            try:
                found = self._issuing(mesh, identity)
                if held is None or not self._is_good(held, identity, found.rotation, key_type):
                    held = self._renew(mesh, dataplane, identity, found, key_type)
            except (UnusableAuthority, RefusedRequest, StoreError):
                if held is None or held.spiffe_id != identity.spiffe_id or not held.is_valid(self._now()):
                    raise
            self._held[mesh, dataplane] = held
            self._without.discard((mesh, dataplane))
            return held

    def _is_good(self, held: Held, identity: Identity, rotation: Rotation, key_type: KeyType) -> bool:
        return (
            held.spiffe_id == identity.spiffe_id
            and held.authority == rotation.issuer.fingerprint
            and held.key_type == key_type
            and not held.is_due(self._now())
        )

    def _renew(self, mesh: str, dataplane: str, identity: Identity, found: Issuing, key_type: KeyType) -> Held:
        key, issuer = _generate_key(key_type), found.rotation.issuer
        svid = issue(issuer, key.public_key(), identity.spiffe_id, found.expiry, self._now())
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key_pem = key.private_bytes(pem, form, serialization.NoEncryption()).decode()
        spread = (svid.half_life - svid.issued_at) * RENEWAL_JITTER * random.uniform(-1, 1)  # noqa: S311 (no secret)
        kept = {
            "chain": svid.chain_pem,
            "key": key_pem,
            "spiffeID": identity.spiffe_id,
            "meshIdentity": identity.mesh_identity,
            "authority": issuer.fingerprint,
            "keyType": key_type,
            "renewAt": (svid.half_life + spread).timestamp(),
        }
        self._store.put_secret(svid_secret(mesh, dataplane), json.dumps(kept).encode())
        return self._held_of(kept)

    def _load(self, mesh: str, dataplane: str) -> Held | None:
        """Also None if it cannot be read: another one replaces it."""
        try:
            kept = self._store.secret(svid_secret(mesh, dataplane))
            return None if kept is None else self._held_of(json.loads(kept))
        except (WrongStoreKey, ValueError, KeyError, TypeError) as error:
            log.error("the stored certificate of a proxy is damaged", mesh=mesh, dataplane=dataplane, error=str(error))
            return None

    @staticmethod
    def _held_of(kept: dict[str, object]) -> Held:
        chain = str(kept["chain"])
        certificate = x509.load_pem_x509_certificate(chain.encode())
        return Held(
            credential=Credential(chain, str(kept["key"])),
            spiffe_id=str(kept["spiffeID"]),
            mesh_identity=str(kept.get("meshIdentity", "")),
            authority=str(kept["authority"]),
            key_type=kept["keyType"],  # type: ignore[arg-type]  # as it was written
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            renew_at=datetime.fromtimestamp(float(str(kept["renewAt"])), UTC),
        )

    def held(self, mesh: str, dataplane: str) -> Held | None:
        """The proxy's stored certificate; for `mesh inspect` and the expiry metric."""
        return self._held.get((mesh, dataplane))

    def is_due(self, mesh: str, dataplane: str) -> bool:
        """Whether the proxy should get another certificate, and its CA may be tried now."""
        held = self._held.get((mesh, dataplane))
        if held is None or not held.is_due(self._now()):
            return False
        return not self.authorities.is_throttled(mesh, held.mesh_identity)

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
        """To be called when the dataplane is deleted, loses its identity, or moves its key to a daemon."""
        self._held.pop((mesh, dataplane), None)
        self._without.discard((mesh, dataplane))
        self._store.delete_secret(svid_secret(mesh, dataplane))

    def forget_of(self, mesh: str, authorities: Collection[str]) -> None:
        """Forgets every certificate of these CAs (fingerprints), which are no longer trusted."""
        prefix = svid_secret(mesh, "")
        for name in self._store.secret_names(prefix):
            held = self._load(mesh, name.removeprefix(prefix))
            if held is not None and held.authority in authorities:
                self.forget(mesh, name.removeprefix(prefix))

    def forget_mesh(self, mesh: str) -> None:
        """To be called when the mesh is deleted; its secrets are already gone from the store."""
        for key in [key for key in self._held if key[0] == mesh]:
            self._held.pop(key, None)
        self._without = {key for key in self._without if key[0] != mesh}
        self._signed_by = {key: value for key, value in self._signed_by.items() if key[0] != mesh}
        self.authorities.forget(mesh)


def _check_not_ours(identity: Identity) -> None:
    """Keeps workloads from claiming the id that lets the control plane into proxies. Raises RefusedRequest."""
    if identity.spiffe_id == control_plane_id(identity.trust_domain):
        raise RefusedRequest(f"{identity.spiffe_id} is reserved for the control plane: give the workload another path")


PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _generate_key(key_type: KeyType) -> PrivateKey:
    if key_type.startswith("rsa"):
        return rsa.generate_private_key(65537, int(key_type.removeprefix("rsa")))
    if key_type == "ed25519":
        # Envoy's own TLS does not support Ed25519 certificates.
        return ec.generate_private_key(ec.SECP256R1())
    return ec.generate_private_key(ec.SECP256R1() if key_type == "p256" else ec.SECP384R1())
