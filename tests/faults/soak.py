"""python -m tests.faults.soak --minutes N: steady load and faults in turn; memory and descriptors before and after.

Half of the time one mesh lives through faults chosen by chance; the other half is for all scenarios of the table of
faults, each in a mesh of its own, over and over. Ends with status 1 when something grew beyond its bound, or requests
did not recover; a scenario whose property does not hold ends it at once.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.envoy_ext.mesh import CART, PRICES
from tests.faults.rig import Rig, restart, rig
from tests.faults.scenarios import SCENARIOS
from tests.faults.wall_clock import WallClock

# What may be more at the end than after the first round: allocators keep some, and a certificate or two.
MEMORY_GROWTH_KIB = 20 * 1024
DESCRIPTOR_GROWTH = 30
BETWEEN_S = 2.0
VISITORS = 500


@dataclass(frozen=True)
class Usage:
    memory_kib: int
    descriptors: int


def usage(pid: int) -> Usage:
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    return Usage(memory, len(os.listdir(f"/proc/{pid}/fd")))


def usages(there: Rig) -> dict[str, Usage]:
    pids = {"Envoy cart": there.client.running.pid, "Envoy prices": there.server.running.pid}
    return {name: usage(pid) for name, pid in (pids | {"daemon": there.daemon.pid}).items()}


def stopped(there: Rig) -> None:
    there.daemon.signal(signal.SIGSTOP)
    time.sleep(1)
    there.daemon.signal(signal.SIGCONT)


def restarted(there: Rig) -> None:
    there.daemon.stop()
    restart(there)


def upgraded(there: Rig) -> None:
    before = there.daemon
    there.daemon = before.upgrade(1)
    there.daemon.wait_log("serving")
    before.wait(60)


def renewed(there: Rig) -> None:
    there.services.issue("prices", PRICES)
    there.services.issue("cart", CART)


def reloaded(there: Rig) -> None:
    there.daemon.signal(signal.SIGHUP)


def spoilt(there: Rig) -> None:
    key = there.services.folder / "keys" / "prices" / "p256.key"
    good = key.read_bytes()
    key.write_bytes(b"garbage")
    time.sleep(0.5)
    key.write_bytes(good)


def visited(there: Rig) -> None:
    """By many who connect to the daemon, say nothing and go."""
    with contextlib.ExitStack() as visitors:
        for _ in range(VISITORS):
            one = visitors.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(there.daemon.socket))
        there.load.wait_successes()


def faults(clock: WallClock) -> Mapping[str, Callable[[Rig], None]]:
    def set_clock(there: Rig) -> None:
        clock.is_ahead_by(random.choice((-3600, 3600)))
        there.load.wait_successes()
        clock.is_ahead_by(0)

    return {
        "daemon stopped for 1 s": stopped,
        "certificates and keys renewed": renewed,
        "reload": reloaded,
        "key file spoilt and mended": spoilt,
        f"{VISITORS} idle connections": visited,
        "clock set by an hour": set_clock,
    }


# Last: they begin the memory of a process anew, which is looked at before.
ENDS: Mapping[str, Callable[[Rig], None]] = {"upgrade": upgraded, "restart": restarted}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    until = time.monotonic() + 30 * options.minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        clock = WallClock(Path(name) / "clock")
        wrong = faults(clock)
        with rig(Path(name), environment=clock.environment) as there:
            grown = _run(there, wrong, until)
    for problem in grown:
        print(problem)
    _in_turn(until + 30 * options.minutes)
    return 1 if grown else 0


def _in_turn(until: float) -> None:
    """Every scenario, and again, in a new mesh each."""
    done: Counter[str] = Counter()
    tried = failed = 0
    for scenario in itertools.cycle(SCENARIOS.values()):
        if time.monotonic() > until:
            break
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            result = scenario(Path(folder))
        done[result.name] += 1
        tried, failed = tried + result.tried, failed + result.failed
        print(f"\r{max(0, until - time.monotonic()):5.0f} s left, {done.total()} scenarios", end="", flush=True)
    print(f"\r{done.total()} times a scenario of the table of faults, {len(done)} of {len(SCENARIOS)} kinds; all held")
    print(f"{tried:,} requests, {failed:,} failed, where they had to")


def _run(there: Rig, wrong: Mapping[str, Callable[[Rig], None]], until: float) -> list[str]:
    """What grew too much."""
    counts = dict.fromkeys(wrong, 0)
    there.load.wait_successes(500)
    before = usages(there)
    while time.monotonic() < until:
        name = random.choice(list(wrong))
        wrong[name](there)
        counts[name] += 1
        there.load.wait_successes()
        time.sleep(BETWEEN_S)
        print(
            f"\r{max(0, until - time.monotonic()):5.0f} s left, {there.load.successes():,} requests",
            end="",
            flush=True,
        )
    there.load.wait_successes(100)
    after = usages(there)
    for end in ENDS.values():
        end(there)
        there.load.wait_successes()
    tried, good = len(there.load.moments), there.load.successes()
    print("\r" + ", ".join(f"{count} x {name}" for name, count in counts.items()) + f", then {' and '.join(ENDS)}")
    print(f"{tried:,} requests, {tried - good:,} failed")
    print(f"{'':14}{'memory, KiB':>24}{'descriptors':>18}")
    grown = []
    for name, first in before.items():
        last = after[name]
        print(
            f"{name:14}{first.memory_kib:>11,} -> {last.memory_kib:>9,}{first.descriptors:>8} -> {last.descriptors:>6}"
        )
        if last.memory_kib > first.memory_kib + MEMORY_GROWTH_KIB:
            grown.append(f"the memory of {name} grew by more than {MEMORY_GROWTH_KIB:,} KiB")
        if last.descriptors > first.descriptors + DESCRIPTOR_GROWTH:
            grown.append(f"the descriptors of {name} grew by more than {DESCRIPTOR_GROWTH}")
    return grown


if __name__ == "__main__":
    sys.exit(main())
