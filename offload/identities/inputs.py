"""Everything that decides what is in force next, and which identities there shall be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from offload.config.identities import Identity
from offload.config.settings import Config
from offload.identities.directory import KeyFile, Listing
from offload.identities.in_force import NONE_GENERATED, Generated, IdentityInForce

BUNDLE_NAMES = frozenset({"ca.crt", "ca.pem"})


@dataclass(frozen=True)
class Inputs:
    previous: Mapping[str, IdentityInForce]
    listing: Listing
    config: Config
    now: datetime
    generated: Generated = NONE_GENERATED


@dataclass(frozen=True)
class Wanted:
    """One identity that shall be in force."""

    name: str
    settings: Identity
    files_name: str | None  # None: its keys are generated
    files: tuple[KeyFile, ...]
    before: IdentityInForce | None


def wanted_identities(inputs: Inputs) -> dict[str, Wanted]:
    """Those that the configuration names, and those of the keys directory, by name."""
    named = inputs.config.identities
    taken = {identity.files_name(name) for name, identity in named.items()}
    found = {name: wanted(name, identity, identity.files_name(name), inputs) for name, identity in named.items()}
    others = [name for name in inputs.listing.entries if name not in taken and name not in named]
    return found | {name: wanted(name, Identity(), name, inputs) for name in others}


def wanted(name: str, settings: Identity, files_name: str | None, inputs: Inputs) -> Wanted:
    files = () if files_name is None else inputs.listing.entries.get(files_name, ())
    return Wanted(name, settings, files_name, files, inputs.previous.get(name))


def bundle_files(config: Config) -> tuple[Path, ...]:
    """The trust bundle files that the configuration names."""
    lists = [config.keys.trust_bundles, *(i.trust_bundles or () for i in config.identities.values())]
    return tuple(dict.fromkeys(bundle.file for bundles in lists for bundle in bundles))


def is_bundle(file: KeyFile) -> bool:
    """Whether a file beside a key pair holds the identity's trust bundle."""
    return file.key is None and Path(file.path).name in BUNDLE_NAMES
