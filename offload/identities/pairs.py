"""Key pairs: from files, where the last usable version stays in force while files are broken, or generated."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from offload.identities.certificates import CertificateError, read_chain
from offload.identities.directory import KeyFile
from offload.identities.in_force import Generated, IdentityInForce, KeyPair, Problem
from offload.identities.inputs import Wanted, is_bundle

# Pairs of one identity are offered in this order: the cheapest for both sides first.
ALGORITHMS = ("p256", "ed25519", "p384", "rsa2048", "rsa3072", "rsa4096")


def generated_pair(wanted: Wanted, generated: Generated) -> tuple[tuple[KeyPair, ...], list[Problem]]:
    pair, reason = generated.pairs.get(wanted.name), generated.problems.get(wanted.name)
    source = wanted.settings.generate
    issuer = f"issuer {source.issuer if source else ''}"
    problems = [] if reason is None else [Problem(wanted.name, issuer, reason, previous_kept=pair is not None)]
    return (() if pair is None else (pair,)), problems


def pairs_from_files(wanted: Wanted, now: datetime) -> tuple[tuple[KeyPair, ...], list[Problem]]:
    refused = {f.path: f.problem for f in wanted.files if f.problem is not None and not is_bundle(f)}
    keys: dict[bytes, KeyFile] = {}
    for file in wanted.files:
        if file.key is not None:
            keys.setdefault(file.key.key_id, file)
    pairs: list[KeyPair] = []
    for file in wanted.files:
        if not file.certificates or is_bundle(file):
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
    kept = _still_usable(wanted.before, wanted.files, good, pairs)
    kept_files = {path for pair in kept for path in (pair.key_file, pair.certificate_file)}
    problems = [
        Problem(wanted.name, path, reason, any(kept == path or kept.startswith(path + "/") for kept in kept_files))
        for path, reason in sorted(refused.items())
    ]
    return _in_order([*pairs, *kept]), problems


def _still_usable(
    before: IdentityInForce | None, files: tuple[KeyFile, ...], good: set[str], pairs: list[KeyPair]
) -> list[KeyPair]:
    """Previous pairs whose files are still there, but no longer make a pair."""
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
