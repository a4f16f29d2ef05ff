"""python -m tests.faults.soak --minutes N: steady load and faults in turn; memory and descriptors before and after.

Ends with status 1 when something grew beyond its bound, or requests did not recover.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.envoy_ext.mesh import CART, PRICES
from tests.faults.rig import Rig, rig

# What may be more at the end than after the first round: allocators keep some, and a certificate or two.
MEMORY_GROWTH_KIB = 20 * 1024
DESCRIPTOR_GROWTH = 30
BETWEEN_S = 2.0


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
    there.daemon.log_file.unlink()
    there.daemon.start()


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


# A restart last: it would begin the daemon's memory anew before it was looked at.
FAULTS: Mapping[str, Callable[[Rig], None]] = {
    "daemon stopped for 1 s": stopped,
    "certificates and keys renewed": renewed,
    "reload": reloaded,
    "key file spoilt and mended": spoilt,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    counts = dict.fromkeys(FAULTS, 0)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, rig(Path(folder)) as there:
        there.load.wait_successes(500)
        before = usages(there)
        while time.monotonic() < until:
            name = random.choice(list(FAULTS))
            FAULTS[name](there)
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
        restarted(there)
        there.load.wait_successes()
        tried, good = len(there.load.moments), there.load.successes()
    print("\r" + ", ".join(f"{count} x {name}" for name, count in counts.items()) + ", then one restart")
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
    for problem in grown:
        print(problem)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
