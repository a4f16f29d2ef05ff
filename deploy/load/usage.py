"""What processes have used, from the kernel: CPU time by thread, context switches, memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CPUCLOCK_SCHED = 2


def process_cpu_ns(pid: int) -> int:
    """CPU time of a process, user and system, ended threads included (the clock of clock_getcpuclockid(3))."""
    return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED)


@dataclass(frozen=True)
class Usage:
    """The usage of one process since it started."""

    cpu_ns: int = 0
    thread_ns: Mapping[str, int] = field(default_factory=dict)  # by thread name; threads of one name added
    switches: int = 0  # voluntary and involuntary, all threads

    def __sub__(self, before: Usage) -> Usage:
        threads = {name: ns - before.thread_ns.get(name, 0) for name, ns in self.thread_ns.items()}
        return Usage(self.cpu_ns - before.cpu_ns, threads, self.switches - before.switches)

    def __add__(self, other: Usage) -> Usage:
        threads = dict(self.thread_ns)
        for name, ns in other.thread_ns.items():
            threads[name] = threads.get(name, 0) + ns
        return Usage(self.cpu_ns + other.cpu_ns, threads, self.switches + other.switches)


def usage(pid: int) -> Usage:
    """ProcessLookupError or FileNotFoundError if the process is gone."""
    threads: dict[str, int] = {}
    switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            on_cpu = int((task / "schedstat").read_text().split()[0])
            switches += _switches((task / "status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended meanwhile
        threads[name] = threads.get(name, 0) + on_cpu
    return Usage(process_cpu_ns(pid), threads, switches)


def usage_of(pids: Iterable[int]) -> Usage:
    total = Usage()
    for pid in pids:
        total += usage(pid)
    return total


def _switches(status: str) -> int:
    return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)


def memory_kib(pid: int) -> int:
    """Proportional set size: memory shared with other processes counts in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no Pss line")
