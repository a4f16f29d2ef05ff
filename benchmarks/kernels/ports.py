"""How close the kernels come to the limit of the processor: the rate of its multiplier.

The kernels are chains of vpmadd52; everything else runs in parallel. So their number, divided by the rate at which the
core runs independent ones, is a time that no code with as many of them can beat.

The rate differs between processors: 2 of 512 bits per cycle (Zen 5, Intel servers), or 1, where the 512 bits take
both 256-bit multipliers (Zen 4). Code in registers of 256 bits, as OpenSSL's, runs 2 per cycle on either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.kernels.contenders import bench_library

# Per batch of 8, fault check included: counted in the portable build of the same C by a test.
MULTIPLICATIONS = {
    "rsa2048": 3_136_521,
    "rsa3072": 10_386_224,
    "rsa4096": 19_939_380,
    "p256": 30_578,
    "p384": 96_536,
    "ed25519": 19_687,
}
REPEATS = 3  # of a loop of some 100 us


@dataclass
class Ports:
    """Multiplications per microsecond: the maximum so far. 0 if the core has none."""

    wide: float = 0  # 512 bits
    narrow: float = 0  # 256 bits

    def look(self) -> None:
        """Measures again; called in every round, so that both sides have the same clock."""
        library = bench_library()
        self.wide = max(self.wide, library.kernelbench_multiplications_per_us(512, REPEATS))
        self.narrow = max(self.narrow, library.kernelbench_multiplications_per_us(256, REPEATS))

    def limit_us(self, algorithm: str) -> float | None:
        """The minimum time of our multiplications in a batch of 8."""
        return MULTIPLICATIONS[algorithm] / self.wide if self.wide else None

    def as_json(self) -> dict[str, Any]:
        return {
            "vpmadd52_512_per_us": round(self.wide, 1),
            "vpmadd52_256_per_us": round(self.narrow, 1),
            "per_batch": MULTIPLICATIONS,
        }
