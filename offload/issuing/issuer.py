"""Who certifies the keys that are generated on this node: one small interface, one file per issuer.

An issuer gets a certificate request and returns a chain. It is called on a separate thread, may take its time, and is
not trusted to have done what was requested: `check` compares the chain with the request before it is put into force.
To add an issuer: a class with `issue`, its settings in `config.issuers.Issuer`, a line in `orders.make_issuer`. The
mesh control plane is one too (mesh/client.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from offload.identities.certificates import CertificateError, Chain, read_chain


class IssuerError(Exception):
    """No certificate was issued this time; the message says why, for the log and for people."""


@dataclass(frozen=True)
class Wanted:
    """The subject of a certificate to be issued."""

    identity: str
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]


@dataclass(frozen=True)
class Issued:
    """DER certificates, leaf first. `renew_at`: seconds since 1970, if the issuer decides that."""

    chain: tuple[bytes, ...]
    renew_at: float | None = None


class Issuer(Protocol):
    def issue(self, request: bytes, wanted: Wanted) -> Issued:
        """Certifies a PKCS#10 request (DER). Blocks. IssuerError."""
        ...


def check(chain: Sequence[bytes], key_id: bytes, wanted: Wanted, now: datetime) -> Chain:
    """The chain, if it is what was requested: our key, these names, valid now, in order. IssuerError."""
    try:
        read = read_chain(tuple(chain), now)
    except CertificateError as error:
        raise IssuerError(f"the issuer returned a chain that cannot be served: {error}") from error
    if read.key_id != key_id:
        raise IssuerError("the issuer returned a certificate for a key other than the requested one")
    names = (sorted(read.uris), sorted(read.dns_names))
    expected = (sorted(wanted.uris), sorted(name.lower() for name in wanted.dns_names))
    if names != expected:
        given, asked = _words(names[0] + names[1]), _words(expected[0] + expected[1])
        raise IssuerError(f"the issuer returned a certificate for {given}, not for {asked}")
    return read


def _words(names: Sequence[str]) -> str:
    return ", ".join(names) or "nobody"
