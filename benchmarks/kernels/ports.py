"""How close the kernels come to the limits of the processor: the rates of its ports.

Two limits that no code with as many instructions can beat:

multiplier     the number of vpmadd52, divided by the rate at which the core runs independent ones
instructions   the number of all vector instructions but loads, stores and copies, divided by the rate of independent
               additions, which every port runs that runs vector arithmetic

Which of them binds differs between processors. Zen 4 multiplies 512 bits once per cycle and adds beside it: the
multiplier binds. Intel's servers multiply twice per cycle, and the two ports that do it run all other 512-bit
arithmetic too: the instructions bind. Code in registers of 256 bits, as OpenSSL's, multiplies twice per cycle on
either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.kernels import contenders
from benchmarks.kernels.contenders import bench_library


@dataclass(frozen=True)
class Counts:
    """What a batch of 8 runs, fault check included: counted in the portable build of the same C by a test."""

    multiplications: int
    instructions: int  # with the multiplications


PRODUCTS = ("karatsuba", "schoolbook")  # the ways to make RSA's products; kernels/ifma8/montgomery_products.h

CURVES = {
    "p256": Counts(30_578, 65_767),
    "p384": Counts(96_536, 197_571),
    "ed25519": Counts(19_687, 63_586),
}
COUNTS: dict[str, dict[str, Counts]] = {
    "karatsuba": CURVES
    | {
        "rsa2048": Counts(3_136_521, 4_023_821),
        "rsa3072": Counts(10_386_224, 12_403_882),
        "rsa4096": Counts(19_939_380, 26_902_451),
    },
    "schoolbook": CURVES
    | {
        "rsa2048": Counts(3_429_661, 3_892_432),
        "rsa3072": Counts(10_394_864, 12_400_234),
        "rsa4096": Counts(20_692_140, 26_584_619),
    },
}


def products(plan: dict[str, Any] | None) -> str:
    """How a batch of 8 makes its products by a plan; curves know one way."""
    return str(plan["ways"]["eight"]["products"]) if plan else PRODUCTS[0]


REPEATS = 3  # of a loop of some 100 us


@dataclass(frozen=True)
class Limit:
    us: float  # of a batch of 8, at least
    by: str  # "multiplier" or "instructions"


@dataclass
class Ports:
    """Independent instructions per microsecond: the maximum so far. 0 if the core has none."""

    wide: float = 0  # vpmadd52 of 512 bits
    narrow: float = 0  # vpmadd52 of 256 bits
    additions: float = 0  # of 512 bits

    def look(self) -> None:
        """Measures again; called in every round, so that both sides have the same clock."""
        library = bench_library()
        self.wide = max(self.wide, library.kernelbench_multiplications_per_us(512, REPEATS))
        self.narrow = max(self.narrow, library.kernelbench_multiplications_per_us(256, REPEATS))
        self.additions = max(self.additions, library.kernelbench_additions_per_us(REPEATS))

    def limit(self, counts: Counts) -> Limit | None:
        """The larger of the two limits; None without the instructions."""
        if not self.wide or not self.additions:
            return None
        multiplier = Limit(counts.multiplications / self.wide, "multiplier")
        instructions = Limit(counts.instructions / self.additions, "instructions")
        return max(multiplier, instructions, key=lambda limit: limit.us)

    def of_algorithm(self, algorithm: str) -> dict[str, Any]:
        """The plan, its counts and its limit, for the results of an algorithm."""
        plan = contenders.plan(algorithm)
        counts = COUNTS[products(plan)][algorithm]
        limit = self.limit(counts)
        return {
            "plan": plan,
            "multiplications": counts.multiplications,
            "vector_instructions": counts.instructions,
            "limit_us": limit and round(limit.us, 1),
            "limit_by": limit and limit.by,
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "vpmadd52_512_per_us": round(self.wide, 1),
            "vpmadd52_256_per_us": round(self.narrow, 1),
            "vpaddq_512_per_us": round(self.additions, 1),
        }
