"""The material of an identity: key pairs, from files or generated, and trust bundles.

While files are broken, the last usable version of their content stays in force.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from offload.identities.certificates import CertificateError, read_authorities, read_chain
from offload.identities.directory import KeyFile
from offload.identities.in_force import Generated, IdentityInForce, KeyPair, Problem, TrustBundle
from offload.identities.inputs import Inputs, Wanted

# Pairs of one identity are offered in this order: the cheapest for both sides first.
ALGORITHMS = ("p256", "ed25519", "p384", "rsa2048", "rsa3072", "rsa4096")


Material = tuple[tuple[KeyPair, ...], tuple[TrustBundle, ...], list[Problem]]


def material_of(one: Wanted, inputs: Inputs, is_listed: bool) -> Material:
    """Key pairs and trust bundles of an identity, and which of them cannot be used."""
    if one.files_name is None:
        pairs, problems = _generated_pair(one, inputs.generated)
    elif is_listed:
        pairs, problems = _pairs_from_files(one, inputs.now)
    else:
        # The configuration still decides who may use the keys.
        return (one.before.pairs, one.before.bundles, []) if one.before else ((), (), [])
    bundles, bundle_problems = _bundles(one, inputs)
    problems += bundle_problems
    if not pairs and one.files_name is not None and one.name in inputs.config.identities:
        problems.append(_no_pair(one.name, one.files_name, inputs))
    return pairs, bundles, problems


def _generated_pair(wanted: Wanted, generated: Generated) -> tuple[tuple[KeyPair, ...], list[Problem]]:
    pair, reason = generated.pairs.get(wanted.name), generated.problems.get(wanted.name)
    source = wanted.settings.generate
    issuer = f"issuer {source.issuer if source else ''}"
    problems = [] if reason is None else [Problem(wanted.name, issuer, reason, previous_kept=pair is not None)]
    return (() if pair is None else (pair,)), problems


def _pairs_from_files(wanted: Wanted, now: datetime) -> tuple[tuple[KeyPair, ...], list[Problem]]:
    refused = {f.path: f.problem for f in wanted.files if f.problem is not None and not f.is_bundle}
    keys: dict[bytes, KeyFile] = {}
    for file in wanted.files:
        if file.key is not None:
            keys.setdefault(file.key.key_id, file)
    pairs: list[KeyPair] = []
    for file in wanted.files:
        if not file.certificates or file.is_bundle:
            continue
        try:
            chain = read_chain(file.certificates, now)
        except CertificateError as error:
            refused[file.path] = str(error)
            continue
        owner = keys.get(chain.key_id)
        if owner is None or owner.key is None:
            refused[file.path] = f"no private key in its folder matches its leaf certificate ({chain.subject})"
            continue
        pairs.append(KeyPair(owner.key, chain, owner.path, file.path))
    good = {path for pair in pairs for path in (pair.key_file, pair.certificate_file)}
    for file in keys.values():
        if file.path not in good and file.path not in refused:
            refused[file.path] = "no certificate in its folder matches it"
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
    """Previous pairs whose files still exist, but no longer make a pair."""
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
    """Drops superseded pairs: of certificates for one key and the same names only the one that lasts longest stays."""
    best: dict[tuple[bytes, tuple[str, ...]], KeyPair] = {}
    for pair in sorted(pairs, key=lambda p: (p.kept, -p.chain.not_after, p.certificate_file)):
        best.setdefault((pair.key.key_id, pair.chain.dns_names), pair)
    return tuple(
        sorted(best.values(), key=lambda p: (ALGORITHMS.index(p.key.algorithm), -p.chain.not_after, p.certificate_file))
    )


def _bundles(wanted: Wanted, inputs: Inputs) -> tuple[tuple[TrustBundle, ...], list[Problem]]:
    given = inputs.generated.bundles.get(wanted.name)
    return (given, []) if given is not None else _bundles_from_files(wanted, inputs)


def _bundles_from_files(wanted: Wanted, inputs: Inputs) -> tuple[tuple[TrustBundle, ...], list[Problem]]:
    named, listing = wanted.settings.trust_bundles, inputs.listing
    beside = [f for f in wanted.files if f.is_bundle]
    if named is None and beside:
        sources = [("", f, f.path) for f in beside]
    else:
        chosen = inputs.config.keys.trust_bundles if named is None else named
        sources = [(b.trust_domain, listing.bundles[str(b.file)], str(b.file)) for b in chosen]
    bundles, problems = [], []
    for domain, file, path in sources:
        try:
            if file.problem is not None:
                raise CertificateError(file.problem)
            bundles.append(TrustBundle(domain, read_authorities(file.certificates), path))
        except CertificateError as error:
            last = _previous_bundle(wanted, domain, path)
            problems.append(Problem(wanted.name, path, f"trust bundle: {error}", last is not None))
            if last:
                bundles.append(last)
    return tuple(bundles), problems


def _previous_bundle(wanted: Wanted, trust_domain: str, path: str) -> TrustBundle | None:
    """The last usable version of a bundle."""
    bundles = wanted.before.bundles if wanted.before else ()
    return next((b for b in bundles if (b.trust_domain, b.file) == (trust_domain, path)), None)


def _no_pair(name: str, files_name: str, inputs: Inputs) -> Problem:
    reason = (
        f"no usable key pair; expected certificate and key in this folder or in {files_name}.crt and "
        f"{files_name}.key or {files_name}.pem"
    )
    return Problem(name, str(inputs.config.keys.directory / files_name), reason)
