"""Every attack by a user without identity, in short: the victim is served, nothing is given, memory is bounded.

Times are measured by `make faults`, and asserted nowhere: they are those of the machine as well.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.faults.attack_scenarios import MEMORY_GROWTH_MIB, victim
from tests.faults.attackers import ATTACKS

pytestmark = pytest.mark.root  # to become another user
SECONDS = 1.0
# What each is refused for, one of these at least, where it is refused anything.
REFUSED = {
    "deaf": {"unknown_method"},
    "bomb": {"too_large"},
    "crowd": {"too_many_connections_without_identity"},
    "padding": {"flood"},
    "unfinished": {"user_memory", "too_large"},
    "tiny": {"bad_operation"},
}


@pytest.mark.parametrize("kind", [kind for kind in ATTACKS if kind != "busy"])
def test_attack(kind: str) -> None:
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:  # pytest's own are for one user
        Path(folder).chmod(0o755)
        with victim(Path(folder) / "daemon") as attacked:
            measured = attacked.measure(kind, SECONDS)
    for phase in (measured.before, measured.during, measured.after):
        assert phase.operations > 0
        assert phase.failed == 0
    assert measured.grown_mib < MEMORY_GROWTH_MIB
    assert measured.attacker["connected"] > 0
    assert kind not in REFUSED or REFUSED[kind] & set(measured.refusals)
