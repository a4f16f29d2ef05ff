"""Signatures per second of a daemon with 1, 2, 4, ... kernel threads: the effect of more cores.

It runs without Envoy, whose one worker would be the limit: keyload sends requests as many sidecars would. It and the
daemon's front thread need cores too, so the last doubling gives less on a host where all cores are in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deploy.load import tools, usage
from deploy.node import daemon
from deploy.node.certificates import Authority
from deploy.node.processes import NodeError, Processes

KEYS = ("rsa2048", "p256")
SECONDS = 1.5
# Enough in flight to fill the lanes of every thread of a large host.
LOAD: dict[str, tools.Argument] = {"connections": 8, "in_flight": 256, "batch": 8, "warmup": 2000}


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4, ... up to the host's cores; empty if there is only one."""
    counts = [1]
    while counts[-1] * 2 <= cores:
        counts.append(counts[-1] * 2)
    return counts if len(counts) > 1 else []


def seconds(cores: int) -> float:
    """Estimate: the loads, and the start and end of a daemon for each."""
    return len(thread_counts(cores)) * (len(KEYS) * (SECONDS + 0.5) + 2)


def measured(
    folder: Path, counts: list[int], progress: Callable[[str], None], backend: str = "auto", duration: float = SECONDS
) -> list[dict[str, Any]]:
    """One entry per key and number of threads. NodeError if a signature fails."""
    authority = Authority(folder / "ca")
    leaves = [authority.issue(key, key, folder / "keys") for key in KEYS]

    def of_daemon(threads: int) -> Iterator[dict[str, Any]]:
        settings = daemon.Settings(backend=backend, shards=threads)
        place = folder / str(threads)
        place.mkdir()
        with Processes(place) as processes:
            running = daemon.start(processes, "daemon", leaves, place, settings)
            for leaf in leaves:
                cpu = usage.process_cpu_ns(running.pid)
                result = tools.keyload(
                    socket=running.socket, certificate=leaf.certificate_file, duration=duration, **LOAD
                )
                cpu = usage.process_cpu_ns(running.pid) - cpu
                if result["failures"]:
                    raise NodeError(f"{leaf.name}, {threads} threads: {result['failures_by_reason']}")
                yield {
                    "key": leaf.key_type,
                    "kernel_threads": threads,
                    "operations_per_s": round(result["operations_per_s"]),
                    "daemon_cores_used": round(cpu / 1e9 / result["elapsed_s"], 2),
                    "mean_batch": round(result["mean_batch"], 2),
                }

    found = []
    for threads in counts:
        progress(f"{threads} kernel threads")
        found += list(of_daemon(threads))
    return found
