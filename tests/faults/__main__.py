"""python -m tests.faults FILE: runs every scenario and writes what was seen as a table.

Ends with status 1 when a recovery took longer than it may.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
import tempfile
from pathlib import Path

from tests.faults import attack_scenarios
from tests.faults.attackers import ATTACKS
from tests.faults.rig import Result
from tests.faults.scenarios import SCENARIOS

HEAD = """# What faults do

What happens to requests when something breaks. Two real Envoys speak mTLS with each other, both keys are at one
daemon, four callers make a new connection for each request (no resumption, no retries), and one fault happens at a
time. `make faults` writes this page; the scenarios are in
[tests/faults/scenarios.py](../../tests/faults/scenarios.py) and run in `make test` as well.

Beside what the last column says, all of this holds under every fault: Envoys and daemon that were not stopped on
purpose keep running, and exit cleanly; no descriptor is leaked; the access logs show no wrong signature; and another
program of the same user, which asks the daemon for signatures with the server's key all the time, gets none.

*Longest gap* is the time between two requests that succeeded. *Recovery* is the time from the end of the fault to the
next success, and has to be less than 1 s; where a daemon is restarted, the fault ends when it serves. It is empty
where there was nothing to recover. Envoy waits for a signature for at most 2 s, and for a daemon that is away for at
most 1 s (`operation_timeout_ms`, `handshake_wait_ms`); what takes longer fails, and is counted here.

"""
CHANGES = """
## Changes of a mesh

A control plane and two to four Envoys, with two callers on connections that stay open, while the mesh changes ([how
changes reach a mesh](../guide/changes.md)). *Before* is what happened with versions that sent a change to every proxy
at once, as counted when it was reported; it is empty where nobody counted.

"""
FRONTS = """
## Attacks on the control plane, without credentials

A real `mesh serve` is attacked from another address of the host. Meanwhile an administrator makes one change after
the other, each over a new connection. A change is complete when a proxy whose stream is open has it, and so has
another one that connects for it. *Longest* is the longest time that a change took. *Before* is without limits, with
the usual 1,024 descriptors. The scenarios are in
[tests/faults/front_scenarios.py](../../tests/faults/front_scenarios.py); the [security
model](../design/security-model.md) lists the limits.

"""
RECOVERY_MS = 1000
ATTACK_ROUNDS = 3
ATTACK_SECONDS = 3.0


def row(result: Result) -> str:
    recovery = "" if result.recovery_ms is None else f"{result.recovery_ms:.0f} ms"
    gap = f"{result.longest_gap_ms:.0f} ms" if result.longest_gap_ms else ""
    cells = (result.name, f"{result.tried:,}", f"{result.failed:,}", gap, recovery)
    return f"| {' | '.join(cells)} | {result.must_hold} |"


def change_row(result: Result) -> str:
    cells = (result.name.removeprefix("mesh: "), f"{result.tried:,}", f"{result.failed:,}", result.before)
    return f"| {' | '.join(cells)} | {result.must_hold} |"


def front_row(result: Result) -> str:
    name = result.name.removeprefix("control plane, ")
    cells = (name, f"{result.tried:,}", f"{result.failed:,}", f"{result.longest_gap_ms:.0f} ms", result.before)
    return f"| {' | '.join(cells)} | {result.must_hold} |"


def attacks() -> str:
    """The section of attacks; without root there is no other user to attack from."""
    if os.geteuid() != 0:
        return "\nAttacks by another user were not run: that needs root.\n"
    kinds = list(ATTACKS)
    print(f"attacks by a user without identity: {len(kinds)}, {ATTACK_ROUNDS} rounds", flush=True)
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        Path(folder).chmod(0o755)
        found = attack_scenarios.measured_in_turn(Path(folder), ATTACK_ROUNDS, ATTACK_SECONDS, kinds)
    section = attack_scenarios.table(found, ATTACK_SECONDS)
    print(section, flush=True)
    return section


def main() -> int:
    target = Path(sys.argv[1])
    slow: list[str] = []
    fronts = ["| attack | changes | failed | longest | before | now |", "|---|---|---|---|---|---|"]
    rows = ["| fault | requests | failed | longest gap | recovery | holds |", "|---|---|---|---|---|---|"]
    changes = ["| change | requests | failed | before | holds |", "|---|---|---|---|---|"]
    for number, (name, scenario) in enumerate(SCENARIOS.items(), 1):
        print(f"[{number}/{len(SCENARIOS)}] {name.replace('_', ' ')}", flush=True)
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            result = scenario(Path(folder))
        if result.name.startswith("mesh: "):
            table, line = changes, change_row(result)
        elif result.name.startswith("control plane, "):
            table, line = fronts, front_row(result)
        else:
            table, line = rows, row(result)
        table.append(line)
        if result.recovery_ms is not None and result.recovery_ms > RECOVERY_MS:
            slow.append(f"{result.name}: {result.recovery_ms:.0f} ms")
        print("   " + line, flush=True)
    day = datetime.datetime.now(datetime.UTC).date()
    where = f"\nRun of {day} on {os.cpu_count()} cores, Linux {platform.release()}.\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    parts = [HEAD + "\n".join(rows), CHANGES + "\n".join(changes), FRONTS + "\n".join(fronts), attacks() + where]
    target.write_text("\n".join(parts))
    for one in slow:
        print(f"recovered too late: {one}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
