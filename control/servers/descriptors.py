"""Descriptors for connections: as many as the system allows this process, shared among the ports, with a reserve.

The reserve is for the store, requests to proxies and the log: a full port must never take a descriptor from them, and
`accept` must never fail for lack of one.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from control.servers.door import Bounds

# The store's files and the threads that read it, requests to proxies' statistics (one per thread), and gRPC's own.
RESERVE = 256
# Proxies, and nodes: eight times the mesh that docs/performance/control-plane.md has measured.
MAX_CONNECTIONS = 8192
# All sidecars of a node share one address, and behind a NAT those of several nodes.
PER_ADDRESS = 2048
# Administrators and their tools are few.
API_CONNECTIONS = 1024
API_PER_ADDRESS = 512
# The share that may be without credentials, in total and per address. Each costs up to 100 kB. After a restart all
# proxies are without, for as long as their handshakes take.
STRANGERS = 1 / 2
# A handshake takes milliseconds, or seconds if a thousand arrive at once.
STRANGER_S = 30.0
API, GRPC = "API", "gRPC"
# Until the doorkeeper looks again, each of gRPC's two ports may accept as many as both may have.
_SHARES = {API: 1 / 8, GRPC: 7 / 16}


def raise_limit() -> int:
    """Raises the limit as far as the system allows without privileges; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return int(Path("/proc/sys/fs/nr_open").read_text()) if hard == resource.RLIM_INFINITY else hard


@dataclass(frozen=True)
class Wanted:
    """The limits given to `mesh serve`."""

    connections: int = MAX_CONNECTIONS
    per_address: int = PER_ADDRESS


def bounds(limit: int, wanted: Wanted) -> Mapping[str, Bounds]:
    """Bounds of each door (API, gRPC), for a process that has `limit` descriptors."""
    there = max(limit - RESERVE, limit // 2)
    most = {API: (API_CONNECTIONS, API_PER_ADDRESS), GRPC: (wanted.connections, wanted.per_address)}
    found = {}
    for name, (connections, per_address) in most.items():
        connections = max(8, min(connections, int(there * _SHARES[name])))
        per_address = min(per_address, connections)
        strangers = int(connections * STRANGERS)
        found[name] = Bounds(
            connections=connections,
            per_address=per_address,
            strangers=strangers,
            strangers_per_address=max(1, int(per_address * STRANGERS)),
            # The API limits the time of each request itself.
            stranger_s=STRANGER_S if name == GRPC else None,
        )
    return found
