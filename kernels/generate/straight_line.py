"""Writes straight-line C over vec.h, and loops of it: the vocabulary of montgomery.py.

A generated function works on *columns*. Column k of a number in radix 2^52 collects everything that has the weight
2^(52 k); it is a vec (eight lanes, one per operation) and may grow beyond 52 bits until a carry moves the excess to
column k + 1. While Python writes the code it also adds up how large each column can become, so a bound that does not
hold is an error of the generator; the bounds are written into the code as VEC_ASSERT_WITHIN, which builds with
BOUND_CHECKS execute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

LIMB_BITS = 52
LIMB = (1 << LIMB_BITS) - 1  # the largest limb, and the largest half of a product that vpmadd52 adds
COLUMN_MAX = (1 << 63) - 1  # columns are signed 64-bit


class BoundError(AssertionError):
    """A column could leave 64 bits."""


@dataclass
class Column:
    """A C variable, whether it holds anything yet, and its bounds."""

    name: str
    low: int = 0
    high: int = 0
    started: bool = False


@dataclass
class Check:
    """An assertion of a column's proved bounds, one line of the code."""

    name: str
    low: int
    high: int

    def __str__(self) -> str:
        return f"VEC_ASSERT_WITHIN({self.name}, INT64_C({self.low}), INT64_C({self.high}));"

    def merge(self, other: Check | str) -> Check:
        if not isinstance(other, Check) or other.name != self.name:
            raise ValueError(f"the passes of a loop differ: {self} and {other}")
        return Check(self.name, min(self.low, other.low), max(self.high, other.high))


def merge_passes(first: list[Check | str], second: list[Check | str]) -> list[Check | str]:
    """The code of two passes through one loop body: the same lines, with bounds that hold for both."""
    if len(first) != len(second):
        raise ValueError("the passes of a loop differ in length")
    merged: list[Check | str] = []
    for a, b in zip(first, second, strict=True):
        if isinstance(a, Check):
            merged.append(a.merge(b))
        elif a == b:
            merged.append(a)
        else:
            raise ValueError(f"the passes of a loop differ: {a} and {b}")
    return merged


@dataclass
class Function:
    """One C function under construction."""

    name: str
    parameters: str
    comment: str
    lines: list[Check | str] = field(default_factory=list)

    def write(self, line: Check | str) -> None:
        self.lines.append(line)

    def loop(self, header: str, passes: int, body: Callable[[int], None]) -> None:
        """A loop that C runs `passes` times. The body is generated as often, so that the bounds of every pass are
        proved, and must come out the same each time but for those."""
        outside, merged = self.lines, None
        for turn in range(passes):
            self.lines = []
            body(turn)
            merged = self.lines if merged is None else merge_passes(merged, self.lines)
        self.lines = outside
        self.lines += [header + " {", *(merged or []), "}"]

    def block(self, body: Callable[[], None]) -> None:
        """Code with variables of its own."""
        self.write("{")
        body()
        self.write("}")

    def text(self) -> str:
        opening = f"/* {self.comment} */\nvoid VEC_NAME({self.name})({self.parameters}) {{"
        return "\n".join([opening, *(f"  {line}" for line in self.lines), "}"])

    # Pointers and factors

    def forget(self, *pointers: str) -> None:
        """Starts a row: limbs read through these pointers are read again, not kept (see VEC_FORGET)."""
        for pointer in pointers:
            self.write(f"VEC_FORGET({pointer});")

    def factor(self, name: str, source: str) -> str:
        """Reads a limb into a register of its own."""
        self.write(f"vec {name} = vec_load(&{source});")
        self.write(f"VEC_KEEP({name});")
        return name

    # Columns

    def load(self, column: Column, source: str, low: int, high: int) -> None:
        self.write(f"vec {column.name} = vec_load(&{source});")
        self.bounds(column, low, high)
        self.check(column)

    def store(self, column: Column, target: str) -> None:
        if not column.started:
            self.write(f"vec_store(&{target}, vec_zero());")
            return
        self.check(column)
        self.write(f"vec_store(&{target}, {column.name});")

    def bounds(self, column: Column, low: int, high: int) -> None:
        if low < -COLUMN_MAX or high > COLUMN_MAX:
            raise BoundError(f"{self.name}: column {column.name} may reach {low}..{high}")
        column.low, column.high, column.started = low, high, True

    def check(self, column: Column) -> None:
        """Has the debug build assert what was proved here."""
        self.write(Check(column.name, column.low, column.high))

    def multiply_add(self, half: str, column: Column, a: str, b: str) -> None:
        """column += the low or high half of a b."""
        if column.started:
            self.write(f"{column.name} = vec_madd_{half}({column.name}, {a}, {b});")
        else:
            self.write(f"vec {column.name} = vec_madd_{half}(vec_zero(), {a}, {b});")
        self.bounds(column, column.low, column.high + LIMB)

    def product(self, columns: list[Column], k: int, a: str, b: str) -> None:
        """Adds a b at column k: the low half there, the high half in the next."""
        self.multiply_add("low", columns[k], a, b)
        self.multiply_add("high", columns[k + 1], a, b)

    def copy(self, column: Column, source: Column) -> None:
        """A column that does not hold anything yet starts at another."""
        self.write(f"vec {column.name} = {source.name};")
        self.bounds(column, source.low, source.high)

    def double(self, column: Column) -> None:
        if column.started:
            self.write(f"{column.name} = vec_add({column.name}, {column.name});")
            self.bounds(column, 2 * column.low, 2 * column.high)

    def double_plus_one(self, column: Column) -> None:
        self.write(f"{column.name} = vec_double_plus_one({column.name});")
        self.bounds(column, 2 * column.low + 1, 2 * column.high + 1)

    def start(self, column: Column, constant: str, value: int) -> None:
        """The first value of a column: a constant that the C code has a name for."""
        self.write(f"vec {column.name} = {constant};")
        self.bounds(column, value, value)

    def add(self, column: Column, expression: str, low: int, high: int) -> None:
        if column.started:
            self.write(f"{column.name} = vec_add({column.name}, {expression});")
        else:
            self.write(f"vec {column.name} = {expression};")
        self.bounds(column, column.low + low, column.high + high)

    def carry(self, column: Column, target: Column) -> None:
        """Moves what exceeds 52 bits to the next column. The limb keeps its excess bits: multiplications do not see
        them."""
        self.add(
            target,
            f"vec_shift_right_signed({column.name}, {LIMB_BITS})",
            column.low >> LIMB_BITS,
            column.high >> LIMB_BITS,
        )

    def carry_rounding_up(self, column: Column, target: Column) -> None:
        """The carry after the column was raised to the next multiple of 2^52 (see montgomery.py)."""
        self.bounds(column, column.low, column.high)
        if column.high + LIMB > COLUMN_MAX:
            raise BoundError(f"{self.name}: rounding {column.name} up overflows")
        self.add(
            target,
            f"vec_shift_right_signed(vec_add({column.name}, limb_max), {LIMB_BITS})",
            (column.low + LIMB) >> LIMB_BITS,
            (column.high + LIMB) >> LIMB_BITS,
        )


def columns(prefix: str, count: int) -> list[Column]:
    return [Column(f"{prefix}{k}") for k in range(count)]
