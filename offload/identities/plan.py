"""Which identities are in force: a pure function of what was in force, what is on disk, and the configuration.

The rule for anything broken: it is reported with file and reason, it never takes anything else down, and what it
replaced stays in force until its files are whole again or gone. Removing the key file removes the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from offload import _dataplane
from offload.config.settings import Config, Identity
from offload.identities.certificates import CertificateError, Chain, read_authorities, read_chain
from offload.identities.directory import KeyFile, Listing
from offload.identities.schemes import schemes_for
from offload.identities.warnings import Remark, remarks
from offload.v1 import private_key_pb2

# Pairs of one identity are offered in this order: the cheapest for both sides first.
ALGORITHMS = ("p256", "ed25519", "p384", "rsa2048", "rsa3072", "rsa4096")
BUNDLE_NAMES = frozenset({"ca.crt", "ca.pem"})
# How long a superseded key goes on: longer than a handshake may take, and than the news of a new certificate.
RETIREMENT_SECONDS = 30.0
# Of one identity's message. gRPC clients take messages of 4 MiB, and its name comes on top in WatchIdentities.
MESSAGE_MAX = 4 * 1024 * 1024 - 4096


@dataclass(frozen=True)
class KeyPair:
    key: _dataplane.Key
    chain: Chain
    key_file: str
    certificate_file: str
    kept: bool = False  # its files are broken now; this is the last good version
    renew_at: float | None = None  # generated here: when the next one is asked for, seconds since 1970


@dataclass(frozen=True)
class TrustBundle:
    trust_domain: str
    authorities: tuple[bytes, ...]
    file: str


@dataclass(frozen=True)
class Retiring:
    """A key that another has taken the place of. Nobody is told of it any more, but handshakes that began with it, on
    the word of the identity's last message, can still be finished."""

    key: _dataplane.Key
    until: float  # seconds since 1970


@dataclass(frozen=True)
class IdentityInForce:
    name: str
    settings: Identity
    pairs: tuple[KeyPair, ...]  # not empty
    bundles: tuple[TrustBundle, ...]
    version: int
    message: bytes  # serialized offload.v1.Identity
    retiring: tuple[Retiring, ...] = ()


@dataclass(frozen=True)
class Generated:
    """What the generator has, by identity: pairs in force, and why there is no newer one."""

    pairs: Mapping[str, KeyPair] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    # Of those whose trust does not come from files.
    bundles: Mapping[str, tuple[TrustBundle, ...]] = field(default_factory=dict)


NONE_GENERATED = Generated()


@dataclass(frozen=True)
class Problem:
    """Something that could not be used."""

    identity: str
    path: str
    reason: str
    previous_kept: bool = False


@dataclass(frozen=True)
class Plan:
    identities: Mapping[str, IdentityInForce] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def next_retirement(self) -> float | None:
        """When the next superseded key is to go, seconds since 1970."""
        return min((r.until for i in self.identities.values() for r in i.retiring), default=None)


@dataclass(frozen=True)
class Changes:
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def plan(
    previous: Mapping[str, IdentityInForce],
    listing: Listing,
    config: Config,
    now: datetime,
    generated: Generated = NONE_GENERATED,
) -> Plan:
    """What shall be in force next. Never raises for anything that is on disk."""
    wanted = _wanted(listing, config)
    if listing.problem is not None and _needs_directory(wanted, previous, config):
        return _unlisted(wanted, previous, listing, config, now, generated)
    identities: dict[str, IdentityInForce] = {}
    problems: list[Problem] = []
    for name, (settings, files_name) in sorted(wanted.items()):
        files = () if files_name is None else listing.entries.get(files_name, ())
        before = previous.get(name)
        if files_name is None:
            pairs, its_problems = _generated_pair(name, settings, generated)
        else:
            pairs, its_problems = _pairs(name, files, before, now)
        bundles, bundle_problems = _all_bundles(name, settings, files, before, listing, config, generated)
        problems += its_problems + bundle_problems
        if pairs:
            sealed, too_large = _sealed(name, settings, pairs, bundles, before, now)
            problems += too_large
            if sealed is not None:
                identities[name] = sealed
        elif files_name is not None and name in config.identities:
            path = str(config.keys.directory / files_name)
            problems.append(
                Problem(
                    name,
                    path,
                    "no usable key pair; expected certificate and key in this folder or "
                    f"in {files_name}.crt and {files_name}.key or {files_name}.pem",
                )
            )
    return Plan(identities, tuple(problems), remarks(identities.values(), config, now, listing))


Wanted = Mapping[str, tuple[Identity, str | None]]  # settings, and the name of the files; None: it is generated


def _needs_directory(wanted: Wanted, previous: Mapping[str, IdentityInForce], config: Config) -> bool:
    """Where all keys are, and were, generated, the directory need not exist; nor in a mesh, where nobody named one."""
    from_files = any(files is not None for _, files in wanted.values())
    were_from_files = any(pair.renew_at is None for identity in previous.values() for pair in identity.pairs)
    is_asked_for = config.mesh is None or "directory" in config.keys.model_fields_set
    return from_files or were_from_files or (is_asked_for and not (wanted or previous))


def _unlisted(
    wanted: Wanted,
    previous: Mapping[str, IdentityInForce],
    listing: Listing,
    config: Config,
    now: datetime,
    generated: Generated,
) -> Plan:
    """Not listed is not the same as empty: a file system that went away must not take the keys with it. Who may use
    them is the configuration's to say all the same."""
    problems = [Problem("", str(config.keys.directory), listing.problem or "", previous_kept=bool(previous))]
    identities: dict[str, IdentityInForce] = {}
    for name in previous.keys() | wanted.keys():
        settings, files_name = wanted.get(name, (Identity(), name))
        before = previous.get(name)
        if files_name is None:
            pairs, its_problems = _generated_pair(name, settings, generated)
            bundles, bundle_problems = _all_bundles(name, settings, (), before, listing, config, generated)
            problems += its_problems + bundle_problems
        else:
            pairs, bundles = (before.pairs, before.bundles) if before else ((), ())
        if pairs:
            sealed, too_large = _sealed(name, settings, pairs, bundles, before, now)
            problems += too_large
            if sealed is not None:
                identities[name] = sealed
    return Plan(identities, tuple(problems), remarks(identities.values(), config, now))


def _all_bundles(
    name: str,
    settings: Identity,
    files: tuple[KeyFile, ...],
    before: IdentityInForce | None,
    listing: Listing,
    config: Config,
    generated: Generated,
) -> tuple[tuple[TrustBundle, ...], list[Problem]]:
    given = generated.bundles.get(name)
    return (given, []) if given is not None else _bundles(name, settings, files, before, listing, config)


def _generated_pair(name: str, settings: Identity, generated: Generated) -> tuple[tuple[KeyPair, ...], list[Problem]]:
    pair, reason = generated.pairs.get(name), generated.problems.get(name)
    issuer = f"issuer {settings.generate.issuer if settings.generate else ''}"
    problems = [] if reason is None else [Problem(name, issuer, reason, previous_kept=pair is not None)]
    return (() if pair is None else (pair,)), problems


def changes(old: Mapping[str, IdentityInForce], new: Mapping[str, IdentityInForce]) -> Changes:
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(n for n in new.keys() & old.keys() if new[n] is not old[n])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def rule_of(identity: IdentityInForce) -> _dataplane.IdentityRule:
    """The identity as the data plane takes it."""
    settings = identity.settings
    keys = {retiring.key.key_id: retiring.key for retiring in identity.retiring}
    keys |= {pair.key.key_id: pair.key for pair in identity.pairs}
    return {
        "name": identity.name,
        "selectors": [selector.rule() for selector in settings.selectors],
        "keys": [
            {"key": key, "usage": settings.usage, "decrypt": settings.decrypt and key.algorithm.startswith("rsa")}
            for key in keys.values()
        ],
        "message": identity.message,
    }


def bundle_files(config: Config) -> tuple[Path, ...]:
    """The trust bundle files that the configuration names."""
    lists = [config.keys.trust_bundles, *(i.trust_bundles or () for i in config.identities.values())]
    return tuple(dict.fromkeys(bundle.file for bundles in lists for bundle in bundles))


def _wanted(listing: Listing, config: Config) -> Wanted:
    """Every identity."""
    wanted: dict[str, tuple[Identity, str | None]] = {n: (i, i.files_name(n)) for n, i in config.identities.items()}
    taken = {files for _, files in wanted.values()}
    return wanted | {name: (Identity(), name) for name in listing.entries if name not in taken and name not in wanted}


def _pairs(
    name: str, files: tuple[KeyFile, ...], before: IdentityInForce | None, now: datetime
) -> tuple[tuple[KeyPair, ...], list[Problem]]:
    refused = {f.path: f.problem for f in files if f.problem is not None and not _is_bundle(f)}
    keys: dict[bytes, KeyFile] = {}
    for file in files:
        if file.key is not None:
            keys.setdefault(file.key.key_id, file)
    pairs: list[KeyPair] = []
    for file in files:
        if not file.certificates or _is_bundle(file):
            continue
        try:
            chain = read_chain(file.certificates, now)
        except CertificateError as error:
            refused[file.path] = str(error)
            continue
        owner = keys.get(chain.key_id)
        if owner is None or owner.key is None:
            refused[file.path] = f"no private key beside it has the public key of its leaf ({chain.subject})"
            continue
        pairs.append(KeyPair(owner.key, chain, owner.path, file.path))
    good = {path for pair in pairs for path in (pair.key_file, pair.certificate_file)}
    for file in keys.values():
        if file.path not in good and file.path not in refused:
            refused[file.path] = "no certificate beside it has its public key"
    kept = _kept(before, files, good, pairs)
    kept_files = {path for pair in kept for path in (pair.key_file, pair.certificate_file)}
    problems = [
        Problem(name, path, reason, any(kept == path or kept.startswith(path + "/") for kept in kept_files))
        for path, reason in sorted(refused.items())
    ]
    return _in_order([*pairs, *kept]), problems


def _kept(
    before: IdentityInForce | None, files: tuple[KeyFile, ...], good: set[str], pairs: list[KeyPair]
) -> list[KeyPair]:
    """Pairs of before whose files are still there, but do not make a pair now."""
    if before is None:
        return []
    same = {(pair.key.key_id, pair.chain.der) for pair in pairs}
    return [
        replace(pair, kept=True)
        for pair in before.pairs
        if _is_there(pair.key_file, files)
        and not {pair.key_file, pair.certificate_file} <= good
        and (pair.key.key_id, pair.chain.der) not in same
    ]


def _retiring(before: IdentityInForce | None, pairs: tuple[KeyPair, ...], now: datetime) -> tuple[Retiring, ...]:
    """Keys of before whose place others have taken. Those whose files are simply gone end at once: it was meant."""
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


def _is_there(path: str, files: tuple[KeyFile, ...]) -> bool:
    return any(f.path == path or (f.problem is not None and path.startswith(f.path + "/")) for f in files)


def _in_order(pairs: list[KeyPair]) -> tuple[KeyPair, ...]:
    """Without those superseded: of certificates for one key and the same names only the one that lasts longest."""
    best: dict[tuple[bytes, tuple[str, ...]], KeyPair] = {}
    for pair in sorted(pairs, key=lambda p: (p.kept, -p.chain.not_after, p.certificate_file)):
        best.setdefault((pair.key.key_id, pair.chain.dns_names), pair)
    return tuple(
        sorted(best.values(), key=lambda p: (ALGORITHMS.index(p.key.algorithm), -p.chain.not_after, p.certificate_file))
    )


def _bundles(
    name: str,
    settings: Identity,
    files: tuple[KeyFile, ...],
    before: IdentityInForce | None,
    listing: Listing,
    config: Config,
) -> tuple[tuple[TrustBundle, ...], list[Problem]]:
    beside = [f for f in files if _is_bundle(f)]
    if settings.trust_bundles is not None:
        sources = [(b.trust_domain, listing.bundles[str(b.file)], str(b.file)) for b in settings.trust_bundles]
    elif beside:
        sources = [("", f, f.path) for f in beside]
    else:
        sources = [(b.trust_domain, listing.bundles[str(b.file)], str(b.file)) for b in config.keys.trust_bundles]
    bundles, problems = [], []
    for domain, file, path in sources:
        try:
            if file.problem is not None:
                raise CertificateError(file.problem)
            bundles.append(TrustBundle(domain, read_authorities(file.certificates), path))
        except CertificateError as error:
            last = (
                next((b for b in before.bundles if (b.trust_domain, b.file) == (domain, path)), None)
                if before
                else None
            )
            problems.append(Problem(name, path, f"trust bundle: {error}", last is not None))
            if last:
                bundles.append(last)
    return tuple(bundles), problems


def _is_bundle(file: KeyFile) -> bool:
    return file.key is None and Path(file.path).name in BUNDLE_NAMES


def _sealed(
    name: str,
    settings: Identity,
    pairs: tuple[KeyPair, ...],
    bundles: tuple[TrustBundle, ...],
    before: IdentityInForce | None,
    now: datetime,
) -> tuple[IdentityInForce | None, list[Problem]]:
    """The identity, unless its message is too large for clients: then it is refused alone, and what was in force before
    stays, as far as its keys are still there. Who may use it is the configuration's to say all the same."""
    sealed = _seal(name, settings, pairs, bundles, before, _retiring(before, pairs, now))
    if len(sealed.message) <= MESSAGE_MAX:
        return sealed, []
    there = {pair.key.key_id for pair in pairs}
    held = tuple(pair for pair in before.pairs if pair.key.key_id in there) if before else ()
    kept = None
    for its_pairs in (pairs, held):
        if kept is None and before is not None and its_pairs:
            older = _seal(name, settings, its_pairs, before.bundles, before, _retiring(before, its_pairs, now))
            kept = older if len(older.message) <= MESSAGE_MAX else None
    sizes = {bundle.file: sum(map(len, bundle.authorities)) for bundle in bundles}
    sizes |= {pair.certificate_file: sum(map(len, pair.chain.der)) for pair in pairs}
    largest = max(sizes, key=sizes.__getitem__)
    reason = (
        f"the identity is too large: its certificates and trust bundles have {len(sealed.message)} bytes, and clients "
        f"take {MESSAGE_MAX}; this file alone has {sizes[largest]}. Remove CAs that the identity does not need"
    )
    return kept, [Problem(name, largest, reason, kept is not None)]


def _seal(
    name: str,
    settings: Identity,
    pairs: tuple[KeyPair, ...],
    bundles: tuple[TrustBundle, ...],
    before: IdentityInForce | None,
    retiring: tuple[Retiring, ...] = (),
) -> IdentityInForce:
    """The identity with its public message; the very object of before when nothing about it changed."""
    message = private_key_pb2.Identity(name=name)
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
    sealed = IdentityInForce(
        name, settings, pairs, bundles, message.version, message.SerializeToString(deterministic=True), retiring
    )
    return before if before is not None and _public_face(before) == _public_face(sealed) else sealed


def _public_face(identity: IdentityInForce) -> tuple[object, ...]:
    pairs = tuple((p.key.key_id, p.key_file, p.certificate_file, p.kept) for p in identity.pairs)
    return identity.message, identity.settings, pairs, identity.retiring
