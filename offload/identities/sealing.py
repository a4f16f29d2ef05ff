"""Seals an identity: its public message, its version, and the superseded keys that stay usable for a while."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

from offload.identities.in_force import IdentityInForce, KeyPair, Problem, Retiring, TrustBundle
from offload.identities.inputs import Wanted
from offload.identities.schemes import schemes_for
from offload.v1 import private_key_pb2

# Lifetime of a superseded key: longer than a handshake may take, and than the spread of news of a new certificate.
RETIREMENT_SECONDS = 30.0
# Limit for one identity's message. gRPC clients accept messages of 4 MiB, and WatchIdentities adds its name.
MESSAGE_MAX = 4 * 1024 * 1024 - 4096


def sealed(
    wanted: Wanted, pairs: tuple[KeyPair, ...], bundles: tuple[TrustBundle, ...], now: datetime
) -> tuple[IdentityInForce | None, list[Problem]]:
    """The identity, unless its message is too large for clients: then only this one is rejected, and what was in force
    before stays, as far as its keys still exist. The configuration still decides who may use it."""
    new = _seal(wanted, pairs, bundles, now)
    if len(new.message) <= MESSAGE_MAX:
        return new, []
    older = _older_bundles(wanted, pairs, now)
    sizes = {bundle.file: sum(map(len, bundle.authorities)) for bundle in bundles}
    sizes |= {pair.certificate_file: sum(map(len, pair.chain.der)) for pair in pairs}
    largest = max(sizes, key=sizes.__getitem__)
    reason = (
        f"the identity is too large: its certificates and trust bundles have {len(new.message)} bytes, but clients "
        f"take {MESSAGE_MAX}; this file alone has {sizes[largest]}. Remove CAs that the identity does not need"
    )
    return older, [Problem(wanted.name, largest, reason, older is not None)]


def _older_bundles(wanted: Wanted, pairs: tuple[KeyPair, ...], now: datetime) -> IdentityInForce | None:
    """The previous bundles, with the new pairs or else the previous ones; None if neither fits."""
    before = wanted.before
    if before is None:
        return None
    there = {pair.key.key_id for pair in pairs}
    for candidates in (pairs, tuple(pair for pair in before.pairs if pair.key.key_id in there)):
        if candidates:
            older = _seal(wanted, candidates, before.bundles, now)
            if len(older.message) <= MESSAGE_MAX:
                return older
    return None


def _seal(
    wanted: Wanted, pairs: tuple[KeyPair, ...], bundles: tuple[TrustBundle, ...], now: datetime
) -> IdentityInForce:
    """The identity with its public message; the previous object itself if nothing about it changed."""
    settings, before = wanted.settings, wanted.before
    message = private_key_pb2.Identity(name=wanted.name)
    for pair in pairs:
        message.credentials.add(
            key_id=pair.key.key_id,
            certificate_chain=pair.chain.der,
            signature_schemes=schemes_for(pair.key.algorithm, settings.usage),
            tls12=settings.usage != "tls13",
            dns_names=pair.chain.dns_names,
            not_after=pair.chain.not_after,
        )
    authorities: dict[str, dict[bytes, None]] = {}
    for bundle in bundles:
        authorities.setdefault(bundle.trust_domain, {}).update(dict.fromkeys(bundle.authorities))
    for trust_domain, certificates in sorted(authorities.items()):
        message.trust_bundles.add(trust_domain=trust_domain, authorities=list(certificates))
    # Derived from the content, so that it is the same after a restart and changes with the content only.
    message.version = int.from_bytes(sha256(message.SerializeToString(deterministic=True)).digest()[:8]) or 1
    serialized, retiring = message.SerializeToString(deterministic=True), _retiring(before, pairs, now)
    new = IdentityInForce(wanted.name, settings, pairs, bundles, message.version, serialized, retiring)
    return before if before is not None and _public_face(before) == _public_face(new) else new


def _retiring(before: IdentityInForce | None, pairs: tuple[KeyPair, ...], now: datetime) -> tuple[Retiring, ...]:
    """Superseded keys: still usable for a while. Keys whose files were removed end at once: that was intended."""
    if before is None:
        return ()
    in_force = {pair.key.key_id for pair in pairs}
    places = {pair.key_file for pair in pairs}
    superseded = [
        Retiring(pair.key, now.timestamp() + RETIREMENT_SECONDS) for pair in before.pairs if pair.key_file in places
    ]
    going = [retiring for retiring in before.retiring if retiring.until > now.timestamp()]
    kept = {retiring.key.key_id: retiring for retiring in (*superseded, *going)}
    return tuple(retiring for key_id, retiring in kept.items() if key_id not in in_force)


def _public_face(identity: IdentityInForce) -> tuple[object, ...]:
    pairs = tuple((p.key.key_id, p.key_file, p.certificate_file, p.kept) for p in identity.pairs)
    return identity.message, identity.settings, pairs, identity.retiring
