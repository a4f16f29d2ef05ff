"""Which identities are in force: a pure function of what was in force, what is on disk, and the configuration.

The rule for anything broken: it is reported with file and reason, it never takes anything else down, and what it
replaced stays in force until its files are whole again or gone. Removing the key file removes the key.
"""

from __future__ import annotations

from collections.abc import Mapping

from offload.config.identities import Identity
from offload.identities.in_force import IdentityInForce, Plan, Problem
from offload.identities.inputs import Inputs, Wanted, wanted, wanted_identities
from offload.identities.material import material_of
from offload.identities.sealing import sealed


def plan(inputs: Inputs) -> Plan:
    """What should be in force next. Never raises because of anything on disk."""
    everyone = wanted_identities(inputs)
    problems: list[Problem] = []
    is_listed = inputs.listing.problem is None or not _needs_directory(everyone, inputs)
    if not is_listed:
        # An unreadable directory is not an empty one: a lost file system must not take the keys with it.
        gone = [name for name in inputs.previous if name not in everyone]
        everyone |= {name: wanted(name, Identity(), name, inputs) for name in gone}
        problems.append(_not_listed(inputs))
    identities: dict[str, IdentityInForce] = {}
    for name, one in sorted(everyone.items()):
        pairs, bundles, its_problems = material_of(one, inputs, is_listed)
        problems += its_problems
        if pairs:
            identity, too_large = sealed(one, pairs, bundles, inputs.now)
            problems += too_large
            if identity is not None:
                identities[name] = identity
    return Plan(identities, tuple(problems))


def _needs_directory(everyone: Mapping[str, Wanted], inputs: Inputs) -> bool:
    """If all keys are, and were, generated, the directory need not exist; nor in a mesh, where nobody named one."""
    config, previous = inputs.config, inputs.previous
    from_files = any(one.files_name is not None for one in everyone.values())
    were_from_files = any(pair.renew_at is None for identity in previous.values() for pair in identity.pairs)
    is_asked_for = config.mesh is None or "directory" in config.keys.model_fields_set
    return from_files or were_from_files or (is_asked_for and not (everyone or previous))


def _not_listed(inputs: Inputs) -> Problem:
    directory, reason = str(inputs.config.keys.directory), inputs.listing.problem or ""
    return Problem("", directory, reason, previous_kept=bool(inputs.previous))
