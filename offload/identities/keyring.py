"""Keeps the data plane's identities in sync with the keys directory and the configuration.

The thin shell around `identities.plan`: it lists the directory, lets `plan` decide, hands the result to the data plane,
and logs what is new. Used by one thread at a time; what other threads read (`current`) is replaced whole.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from offload import _dataplane
from offload.config.settings import Config
from offload.filesystem.trusted_paths import Trust
from offload.host import capabilities
from offload.identities.directory import KeysDirectory
from offload.identities.in_force import NONE_GENERATED, Changes, Generated, Plan, changes, rule_of
from offload.identities.inputs import Inputs
from offload.identities.plan import plan
from offload.identities.warnings import IdentityWarning, warnings_of
from offload.reporting.logs import get_logger


class Keyring:
    def __init__(self, data_plane: _dataplane.DataPlane, directory: Path, trust: Trust, is_closed_off: bool) -> None:
        """`is_closed_off`: by Landlock, from other processes."""
        self._data_plane = data_plane
        self._is_closed_off = is_closed_off
        self._directory = KeysDirectory(directory, trust)
        self._log = get_logger()
        self.current = Plan()
        self._warnings: tuple[IdentityWarning, ...] = ()
        self.names: dict[int, str] = {}  # names of the identities, by the numbers that the data plane counts them with
        self._last_number = 0

    def refresh(self, config: Config, generated: Generated) -> Changes:
        """Rereads the directory and puts into force what is good in it, and what was generated."""
        before = self.current
        inputs = look(self._directory, config, before, generated)
        new = plan(inputs)
        difference = changes(before.identities, new.identities)
        if difference:
            numbers = self._numbers(before, new)
            rules = [rule_of(identity) for identity in new.identities.values()]
            self._data_plane.set_identities([rule | {"number": numbers[rule["name"]]} for rule in rules])
            self._warn_of_executables(new)
        self.current = new
        self._report(before, new, difference)
        self._warn(warnings_of(new, inputs))
        return difference

    def _numbers(self, before: Plan, new: Plan) -> dict[str, int]:
        """Numbers of all names in force; a removed one is kept for one more change, as operations may be in flight."""
        known = before.identities.keys() | new.identities.keys()
        self.names = {number: name for number, name in self.names.items() if name in known}
        numbers = {name: number for number, name in self.names.items()}
        for name in new.identities.keys() - numbers.keys():
            self._last_number += 1
            numbers[name] = self._last_number
        self.names |= {number: name for name, number in numbers.items()}
        return numbers

    def _warn_of_executables(self, new: Plan) -> None:
        """Reading /proc/PID/exe of another user's process needs a capability; without it no caller matches. Under
        Landlock no process outside can be inspected."""
        named = sorted(n for n, i in new.identities.items() if any(s.executable for s in i.settings.selectors))
        if named and self._is_closed_off:
            self._log.warning(
                "selectors with an executable match nobody: the sandbox (Landlock) hides other processes from the "
                "daemon",
                identities=named,
            )
        elif named and not capabilities.has(capabilities.SYS_PTRACE):
            self._log.warning(
                "selectors with an executable match only callers of the daemon's own user: it has no CAP_SYS_PTRACE",
                identities=named,
            )

    def names_of(self, key_id: bytes) -> list[str]:
        return [i.name for i in self.current.identities.values() if any(p.key.key_id == key_id for p in i.pairs)]

    def _report(self, before: Plan, new: Plan, difference: Changes) -> None:
        for problem in new.problems:
            if problem not in before.problems:
                self._log.error(
                    "key file rejected",
                    identity=problem.identity,
                    file=problem.path,
                    reason=problem.reason,
                    previous_stays_in_force=problem.previous_kept,
                )
        for path in sorted({p.path for p in before.problems} - {p.path for p in new.problems}):
            self._log.info("key file no longer rejected", file=path)
        for name in difference.removed:
            self._log.info("identity removed", identity=name)
        for name in (*difference.added, *difference.changed):
            identity = new.identities[name]
            self._log.info(
                "identity in force" if name in difference.added else "identity changed",
                identity=name,
                version=identity.version,
                usage=identity.settings.usage,
                keys=[f"{p.key.algorithm} {p.key.key_id.hex()}" for p in identity.pairs],
                allowed=[selector.words() for selector in identity.settings.selectors],
            )

    def _warn(self, new: tuple[IdentityWarning, ...]) -> None:
        for warning in new:
            if warning not in self._warnings:
                self._log.warning("identity " + warning.text, identity=warning.identity)
        self._warnings = new


def look(directory: KeysDirectory, config: Config, before: Plan, generated: Generated = NONE_GENERATED) -> Inputs:
    """The inputs for the next plan; changes nothing."""
    return Inputs(before.identities, directory.look(config.bundle_files()), config, datetime.now(UTC), generated)
