"""The control plane's own certificate: issued by its own CA, renewed automatically while it serves.

Proxies and nodes are given the CA (`ca.pem` in the data folder); it survives restarts and renewals.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from control.ca.authority import Authority, begun_now, generate, load
from control.store.errors import Conflict
from control.store.store import Store

log = structlog.get_logger(__name__)

# Renewed at a third of it; nothing has to be done by hand if the control plane runs now and then.
LIFETIME = timedelta(days=90)
_CA = "control-plane/ca"
_LEAF = "control-plane/certificate"


class ServingCertificate:
    def __init__(
        self, store: Store, names: Sequence[str], clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """`names`: host names and addresses by which the control plane is reached."""
        self._store, self._names, self._now = store, tuple(dict.fromkeys(names)), clock
        self.authority = own_authority(store, _CA, "control-plane", clock())
        self.chain_pem, self._key_pem = self._load() or self._renew()

    @property
    def ca_pem(self) -> str:
        return self.authority.certificate_pem

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.chain_pem.encode())

    @property
    def is_due(self) -> bool:
        """Whether to renew; also if it is not valid yet, since it was issued while the clock was ahead."""
        now, certificate = self._now(), self.certificate
        return now >= certificate.not_valid_after_utc - LIFETIME * 2 / 3 or now < certificate.not_valid_before_utc

    def _load(self) -> tuple[str, str] | None:
        """The stored certificate, if it is for the same names and not due."""
        kept = self._store.secret(_LEAF)
        if kept is None:
            return None
        data = json.loads(kept)
        self.chain_pem = data["chain"]
        return (data["chain"], data["key"]) if data["names"] == list(self._names) and not self.is_due else None

    def _renew(self) -> tuple[str, str]:
        key, now, authority = ec.generate_private_key(ec.SECP256R1()), self._now(), self.authority
        names, purposes = [_general_name(name) for name in self._names], [ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = authority.leaf(key.public_key(), now, now + LIFETIME, purposes, names=names)
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        chain = certificate.public_bytes(pem).decode()
        key_pem = key.private_bytes(pem, form, serialization.NoEncryption()).decode()
        kept = {"chain": chain, "key": key_pem, "names": list(self._names)}
        self._store.put_secret(_LEAF, json.dumps(kept).encode())
        return chain, key_pem

    def renew_if_due(self) -> bool:
        if not self.is_due and self.authority.problem_at(self._now()) is None:
            return False
        self.authority = own_authority(self._store, _CA, "control-plane", self._now())
        self.chain_pem, self._key_pem = self._renew()
        return True

    def key_and_chain(self) -> tuple[bytes, bytes]:
        return self._key_pem.encode(), self.chain_pem.encode()

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Credentials for the certificate now in force; they do not change with it (ports.py says why)."""
        return grpc.ssl_server_credentials([self.key_and_chain()])


def own_authority(store: Store, secret: str, name: str, now: datetime) -> Authority:
    """A CA of the control plane's own, stored under `secret`; created if there is none yet.

    One that is not valid yet (the clock was ahead when it was created), or no longer, is reissued from now on, with the
    same name and key: nobody can have used it meanwhile.
    """
    kept = store.secret(secret)
    if kept is None:
        fresh = generate(name, now)
        try:
            store.put_secret(secret, json.dumps(fresh.to_pem()).encode(), only_new=True)
        except Conflict:
            kept = store.secret(secret)  # another replica was faster
        else:
            return fresh
    certificate, key = json.loads(kept or b"")
    authority = load(certificate, key, f"the control plane's own CA {secret}")
    if authority.problem_at(now) is None:
        return authority
    log.warning(
        "reissued a CA of the control plane: it is valid from now on", ca=name, before=authority.problem_at(now)
    )
    begun = begun_now(authority, now)
    store.put_secret(secret, json.dumps(begun.to_pem()).encode(), expected=kept)
    return begun


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
