"""Writes the Montgomery multiplication of one number spread over lanes: `lone.py OUTPUT.c`. Part of the CMake build.

kernels/ifma8/montgomery_lone_ifma8.h describes the layout, what the multiplication computes and its bounds. The names
here are those of that description: s registers per number, blocks of s limbs, B = 2^(52 s - 1).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from straight_line import LIMB, LIMB_BITS, Column, Function, columns

SIZES = (5, 8, 10)
AHEAD = {5}  # sizes whose products of the next block have columns of their own
QUOTIENT_IN_MEMORY = {8, 10}  # sizes that have too many columns to keep a quotient in registers besides


@dataclass(frozen=True)
class Layout:
    name: str
    numbers: int  # in one register, in turn

    @property
    def blocks(self) -> int:
        return 8 // self.numbers


PAIR, WHOLE = Layout("pair", 2), Layout("whole", 1)


class Multiplication:
    """One function: a b / R mod N for numbers of `size` registers."""

    def __init__(self, size: int, layout: Layout) -> None:
        self.size, self.layout = size, layout
        self.in_memory = size in QUOTIENT_IN_MEMORY
        self.f = Function(
            f"lone_multiply_{layout.name}_{size}",
            "vec *result, const vec *a, const vec *b, const lone_modulus *m",
            f"result = a b / R mod N, {size} registers; result may be a or b.",
        )

    def lowest(self, column: Column, other: str, high: int) -> None:
        """Adds something to the lowest block only."""
        mask = (1 << self.layout.numbers) - 1
        self.f.write(f"{column.name} = vec_masked_add({mask}, {column.name}, {other});")
        self.f.bounds(column, 0, column.high + high)

    def row(self, j: int, x: str, factor: str, into: list[Column]) -> None:
        """into += x 2^(52 j) times the number at `factor`."""
        for r in range(self.size):
            self.f.product(into, j + r, x, self.f.factor(f"{factor}{j}_{r}", f"{factor}[{r}]"))

    def rows_of_b(self, into: list[Column]) -> None:
        """into += a times the block of b."""
        for j in range(self.size):
            self.f.forget("a")
            self.f.write(f"vec b{j} = vec_load_spread{self.layout.numbers}(block + {8 * j});")
            self.row(j, f"b{j}", "a", into)

    def limb(self, name: str, r: int, column: Column, below: Column | None, *, spread: bool = True) -> Column:
        """Limb r of a block: its column with the carry of the limb below; bits above 52 stay in place. It is kept for
        `limb_at` and rows_of."""
        limb = Column(f"{name}{r}")
        self.f.copy(limb, column)
        if below is not None:
            self.f.add(limb, f"vec_shift_right({below.name}, {LIMB_BITS})", 0, below.high >> LIMB_BITS)
        self.f.check(limb)
        if self.in_memory:
            self.f.write(f"vec_store(&{name}[{r}], {limb.name});")
        elif spread:
            self.spread(name, r)
        return limb

    def spread(self, name: str, r: int) -> None:
        """Limb r of the lowest block in all lanes of its number."""
        numbers = self.layout.numbers
        if self.in_memory:
            source = f"vec_load_spread{numbers}((const uint64_t *)&{name}[{r}])"
        else:
            source = f"vec_spread{numbers}({name}{r})"
        self.f.write(f"vec {name}{r}_all = {source};")

    def limb_at(self, name: str, r: int, use: str) -> str:
        return self.f.factor(f"{name}{r}_{use}", f"{name}[{r}]") if self.in_memory else f"{name}{r}"

    def lowest_block(self, low: list[Column], *, spread: bool = True) -> Column:
        """Y, from the columns; the highest limb."""
        limb = self.limb("y", 0, low[0], None, spread=spread)
        for r, column in enumerate(low[1:], 1):
            limb = self.limb("y", r, column, limb, spread=spread)
        return limb

    def quotient(self) -> None:
        """q = Y inverse mod 2^(52 s), column by column, low and high halves apart: chains of half the length."""
        f, below = self.f, None
        for k in range(self.size):
            low, high = Column(f"z{k}"), Column(f"z{k}_high")
            for half, column, top in (("high", high, k - 1), ("low", low, k)):
                for r in range(top + 1):
                    f.forget("inverse", *(["y"] if self.in_memory else []))
                    x = self.limb_at("y", r, f"{half}{k}")
                    f.multiply_add(half, column, x, f.factor(f"inverse{k}_{r}_{half}", f"inverse[{top - r}]"))
            if high.started:
                f.add(low, high.name, 0, high.high)
            below = self.limb("q", k, low, below)

    def rows_of(self, name: str, factor: str, into: list[Column]) -> None:
        """into += the number at `factor` times the limbs."""
        for j in range(self.size):
            self.f.forget(factor, *([name] if self.in_memory else []))
            if self.in_memory:
                self.spread(name, j)
            self.row(j, f"{name}{j}_all", factor, into)

    def shift_down(self, low: list[Column], high: list[Column], into: list[Column]) -> None:
        """into += columns / B: the low columns of the block above, and the high ones twice."""
        for r, column in enumerate(into):
            self.f.add(column, f"vec_lanes_down({low[r].name}, {self.layout.numbers})", 0, low[r].high)
            for _ in range(2):
                self.f.add(column, high[r].name, 0, high[r].high)

    def write(self) -> Function:
        f, size = self.f, self.size
        ahead = size in AHEAD
        f.write("const vec *modulus = m->modulus, *folded = m->folded, *inverse = m->inverse;")
        f.write("const uint64_t *block = (const uint64_t *)b;")
        if self.in_memory:
            f.write(f"vec *y = m->scratch, *q = m->scratch + {size};")
        live = columns("c", 2 * size)
        for column in live:
            f.write(f"vec {column.name} = vec_zero();")
            f.bounds(column, 0, 0)
        f.block(lambda: self.rows_of_b(live))  # a scope of its own, as the loop has the same names

        def fold(_turn: int) -> None:
            f.write(f"block += {self.layout.numbers};")
            sums = columns("s", 2 * size)
            top = self.lowest_block(live[:size])
            if ahead:
                self.rows_of_b(sums)
                self.shift_down(live[:size], live[size:], sums[:size])
            else:
                self.shift_down(live[:size], live[size:], sums[:size])
                self.rows_of_b(sums)
            for _ in range(2):
                self.lowest(sums[0], f"vec_shift_right({top.name}, {LIMB_BITS})", top.high >> LIMB_BITS)
            self.rows_of("y", "folded", sums)
            for column, moved in zip(live, sums, strict=True):
                f.write(f"{column.name} = {moved.name};")
                f.bounds(column, moved.low, moved.high)

        f.loop(f"for (unsigned i = 1; i < {self.layout.blocks}; i++)", self.layout.blocks - 1, fold)
        self.last_block(live)
        return f

    def last_block(self, live: list[Column]) -> None:
        """The quotient is a product modulo 2^(52 s)."""
        f, size = self.f, self.size
        self.lowest_block(live[:size], spread=False)
        self.quotient()
        self.rows_of("q", "modulus", live)
        f.write(f"const vec limb_max = vec_all(UINT64_C({LIMB}));")
        top = live[size - 1]
        self.lowest(
            live[size], f"vec_shift_right(vec_add({top.name}, limb_max), {LIMB_BITS})", top.high + LIMB >> LIMB_BITS
        )
        result = columns("r", size)
        self.shift_down(live[:size], live[size:], result)
        self.normalise(result)

    def normalise(self, limbs: list[Column]) -> None:
        """Stores the result with limbs below 2^52."""
        f, size, top = self.f, self.size, self.size - 1
        f.write("const vec top_max = vec_shift_right(limb_max, 1);")
        f.write(f"const vec over = vec_shift_right(r{top}, {LIMB_BITS - 1});")
        highest = (1 << 8) - (1 << 8 - self.layout.numbers)
        f.write(f"VEC_ASSERT_WITHIN(vec_select({highest}, over, vec_zero()), 0, 0);")
        for r in reversed(range(size)):
            f.check(limbs[r])
            mask = "limb_max" if r < top else "top_max"
            below = f"vec_shift_right(r{r - 1}, {LIMB_BITS})" if r > 0 else f"vec_lanes_up(over, {self.layout.numbers})"
            f.write(f"r{r} = vec_add(vec_and(r{r}, {mask}), {below});")
        for r in range(size):
            if r > 0:
                f.write(f"r{r} = vec_add(r{r}, vec_shift_right(r{r - 1}, {LIMB_BITS}));")
            f.write(f"vec_store(&result[{r}], r{r});")


def main(output: str) -> None:
    head = [
        "/* Generated by kernels/generate/lone.py when the library is built: change that, not this. All limbs are",
        " * secret; nothing branches on them, and every address is public. */",
        '#include "kernels/ifma8/montgomery_lone_ifma8.h"',
        "",
    ]
    made = [Multiplication(size, layout).write().text() for layout in (PAIR, WHOLE) for size in SIZES]
    Path(output).write_text("\n".join(head) + "\n" + "\n\n".join(made) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
