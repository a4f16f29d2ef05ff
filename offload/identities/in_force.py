"""What is in force: identities with their key pairs and trust bundles, and what could not be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from offload import _dataplane
from offload.config.identities import Identity
from offload.identities.certificates import Chain


@dataclass(frozen=True)
class KeyPair:
    key: _dataplane.Key
    chain: Chain
    key_file: str
    certificate_file: str
    kept: bool = False  # its files are broken now; this is the last usable version
    renew_at: float | None = None  # generated here: when the next one is requested, seconds since 1970


@dataclass(frozen=True)
class TrustBundle:
    trust_domain: str
    authorities: tuple[bytes, ...]
    file: str


@dataclass(frozen=True)
class Retiring:
    """A superseded key. Clients no longer see it, but handshakes that began with it can still be finished."""

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
    """The generator's state, by identity: pairs in force, and why there is no newer one."""

    pairs: Mapping[str, KeyPair] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    # For identities whose trust does not come from files.
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

    @property
    def next_retirement(self) -> float | None:
        """When the next superseded key is dropped, seconds since 1970."""
        return min((r.until for i in self.identities.values() for r in i.retiring), default=None)


@dataclass(frozen=True)
class Changes:
    """Changes between two plans, by names of identities."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def changes(old: Mapping[str, IdentityInForce], new: Mapping[str, IdentityInForce]) -> Changes:
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(n for n in new.keys() & old.keys() if new[n] is not old[n])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def rule_of(identity: IdentityInForce) -> _dataplane.IdentityRule:
    """The identity in the data plane's form."""
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
