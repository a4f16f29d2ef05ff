"""The C batcher with an injected clock and no threads, through ctypes: batcher_shim.c in tests/native/dataplane."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_uint, c_uint64, c_void_p
from dataclasses import dataclass

LANES = 8
RSA2048, RSA3072, RSA4096, P256, P384, ED25519 = range(6)
ACCEPTED, QUEUE_FULL, SOURCE_FULL, GROUP_FULL = range(4)
FULL, IDLE_SHARD, MAX_WAIT = range(3)
NEVER = 2**64 - 1
RESERVE = 4
US = 1000

# Microseconds of one operation in software, and of a batch on lanes (RSA: 4 operations, then 8).
SOFTWARE_US = {RSA2048: 640, RSA3072: 2000, RSA4096: 4500, P256: 56, P384: 440, ED25519: 27}
LANES_US = {RSA2048: 370, RSA3072: 1200, RSA4096: 2650, P256: 24, P384: 87, ED25519: 15}


def software_only() -> list[list[list[int]]]:
    return [[[SOFTWARE_US[c] * US * n for n in range(1, 9)] for c in range(6)]]


def with_lanes() -> list[list[list[int]]]:
    lanes = [[LANES_US[c] * US * (2 if c <= RSA4096 and n > 4 else 1) for n in range(1, 9)] for c in range(6)]
    return [*software_only(), lanes]


@dataclass
class Batch:
    algorithm: int
    backend: int
    reason: int
    items: list[int]


class Batcher:
    def __init__(
        self,
        native: ctypes.CDLL,
        costs: list[list[list[int]]],
        *,
        queue_limit: int = 1000,
        source_limit: int = 1000,
        group_limit: int = 60000,
        sources_per_group: int = 1,
        max_wait: int = 0,
    ) -> None:
        """Source n belongs to the user n // sources_per_group."""
        flat = [ns for backend in costs for algorithm in backend for ns in algorithm]
        self.native = native
        self.handle = c_void_p(
            native.shim_new(
                (c_uint64 * len(flat))(*flat),
                len(costs),
                c_uint64(5 * US),
                queue_limit,
                source_limit,
                group_limit,
                sources_per_group,
                c_uint64(max_wait),
            )
        )
        self.items = 0

    def close(self) -> None:
        self.native.shim_free(self.handle)

    def submit(self, source: int, algorithm: int, now: int, deadline: int = NEVER) -> tuple[int, int]:
        item, self.items = self.items, self.items + 1
        return self.native.shim_submit(self.handle, item, source, algorithm, c_uint64(now), c_uint64(deadline)), item

    def expire(self, now: int) -> list[int]:
        room = (c_uint * 65536)()
        return list(room[: self.native.shim_expire(self.handle, c_uint64(now), room)])

    def take(self, now: int, *, others_idle: bool = False) -> Batch | None:
        items, what = (c_uint * LANES)(), (c_uint * 3)()
        count = self.native.shim_take(self.handle, c_uint64(now), others_idle, items, what)
        return Batch(what[0], what[1], what[2], list(items[:count])) if count else None

    def regroup(self, source: int, group: int) -> None:
        self.native.shim_regroup(self.handle, source, group)

    def cancel(self, item: int) -> bool:
        return bool(self.native.shim_cancel(self.handle, item))

    def complete(self, items: Sequence[int]) -> None:
        self.native.shim_complete(self.handle, (c_uint * LANES)(*items), len(items))

    def ready_at(self, now: int) -> int:
        return int(self.native.shim_ready_at(self.handle, c_uint64(now)))

    def load(self, source: int) -> int:
        return int(self.native.shim_load(self.handle, source))

    def group_load(self, group: int) -> int:
        return int(self.native.shim_group_load(self.handle, group))

    @property
    def queued(self) -> int:
        return int(self.native.shim_queued(self.handle))

    def cost(self, algorithm: int, count: int) -> int:
        return int(self.native.shim_cost(self.handle, algorithm, count))

    def best(self, algorithm: int, count: int) -> int:
        return int(self.native.shim_best(self.handle, algorithm, count))

    def batch_size(self, algorithm: int, available: int, *, others_idle: bool) -> int:
        return int(self.native.shim_batch_size(self.handle, algorithm, available, others_idle))

    def shards_wanted(self, limit: int) -> int:
        return int(self.native.shim_shards_wanted(self.handle, limit))
