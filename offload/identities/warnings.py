"""What can be used and yet is probably not meant, in words; for the log and for `check-config`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import TYPE_CHECKING

from offload.config.settings import Config
from offload.identities.directory import Listing

if TYPE_CHECKING:
    from offload.identities.plan import IdentityInForce


@dataclass(frozen=True)
class Remark:
    """Something that can be used and yet is probably not meant."""

    identity: str
    text: str


def remarks(
    identities: Iterable[IdentityInForce], config: Config, now: datetime, listing: Listing | None = None
) -> tuple[Remark, ...]:
    found: list[Remark] = []
    users: dict[bytes, str] = {}
    for identity in identities:
        name = identity.name
        if not identity.settings.selectors:
            found.append(Remark(name, "has no selectors, so nobody may use it; add some under 'identities'"))
        for pair in identity.pairs:
            days = (pair.chain.chain_not_after - now.timestamp()) / 86400
            renews = pair.renew_at is not None and pair.renew_at > now.timestamp()
            if days < 0:
                found.append(Remark(name, f"{pair.certificate_file} has expired and peers refuse it"))
            elif days < config.keys.warn_before_expiry_days and not renews:
                found.append(Remark(name, f"{pair.certificate_file} expires within {ceil(days)} days"))
            if not pair.chain.dns_names and not pair.chain.uris:
                found.append(Remark(name, f"{pair.certificate_file} names nobody: no DNS name or URI in it"))
            other = users.setdefault(pair.key.key_id, name)
            if other != name:
                found.append(Remark(name, f"has the same key as '{other}': whoever may use one may use the other"))
    if listing is not None:
        for name, files in listing.entries.items():
            found += [Remark(name, f"{f.path} {f.exposure}") for f in files if f.exposure is not None]
    return tuple(dict.fromkeys(found))
