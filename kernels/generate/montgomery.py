"""Writes the Montgomery arithmetic of RSA as C: `montgomery.py OUTPUT.c`. Part of the CMake build.

Numbers are arrays of limbs in radix 2^52, least significant first, each limb a vec: eight numbers at once. With n
limbs R = 2^(52 n). Every modulus N here has at most 52 n - 16 bits, so R > 4 N by far, and

    a, b < 2 N   gives   (a b + q N) / R < (4 N^2 + R N) / R < 2 N :

no final subtraction is ever needed between multiplications (Walter, "Montgomery exponentiation needs no final
subtractions", 1999).

Products are made of two halves by Karatsuba's identity (fold_into): three products of half the size instead of four.
Its additions run on ports that the multiplications leave idle.

Reduction, one row per limb, with k0 = -N^-1 mod 2^52:

    q = T[i] k0 mod 2^52;   T += q N 2^(52 i)   which makes column i divisible by 2^52.

Of the lowest product only the fact that it rounds column i up to a multiple of 2^52 matters, so instead of multiplying
we add 2^52 - 1 and shift: the carry into column i + 1 is ceil(T[i] / 2^52). That needs no vpmadd52, the one instruction
that limits these kernels. The q of the next row is computed as early as its column is complete, in the middle of the
current row, so its latency is hidden.

The window table is scanned whole for every multiplication. Its loads and blends find free ports where all others wait
for the multiplier, so the scan is part of other work: of the reductions of the four squarings before it, a few limbs at
a time (SELECTED_LIMBS). The table of 40 limbs (40 KiB) does not stay in the first-level cache; so even that is hidden.

Products and reductions are loops of a few straight-line rows (ROWS): the live columns slide through the registers, and
at the end of the body they move back to where they began, which costs next to nothing. Without loops the code of one
squaring is larger than the first-level instruction cache (32 KiB), and everything is a fifth slower.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from straight_line import LIMB, LIMB_BITS, Column, Function

# Limbs of a tile, and how many of its rows one pass of a loop does.
ROWS = {10: 2, 15: 3, 20: 4}
PASSES = 5
TILE_SIZES = (15, 20)
FUSED_SIZE = 20  # the size that is done in one function

# What a column of a product under construction may hold when a tile begins; montgomery_ifma8.h proves it.
COLUMN_LIMIT = 1 << 62

LAG = 6  # see Window

WINDOW_BITS = 4
ENTRIES = 1 << WINDOW_BITS
# A reduction selects this many limbs beside its work, one in each pass. The four squarings before a multiplication have
# four reductions of 20 limbs, or eight tiles of 15 or 20: enough for 20, 30 and 40 limbs.
SELECTED_LIMBS = PASSES

Sink = Callable[[Function, Column, Column | None, str], None]
"""What becomes of a complete column: (function, column, the next column, the C expression of the column's number)."""


class Window:
    """The live columns of a product that grows row by row: row i adds to columns i .. i + size.

    Inside a loop over `row`, column row + k is the variable ck. Before the first row the lowest `size` columns are
    there; row r brings column r + size. What is in `columns` already is added LAG rows before a column is complete, so
    that a row does not wait for what the code before it is still computing."""

    def __init__(self, f: Function, size: int, *, accumulate: bool) -> None:
        """Columns start at 0; if they accumulate, what is in `columns` is added (with the bounds COLUMN_LIMIT)."""
        self.f, self.size, self.accumulate = f, size, accumulate
        self.live: list[Column] = []
        for k in range(size):
            column = Column(f"c{k}")
            if accumulate and k < LAG:
                f.load(column, f"columns[{k}]", -COLUMN_LIMIT, COLUMN_LIMIT)
            else:
                f.write(f"vec c{k} = vec_zero();")
                f.bounds(column, 0, 0)
            self.live.append(column)

    def bring(self, r: int) -> None:
        """Row r begins: column r + size appears."""
        self.live.append(Column(f"c{r + self.size}"))
        if self.accumulate:
            self.join(self.live[r + LAG], f"row + {r + LAG}")

    def join(self, column: Column, k: str) -> None:
        self.f.add(column, f"vec_load(&columns[{k}])", -COLUMN_LIMIT, COLUMN_LIMIT)

    def rows(self, row: Callable[[int, list[Column]], None], sink: Sink) -> None:
        """Runs row(r, columns from r on) for all rows, in a loop of a few; then the sink takes the row's lowest
        column."""
        step = ROWS[self.size]

        def one_pass(_turn: int) -> None:
            for r in range(step):
                self.bring(r)
                row(r, self.live[r:])
                sink(self.f, self.live[r], self.live[r + 1], f"row + {r}")
            for k in range(self.size):
                moved = self.live[k + step]
                self.f.write(f"c{k} = {moved.name};")
                self.live[k] = Column(f"c{k}", moved.low, moved.high, True)
            del self.live[self.size :]

        self.f.loop(f"for (size_t row = 0; row < {self.size}; row += {step})", PASSES, one_pass)

    def rest(self, sink: Sink) -> None:
        """After the rows: the upper `size` columns."""
        for k, column in enumerate(self.live):
            if self.accumulate and k >= LAG:
                self.join(column, str(self.size + k))
            following = self.live[k + 1] if k + 1 < self.size else None
            sink(self.f, column, following, str(self.size + k))


def into(columns: str) -> Sink:
    def store(f: Function, column: Column, _next: Column | None, k: str) -> None:
        f.store(column, f"{columns}[{k}]")

    return store


to_columns = into("columns")


def to_nowhere(_f: Function, _column: Column, _next: Column | None, _k: str) -> None:
    """The lowest columns of a reduction: multiples of 2^52 whose carry has been taken."""


def to_result(first: int) -> Sink:
    """Carries on and stores the limb as number k - first of the result; limb_max must be there."""

    def carry_out(f: Function, column: Column, following: Column | None, k: str) -> None:
        f.check(column)
        if following is not None:
            f.carry(column, following)
        place = f"{k} - {first}" if first else k
        f.write(f"vec_store(&result[{place}], vec_and({column.name}, limb_max));")

    return carry_out


def multiply_row(f: Function, live: list[Column], r: int, size: int, x: str, b: str, start: int = 0) -> None:
    """live[j] += x b[j] for j from `start`."""
    for j in range(start, size):
        f.product(live, j, x, f.factor(f"{b}{r}_{j}", f"{b}[{j}]"))


def reduce_row(f: Function, live: list[Column], r: int, size: int, q: str, next_q: str | None = None) -> None:
    """live += q N; live[0] is consumed. The q of the next row is computed on the way if it has a name."""
    f.carry_rounding_up(live[0], live[1])
    f.multiply_add("high", live[1], q, f.factor(f"modulus{r}_0", "modulus[0]"))
    for j in range(1, size):
        f.product(live, j, q, f.factor(f"modulus{r}_{j}", f"modulus[{j}]"))
        if j == 1 and next_q is not None:
            f.write(f"vec {next_q} = vec_madd_low(vec_zero(), {live[1].name}, k0);")


def select_limb(f: Function, stride: int) -> str:
    """The limb at `table` of the entry whose number has the bits of bit0 to bit3 in each lane: a tree of blends that
    reads all entries, the same way for every number; depth first, so that few registers are alive. The loads stand by
    themselves: gcc would make them masked loads, and whether a processor takes the same time for those with every mask
    is not known."""

    def node(bit: int, first: int) -> str:
        if bit < 0:
            return f.factor(f"entry{first}", f"table[{first * stride}]")
        clear = node(bit - 1, first)
        is_set = node(bit - 1, first + (1 << bit))
        name = f"entry{bit}_{first}"
        f.write(f"vec {name} = vec_select(bit{bit}, {is_set}, {clear});")
        return name

    return node(WINDOW_BITS - 1, 0)


def select_beside(f: Function, stride: int) -> Callable[[int], None]:
    """For each row of a reduction: the first row of a pass selects one limb."""

    def select(r: int) -> None:
        if r == 0:
            f.forget("table")
            f.block(lambda: f.write(f"vec_store(selected, {select_limb(f, stride)});"))
            f.write("selected++;")
            f.write("table++;")

    return select


SELECTION = "const vec *table, vec_mask bit0, vec_mask bit1, vec_mask bit2, vec_mask bit3"
LIMB_MAX = f"const vec limb_max = vec_all(UINT64_C({LIMB}));"


# Columns of a^2 and of a b


def square_columns(f: Function, size: int, sink: Sink, a: str = "a") -> None:
    """The columns of a^2: the triangle above the diagonal once, doubled, plus the diagonal. No loop: every row is
    shorter than the one before."""
    column = [Column(f"p{k}") for k in range(2 * size)]
    for i in range(size):
        f.forget(a)
        x = f.factor(f"a{i}", f"{a}[{i}]")
        for j in range(i + 1, size):
            f.product(column, i + j, x, f.factor(f"a{i}_{j}", f"{a}[{j}]"))
        for k, half in ((2 * i, "low"), (2 * i + 1, "high")):
            f.double(column[k])
            f.multiply_add(half, column[k], x, x)
            sink(f, column[k], None, str(k))


def product_columns(
    f: Function, size: int, sink: Sink, a: str = "a", b: str = "b", *, accumulate: bool = False
) -> None:
    window = Window(f, size, accumulate=accumulate)

    def row(r: int, live: list[Column]) -> None:
        f.forget(a, b)
        multiply_row(f, live, r, size, f.factor(f"x{r}", f"{a}[row + {r}]"), b)

    window.rows(row, sink)
    window.rest(sink)


def tile_square(size: int) -> Function:
    f = Function(
        f"tile_square_{size}",
        "vec *columns, const vec *a",
        f"columns[0 .. {2 * size - 1}] = a^2, {size} limbs.",
    )
    square_columns(f, size, to_columns)
    return f


def tile_product(size: int, *, accumulate: bool = False) -> Function:
    f = Function(
        f"tile_{'add_' if accumulate else ''}product_{size}",
        "vec *columns, const vec *a, const vec *b",
        f"columns[0 .. {2 * size - 1}] {'+' if accumulate else ''}= a b, {size} limbs each.",
    )
    product_columns(f, size, to_columns, accumulate=accumulate)
    return f


def tile_finish(size: int) -> Function:
    """The last tile of a reduction of two tiles: carries run through the columns as they become complete."""
    f = Function(
        f"tile_finish_{size}",
        "vec *result, const vec *columns, const vec *a, const vec *b",
        f"result[0 .. {2 * size - 1}] = columns + a b, carried, limbs below 2^52.",
    )
    f.write(LIMB_MAX)
    product_columns(f, size, to_result(0), accumulate=True)
    return f


# Karatsuba's middle term of two tiles


def fold_into(size: int, d: str, e: str) -> Sink:
    """The sink that adds Karatsuba's middle term while it is computed.

    `columns` hold A = a_0 b_0 in their lower half and C = a_1 b_1 in their upper half; the column that is complete is
    one of E = S S' with the differences d = S - s B and e = S' - s' B (B is 2^(52 size), s = 1 where the difference is
    negative). To be added at B: A + C - d e = A + C - E + B (s S' + s' S) - s s' B^2. Column k < size of E comes with
    everything that goes to columns size + k and 2 size + k, except the upper half of E, which is subtracted when its
    own columns are complete."""

    def fold(f: Function, column: Column, _next: Column | None, k: str) -> None:
        f.check(column)
        name = column.name
        if k.isdigit() and int(k) >= size:
            place = f"columns[{size + int(k)}]"
            f.write(f"vec_store(&{place}, vec_sub(vec_load(&{place}), {name}));")
            return
        tag = k.split()[-1]
        f.write(f"vec both{tag} = vec_add(vec_load(&columns[{size} + {k}]), vec_load(&columns[{2 * size} + {k}]));")
        f.write(f"vec low{tag} = vec_sub(vec_load(&columns[{k}]), {name});")
        f.write(f"vec_store(&columns[{size} + {k}], vec_add(both{tag}, low{tag}));")
        f.write(f"vec high{tag} = vec_add(both{tag}, vec_load(&columns[{3 * size} + {k}]));")
        f.write(f"high{tag} = vec_masked_add({d}_negative, high{tag}, vec_load(&{e}[{k}]));")
        f.write(f"high{tag} = vec_masked_add({e}_negative, high{tag}, vec_load(&{d}[{k}]));")
        f.write(f"vec_store(&columns[{2 * size} + {k}], high{tag});")

    return fold


def fold_corner(f: Function, size: int, d: str, e: str) -> None:
    f.write(f"vec corner = vec_load(&columns[{3 * size}]);")
    f.write(f"corner = vec_masked_sub({d}_negative & {e}_negative, corner, vec_all(1));")
    f.write(f"vec_store(&columns[{3 * size}], corner);")


def tile_fold_square(size: int) -> Function:
    f = Function(
        f"tile_fold_square_{size}",
        "vec *columns, const vec *a, vec_mask a_negative",
        f"The {4 * size} columns of a_0^2 and a_1^2 become those of (a_0 + B a_1)^2, given a = a_0 - a_1.",
    )
    square_columns(f, size, fold_into(size, "a", "a"))
    fold_corner(f, size, "a", "a")
    return f


def tile_fold_product(size: int) -> Function:
    f = Function(
        f"tile_fold_product_{size}",
        "vec *columns, const vec *a, vec_mask a_negative, const vec *b, vec_mask b_negative",
        f"The {4 * size} columns of a_0 b_0 and a_1 b_1 become those of (a_0 + B a_1) (b_0 + B b_1), given "
        "a = a_0 - a_1 and b = b_0 - b_1.",
    )
    product_columns(f, size, fold_into(size, "a", "b"))
    fold_corner(f, size, "a", "b")
    return f


# Reduction


def reduce_columns(f: Function, size: int, sink: Sink, each_row: Callable[[int], None] | None = None) -> None:
    """Adds q N to `columns` so that the lowest `size` become multiples of 2^(52 size); the sink gets the upper ones."""
    window = Window(f, size, accumulate=True)
    f.write("vec q = vec_madd_low(vec_zero(), c0, k0);")

    def row(r: int, live: list[Column]) -> None:
        f.forget("modulus")
        if each_row is not None:
            each_row(r)
        reduce_row(f, live, r, size, "q", next_q=f"q{r}")
        f.write(f"q = q{r};")

    window.rows(row, to_nowhere)
    window.rest(sink)


def tile_reduce(size: int, *, selecting: bool = False) -> Function:
    """The tile on the diagonal of a reduction: the quotients depend on each other, limb by limb."""
    parameters = "vec *columns, vec *quotient, const vec *modulus, vec k0"
    comment = (
        f"columns += quotient N for the {size} lowest limbs of N, such that the lowest {size} columns vanish; their "
        "carry goes to the next column."
    )
    if selecting:
        parameters += f", {SELECTION}, vec *selected"
        comment += f" Also selects {SELECTED_LIMBS} limbs, those at `table`, of an entry of {2 * size} limbs."
    f = Function(f"tile_reduce_{'selecting_' if selecting else ''}{size}", parameters, comment)

    f.write(LIMB_MAX)
    select = select_beside(f, 2 * size) if selecting else None

    def each_row(r: int) -> None:
        f.write(f"vec_store(&quotient[row + {r}], q);")
        if select is not None:
            select(r)

    reduce_columns(f, size, to_columns, each_row)
    return f


# 20 limbs in one function: products of two halves of 10, one reduction


def subtract_halves(f: Function, half: int, number: str, difference: str) -> None:
    """difference = the lower half of a number minus its upper half, and whether that is negative (then 2^(52 half) has
    been added)."""
    f.write("{")
    f.write("vec carry = vec_zero();")
    for k in range(half):
        f.write(f"vec limb{k} = vec_sub(vec_load(&{number}[{k}]), vec_load(&{number}[{half + k}]));")
        f.write(f"limb{k} = vec_add(limb{k}, carry);")
        f.write(f"carry = vec_shift_right_signed(limb{k}, {LIMB_BITS});")
        f.write(f"vec_store(&{difference}[{k}], vec_and(limb{k}, limb_max));")
    f.write(f"{difference}_negative = vec_negative(carry);")
    f.write("}")


def fused(name: str, parameters: str, comment: str) -> Function:
    f = Function(name, parameters, comment)
    f.write(LIMB_MAX)
    return f


def fused_square(size: int, *, selecting: bool) -> Function:
    half = size // 2
    f = fused(
        f"montgomery_square_{'selecting_' if selecting else ''}{size}",
        "vec *result, const vec *a, const vec *modulus, vec k0, vec *columns, vec *d"
        + (f", {SELECTION}, vec *selected" if selecting else ""),
        f"result = a^2 / R mod N, below 2 N. `columns` and `d` are scratch, {2 * size} and {half} limbs; `result` may "
        "be a." + (f" Also selects {SELECTED_LIMBS} limbs, those at `table`, of an entry." if selecting else ""),
    )
    f.write(f"const vec *a_high = a + {half};")
    f.write(f"vec *columns_high = columns + {size};")
    f.write("vec_mask d_negative;")
    f.block(lambda: square_columns(f, half, to_columns))
    subtract_halves(f, half, "a", "d")
    f.block(lambda: square_columns(f, half, into("columns_high"), "a_high"))
    f.block(lambda: square_columns(f, half, fold_into(half, "d", "d"), "d"))
    fold_corner(f, half, "d", "d")
    reduce_columns(f, size, to_result(size), select_beside(f, size) if selecting else None)
    return f


def fused_multiply(size: int) -> Function:
    half = size // 2
    f = fused(
        f"montgomery_multiply_{size}",
        "vec *result, const vec *a, const vec *b, const vec *modulus, vec k0, vec *columns, vec *d, vec *e",
        f"result = a b / R mod N, below 2 N. `columns`, `d` and `e` are scratch, {2 * size} and {half} limbs; `result` "
        "may be a or b.",
    )
    f.write(f"const vec *a_high = a + {half}, *b_high = b + {half};")
    f.write(f"vec *columns_high = columns + {size};")
    f.write("vec_mask d_negative, e_negative;")
    f.block(lambda: product_columns(f, half, to_columns))
    subtract_halves(f, half, "a", "d")
    subtract_halves(f, half, "b", "e")
    f.block(lambda: product_columns(f, half, into("columns_high"), "a_high", "b_high"))
    f.block(lambda: product_columns(f, half, fold_into(half, "d", "e"), "d", "e"))
    fold_corner(f, half, "d", "e")
    reduce_columns(f, size, to_result(size))
    return f


def fused_reduce(size: int) -> Function:
    f = fused(
        f"montgomery_reduce_{size}",
        "vec *result, const vec *columns, const vec *modulus, vec k0",
        f"result = T / R mod N for the number T in {2 * size} columns; at most N + T / R.",
    )
    reduce_columns(f, size, to_result(size))
    return f


def functions() -> list[Function]:
    made = [
        fused_square(FUSED_SIZE, selecting=False),
        fused_square(FUSED_SIZE, selecting=True),
        fused_multiply(FUSED_SIZE),
        fused_reduce(FUSED_SIZE),
    ]
    for size in TILE_SIZES:
        made += [
            tile_square(size),
            tile_product(size),
            tile_product(size, accumulate=True),
            tile_finish(size),
            tile_fold_square(size),
            tile_fold_product(size),
            tile_reduce(size),
            tile_reduce(size, selecting=True),
        ]
    return made


def main(output: str) -> None:
    head = [
        "/* Generated by kernels/generate/montgomery.py when the library is built: change that, not this.",
        " * Eight-lane Montgomery arithmetic in radix 2^52; the script explains it. All limbs and masks are secret;",
        " * nothing branches on them, and every address is public. */",
        '#include "kernels/ifma8/montgomery_ifma8.h"',
        "",
    ]
    Path(output).write_text("\n".join(head) + "\n" + "\n\n".join(f.text() for f in functions()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
