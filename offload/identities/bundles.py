"""Trust bundles of an identity: from its order, its configuration, files beside its key pair, or the default."""

from __future__ import annotations

from offload.identities.certificates import CertificateError, read_authorities
from offload.identities.in_force import Problem, TrustBundle
from offload.identities.inputs import Inputs, Wanted, is_bundle


def bundles_of(wanted: Wanted, inputs: Inputs) -> tuple[tuple[TrustBundle, ...], list[Problem]]:
    given = inputs.generated.bundles.get(wanted.name)
    return (given, []) if given is not None else _from_files(wanted, inputs)


def _from_files(wanted: Wanted, inputs: Inputs) -> tuple[tuple[TrustBundle, ...], list[Problem]]:
    named, listing = wanted.settings.trust_bundles, inputs.listing
    beside = [f for f in wanted.files if is_bundle(f)]
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
            last = _previous(wanted, domain, path)
            problems.append(Problem(wanted.name, path, f"trust bundle: {error}", last is not None))
            if last:
                bundles.append(last)
    return tuple(bundles), problems


def _previous(wanted: Wanted, trust_domain: str, path: str) -> TrustBundle | None:
    """The last usable version of a bundle."""
    bundles = wanted.before.bundles if wanted.before else ()
    return next((b for b in bundles if (b.trust_domain, b.file) == (trust_domain, path)), None)
