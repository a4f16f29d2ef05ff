"""Interleaved measurement: in every round each contender runs every batch size once for a moment; the fastest counts.

Machines are shared and clocks drift. What is compared must therefore be measured side by side, often and briefly, and
the minimum is what the code needs when undisturbed. (CPU time instead of the clock was tried: on a busy virtual machine
it comes out as much as a third too small, because of the kernel's estimate of stolen time.)
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from cryptography.hazmat.backends.openssl import backend as openssl_backend

from benchmarks import crypto_mb
from benchmarks.kernels.contenders import LANES, Contender, Unavailable, available, system_libcrypto
from benchmarks.machine import boringssl_compiler

# Approximate length of a contender's turn, so that a round is over before the machine's load changes.
TURN_US = 3000.0


@dataclass
class Times:
    """For one algorithm: microseconds by contender and batch size, and who could not run."""

    us: dict[str, dict[int, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def of(self, contender: str, batch: int = LANES) -> float | None:
        return self.us.get(contender, {}).get(batch)

    def as_json(self) -> dict[str, Any]:
        names = ("ours", "crypto_mb", "openssl", "boringssl", "libcrypto")
        rounded = {n: {b: round(t, 2) for b, t in self.us.get(n, {}).items()} for n in names}
        return {
            **{f"{n}_us": rounded[n].get(LANES) for n in names},
            "by_batch": {
                str(batch): {f"{n}_us": rounded[n].get(batch) for n in names if n != "crypto_mb"}
                for batch in range(1, LANES + 1)
            },
        }


def measure(
    algorithm: str, rounds: int, batches: Sequence[int] = range(1, LANES + 1), progress: Callable[[int], None] = print
) -> Times:
    times = Times()
    contenders: list[Contender] = []
    for found in available(algorithm):
        if isinstance(found, tuple):
            times.missing[found[0]] = found[1]
        else:
            contenders.append(found)
    turns = [(c, batch) for batch in batches for c in contenders if batch in c.batches]
    repeats = {(c.name, batch): max(1, int(TURN_US / c.run(batch, 1))) for c, batch in turns}
    for turn in range(rounds):
        for contender, batch in turns:
            best = contender.run(batch, repeats[contender.name, batch])
            known = times.us.setdefault(contender.name, {})
            known[batch] = min(best, known.get(batch, best))
        progress(turn)
    return times


def pin(core: int | None) -> int:
    """Keeps this process on one core: the given one, or the last that it may use. It also requests priority, which it
    gets as root: otherwise a batch that is longer than a time slice never runs undisturbed on a busy machine."""
    allowed = sorted(os.sched_getaffinity(0))
    chosen = allowed[-1] if core is None else core
    os.sched_setaffinity(0, {chosen})
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    return chosen


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def versions() -> dict[str, str | None]:
    try:
        libcrypto = system_libcrypto().OpenSSL_version(0).decode()
    except Unavailable:
        libcrypto = None
    return {
        "crypto_mb": crypto_mb.version(),
        "cryptography": metadata.version("cryptography"),
        "openssl": openssl_backend.openssl_version_text(),
        "libcrypto": libcrypto,
        "boringssl_compiler": boringssl_compiler(),
        "python": platform.python_version(),
    }
