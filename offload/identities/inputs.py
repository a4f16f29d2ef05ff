"""Everything that decides what is in force next, and which identities there should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from offload.config.identities import Identity
from offload.config.settings import Config
from offload.identities.directory import KeyFile, Listing
from offload.identities.in_force import NONE_GENERATED, Generated, IdentityInForce


@dataclass(frozen=True)
class Inputs:
    previous: Mapping[str, IdentityInForce]
    listing: Listing
    config: Config
    now: datetime
    generated: Generated = NONE_GENERATED


@dataclass(frozen=True)
class Wanted:
    """One identity that should be in force."""

    name: str
    settings: Identity
    files_name: str | None  # None: its keys are generated
    files: tuple[KeyFile, ...]
    before: IdentityInForce | None


def wanted_identities(inputs: Inputs) -> dict[str, Wanted]:
    """The identities that the configuration names, and those of the keys directory, by name."""
    named = inputs.config.identities
    taken = {identity.files_name(name) for name, identity in named.items()}
    found = {name: wanted(name, identity, identity.files_name(name), inputs) for name, identity in named.items()}
    others = [name for name in inputs.listing.entries if name not in taken and name not in named]
    return found | {name: wanted(name, Identity(), name, inputs) for name in others}


def wanted(name: str, settings: Identity, files_name: str | None, inputs: Inputs) -> Wanted:
    files = () if files_name is None else inputs.listing.entries.get(files_name, ())
    return Wanted(name, settings, files_name, files, inputs.previous.get(name))
