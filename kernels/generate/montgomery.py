"""Writes the Montgomery arithmetic of RSA as C: `montgomery.py OUTPUT.c`. Part of the CMake build.

Numbers are arrays of limbs in radix 2^52, least significant first, each limb a vec: eight numbers at once. With n
limbs R = 2^(52 n). Every modulus N here has at most 52 n - 16 bits, so R > 4 N by far, and

    a, b < 2 N   gives   (a b + q N) / R < (4 N^2 + R N) / R < 2 N :

no final subtraction is ever needed between multiplications (Walter, "Montgomery exponentiation needs no final
subtractions", 1999).

Reduction, one row per limb, with k0 = -N^-1 mod 2^52:

    q = T[i] k0 mod 2^52;   T += q N 2^(52 i)   which makes column i divisible by 2^52.

Of the lowest product only the fact that it rounds column i up to a multiple of 2^52 matters, so instead of multiplying
we add 2^52 - 1 and shift: the carry into column i + 1 is ceil(T[i] / 2^52). That needs no vpmadd52, the one instruction
that limits these kernels. The q of the next row is computed as early as its column is complete, in the middle of the
current row, so its latency is hidden.

That addition of 2^52 - 1 can be saved too: columns whose products have been made for this reduction alone start there
instead of at 0 (`raised`). Then q = (T[i] + 1) k0 mod 2^52 for the raised T[i], whose k0 is where its sum starts.

The window table is scanned whole for every multiplication. Its loads and blends find free ports where all others wait
for the multiplier, so the scan is part of other work: of the reductions of the four squarings before it, a few limbs at
a time (SELECTED). The table of 40 limbs (40 KiB) does not stay in the first-level cache; so even that is hidden.

products.py has the rows, karatsuba.py what is made of halves; montgomery_ifma8.c puts tiles together.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from karatsuba import Target, fold_corner, fold_into, product_of_halves, square_of_halves
from products import (
    HALF_LIMB_MAX,
    LIMB_MAX,
    PASSES,
    Sink,
    Window,
    product_columns,
    square_columns,
    to_columns,
    to_nowhere,
    to_result,
)
from straight_line import Column, Function

FUSED_SIZE = 20  # the size that is done in one function

WINDOW_BITS = 4
ENTRIES = 1 << WINDOW_BITS
# Tiles, and how many limbs of a table entry a pass of their reduction's loop selects on the side. The four squarings
# before a multiplication have four reductions of 20 limbs (one limb per pass), eight of tiles of 15, or four of tiles
# of 20: enough for 20, 30 and 40 limbs.
SELECTED = {15: 1, 20: 2}


def quotient(f: Function, name: str, column: str, *, raised: bool) -> None:
    """q = T k0 mod 2^52 of a column T, or of one that has been raised by 2^52 - 1."""
    f.write(f"vec {name} = vec_madd_low({'k0' if raised else 'vec_zero()'}, {column}, k0);")


def reduce_row(f: Function, live: list[Column], r: int, size: int, *, raised: bool) -> None:
    """live += q N; live[0] is consumed. The q of the next row is computed on the way, as q{r}."""
    if raised:
        f.carry(live[0], live[1])
    else:
        f.carry_rounding_up(live[0], live[1])
    f.multiply_add("high", live[1], "q", f.factor(f"modulus{r}_0", "modulus[0]"))
    for j in range(1, size):
        f.product(live, j, "q", f.factor(f"modulus{r}_{j}", f"modulus[{j}]"))
        if j == 1:
            quotient(f, f"q{r}", live[1].name, raised=raised)


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


def select_beside(f: Function, stride: int, limbs: int) -> Callable[[int], None]:
    """For each row of a reduction: the first rows of a pass select a limb each."""

    def select(r: int) -> None:
        if r < limbs:
            f.forget("table")
            f.block(lambda: f.write(f"vec_store(selected, {select_limb(f, stride)});"))
            f.write("selected++;")
            f.write("table++;")

    return select


SELECTION = "const vec *table, vec_mask bit0, vec_mask bit1, vec_mask bit2, vec_mask bit3"


# Tiles: of 15 limbs in one piece, of 20 limbs made of halves


PARAMETERS = {
    Target.COLUMNS: "vec *columns, const vec *a, const vec *b, vec *spare",
    Target.SUM: "vec *columns, const vec *a, const tile_factor *factor, vec *spare",
    Target.RESULT: "vec *result, vec *columns, const vec *a, const tile_factor *factor, vec *spare",
}
NAMES = {Target.COLUMNS: "product", Target.SUM: "add_product", Target.RESULT: "finish"}


def tile_square(size: int, name: str, *, halves: bool) -> Function:
    f = Function(f"tile_{name}_{size}", "vec *columns, const vec *a, vec *spare", f"columns = a^2, {size} limbs.")
    if halves:
        f.write(LIMB_MAX)
        square_of_halves(f, size)
    else:
        f.write("(void)spare;")
        square_columns(f, size, to_columns)
    return f


def tile_product(size: int, target: Target, *, halves: bool) -> Function:
    """`factor` is b with what is kept of it, and `spare` scratch of 3 halves."""
    f = Function(f"tile_{NAMES[target]}_{size}", PARAMETERS[target], f"{target.value}; {size} limbs.")
    add = target is not Target.COLUMNS
    if add:
        f.write("const vec *b = factor->limbs;")
    if not halves:
        if target is Target.RESULT:
            f.write(LIMB_MAX)
        sink = to_result(0) if target is Target.RESULT else to_columns
        product_columns(f, size, sink, "a", "b", "columns" if add else None)
        return f
    f.write(LIMB_MAX)
    f.write("vec *d = spare;")
    if add:
        f.write(f"vec *kept = spare + {size // 2};")
        f.write("const vec *e = factor->difference;")
        f.write("vec_mask d_negative, e_negative = factor->negative;")
    else:
        f.write(f"vec *e = spare + {size // 2};")
        f.write("vec_mask d_negative, e_negative;")
    product_of_halves(f, size, target)
    return f


def tile_fold_square(size: int) -> Function:
    f = Function(
        f"tile_fold_square_{size}",
        "vec *columns, const vec *a, vec_mask a_negative",
        f"The {4 * size} columns of a_0^2 and a_1^2 become those of (a_0 + B a_1)^2, given a = a_0 - a_1.",
    )
    square_columns(f, size, fold_into(size, "a"))
    fold_corner(f, size, "a")
    return f


# Reduction


def reduce_columns(
    f: Function, size: int, sink: Sink, each_row: Callable[[int], None] | None = None, *, raised: bool = False
) -> None:
    """Adds q N to `columns` so that the lowest `size` (raised or not) become multiples of 2^(52 size); the sink gets
    the upper ones."""
    f.forget("columns")  # else gcc keeps what was just stored there, and spills it
    window = Window(f, size, "columns")
    quotient(f, "q", "c0", raised=raised)

    def row(r: int, live: list[Column]) -> None:
        f.forget("modulus")
        if each_row is not None:
            each_row(r)
        reduce_row(f, live, r, size, raised=raised)
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
        comment += f" Also selects {PASSES * SELECTED[size]} limbs, those at `table`, of an entry."
    f = Function(f"tile_reduce_{'selecting_' if selecting else ''}{size}", parameters, comment)

    f.write(LIMB_MAX)
    select = select_beside(f, 2 * size, SELECTED[size]) if selecting else None

    def each_row(r: int) -> None:
        f.write(f"vec_store(&quotient[row + {r}], q);")
        if select is not None:
            select(r)

    reduce_columns(f, size, to_columns, each_row)
    return f


# 20 limbs in one function: a product, made of two halves of 10 or directly, and one reduction


def fused(name: str, parameters: str, comment: str) -> Function:
    f = Function(name, parameters, comment)
    f.write(LIMB_MAX)
    return f


def fused_square(size: int, *, halves: bool, selecting: bool) -> Function:
    half = size // 2
    comment = (
        f"result = a^2 / R mod N, below 2 N. `columns` and `spare` are scratch, {2 * size} and {half} limbs; `result` "
        "may be a."
    )
    if not halves:
        comment += " Limbs of the result keep bits above 52 that the next one has been given."
    if selecting:
        comment += f" Also selects {PASSES} limbs, those at `table`, of an entry."
    f = fused(
        f"montgomery_square_{'' if halves else 'direct_'}{'selecting_' if selecting else ''}{size}",
        "vec *result, const vec *a, const vec *modulus, vec k0, vec *columns, vec *spare"
        + (f", {SELECTION}, vec *selected" if selecting else ""),
        comment,
    )
    if halves:
        square_of_halves(f, size)
    else:
        f.write(HALF_LIMB_MAX)
        f.write("(void)spare;")
        f.block(lambda: square_columns(f, size, to_columns, raised=True))
    beside = select_beside(f, size, 1) if selecting else None
    reduce_columns(f, size, to_result(size, masked=halves), beside, raised=not halves)
    return f


def fused_multiply(size: int, *, halves: bool) -> Function:
    half = size // 2
    f = fused(
        f"montgomery_multiply_{'' if halves else 'direct_'}{size}",
        "vec *result, const vec *a, const vec *b, const vec *modulus, vec k0, vec *columns, vec *d, vec *e",
        f"result = a b / R mod N, below 2 N. `columns`, `d` and `e` are scratch, {2 * size} and {half} limbs; `result` "
        "may be a or b.",
    )
    if halves:
        f.write("vec_mask d_negative, e_negative;")
        product_of_halves(f, size, Target.COLUMNS)
    else:
        f.write("(void)d;")
        f.write("(void)e;")
        f.block(lambda: product_columns(f, size, to_columns, "a", "b", raised=True))
    reduce_columns(f, size, to_result(size), raised=not halves)
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
    made = [fused_reduce(FUSED_SIZE)]
    for halves in (True, False):
        made += [
            fused_square(FUSED_SIZE, halves=halves, selecting=False),
            fused_square(FUSED_SIZE, halves=halves, selecting=True),
            fused_multiply(FUSED_SIZE, halves=halves),
        ]
    for size in SELECTED:
        halves = size % 2 == 0
        made += [tile_square(size, "square", halves=halves)]
        if halves:
            made += [tile_square(size, "square_direct", halves=False)]
        made += [
            *(tile_product(size, target, halves=halves) for target in Target),
            tile_fold_square(size),
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
