"""What can be used but is probably not intended, in words; for the log and for `check-config`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from offload.identities.in_force import KeyPair, Plan
from offload.identities.inputs import Inputs


@dataclass(frozen=True)
class IdentityWarning:
    identity: str
    text: str


def warnings_of(plan: Plan, inputs: Inputs) -> tuple[IdentityWarning, ...]:
    """Each warning once. `inputs` are those that the plan was made from."""
    found: list[IdentityWarning] = []
    users: dict[bytes, str] = {}
    for identity in plan.identities.values():
        name = identity.name
        if not identity.settings.selectors:
            found.append(IdentityWarning(name, "has no selectors, so nobody may use it; add some under 'identities'"))
        for pair in identity.pairs:
            found += [IdentityWarning(name, text) for text in _of_pair(pair, inputs)]
            other = users.setdefault(pair.key.key_id, name)
            if other != name:
                text = f"has the same key as '{other}': whoever may use one may use the other"
                found.append(IdentityWarning(name, text))
    for name, files in inputs.listing.entries.items():
        found += [IdentityWarning(name, f"{f.path} {f.exposure}") for f in files if f.exposure is not None]
    return tuple(dict.fromkeys(found))


def _of_pair(pair: KeyPair, inputs: Inputs) -> Iterator[str]:
    days = (pair.chain.chain_not_after - inputs.now.timestamp()) / 86400
    renews = pair.renew_at is not None and pair.renew_at > inputs.now.timestamp()
    if days < 0:
        yield f"{pair.certificate_file} has expired; peers reject it"
    elif days < inputs.config.keys.warn_before_expiry_days and not renews:
        yield f"{pair.certificate_file} expires within {ceil(days)} days"
    if not pair.chain.dns_names and not pair.chain.uris:
        yield f"{pair.certificate_file} has no DNS name and no URI, so peers cannot match it"
