"""A lone operation on a cold core, beside a warm one: what a node that is mostly idle has.

Three states before each operation: another operation (warm), 3 ms of sleep (idle), and a sweep of the caches, the TLB
and the branch predictor as by another process (swept). What differs is memory: code, tables, key and scratch memory
come from further away, and page tables are walked, twice in a virtual machine.

Every sample is one operation; the contenders take turns, and the median counts, since the fastest of many cold ones
would be the least cold. The CPU time of the thread stands beside the clock for ours and BoringSSL, which are called
from C. OpenSSL is called from Python, whose interpreter is cold too: `call` in the JSON is what a call that does
nothing costs there, and is included in OpenSSL's times.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from benchmarks.kernels.contenders import OpenSsl, Sign, Unavailable, bench_for, bench_library, microseconds

STATES = ("warm", "idle", "swept")  # the numbers of kernelbench.h
IDLE_US = 3000


class LoneContender(Protocol):
    name: str

    def sample(self, state: str) -> tuple[float, float | None]:
        """Microseconds by the clock, and of CPU time where it is known, of one operation in that state."""


class FromC:
    def __init__(self, name: str, backend: str, algorithm: str) -> None:
        self.name, self._backend = name, backend
        self._what, self._bench = f"{backend} {algorithm}", bench_for(algorithm)
        self.sample("warm")

    def sample(self, state: str) -> tuple[float, float | None]:
        cpu = ctypes.c_int64()
        clock = bench_library().kernelbench_lone(
            self._bench, self._backend.encode(), STATES.index(state), IDLE_US, ctypes.byref(cpu)
        )
        return microseconds(clock, self._what), cpu.value / 1000


class FromPython:
    def __init__(self, name: str, sign: Sign) -> None:
        self.name, self._sign = name, sign

    def sample(self, state: str) -> tuple[float, float | None]:
        if state == "warm":
            self._sign()
        if bench_library().kernelbench_before(STATES.index(state), IDLE_US) != 0:
            raise Unavailable("the caches cannot be swept here")
        start = time.perf_counter_ns()
        self._sign()
        return (time.perf_counter_ns() - start) / 1000, None


MAKERS: Mapping[str, Callable[[str], LoneContender]] = {
    "ours": lambda algorithm: FromC("ours", "ifma8", algorithm),
    "boringssl": lambda algorithm: FromC("boringssl", "software", algorithm),
    "openssl": lambda algorithm: FromPython("openssl", OpenSsl(algorithm).signers[0]),
    "call": lambda _: FromPython("call", lambda: None),
}


@dataclass
class ColdTimes:
    """For one algorithm: all samples, by contender and state."""

    clock_us: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    cpu_us: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, contender: str, state: str, clock: float, cpu: float | None) -> None:
        self.clock_us.setdefault((contender, state), []).append(clock)
        if cpu is not None:
            self.cpu_us.setdefault((contender, state), []).append(cpu)

    def of(self, contender: str, state: str) -> float | None:
        """The median by the clock."""
        samples = self.clock_us.get((contender, state))
        return median(samples) if samples else None

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"idle_before_us": IDLE_US}
        for suffix, times in (("us", self.clock_us), ("cpu_us", self.cpu_us)):
            for (contender, state), samples in times.items():
                found.setdefault(contender, {})[f"{state}_{suffix}"] = round(median(samples), 2)
        return found


def measure_cold(algorithm: str, samples: int) -> ColdTimes:
    """Contenders that cannot run here are left out; the warm measurement says why."""
    times = ColdTimes()
    contenders = []
    for make in MAKERS.values():
        try:
            contenders.append(make(algorithm))
        except Unavailable:
            continue
    for _ in range(samples):
        for contender in contenders:
            for state in STATES:
                times.add(contender.name, state, *contender.sample(state))
    return times
