"""Squares and products from those of halves, by Karatsuba's identity: three instead of four.

What is saved in multiplications is paid in additions. Where the processor does one 512-bit multiplication per cycle
(Zen 4), an addition costs 0.3 to 0.5 of one; so few of them matter.
"""

from __future__ import annotations

from enum import Enum

from products import Sink, Window, into, product_columns, square_columns, to_columns
from straight_line import LIMB_BITS, Column, Function


class Target(Enum):
    """What becomes of a product."""

    COLUMNS = "columns = a b"
    SUM = "columns += a b"
    RESULT = "result = columns + a b, carried, limbs below 2^52; `columns` are used up"


class Difference:
    """difference = the lower half of a number minus its upper half, or the reverse, and whether that is negative (then
    2^(52 half) has been added). A limb at a time, so that the long chain of carries can run beside multiplications."""

    def __init__(self, f: Function, half: int, number: str, name: str, *, upwards: bool = False) -> None:
        self.f, self.half, self.number, self.name, self.upwards = f, half, number, name, upwards
        f.write(f"vec {name}_carry = vec_zero();")

    def limb(self, r: int, k: str) -> None:
        """Limb k; r makes the names of a pass different."""
        f, limb = self.f, f"{self.name}_limb{r}"
        low, high = (f"vec_load(&{self.number}[{place}])" for place in (k, f"{k} + {self.half}"))
        f.write(f"vec {limb} = vec_sub({high}, {low});" if self.upwards else f"vec {limb} = vec_sub({low}, {high});")
        f.write(f"{limb} = vec_add({limb}, {self.name}_carry);")
        f.write(f"{self.name}_carry = vec_shift_right_signed({limb}, {LIMB_BITS});")
        f.write(f"vec_store(&{self.name}[{k}], vec_and({limb}, limb_max));")

    def end(self) -> None:
        self.f.write(f"{self.name}_negative = vec_negative({self.name}_carry);")


# Squares


def square_of_halves(f: Function, size: int) -> None:
    """columns = a^2 from the squares of the halves and of their difference, which goes to `spare`."""
    half = size // 2
    f.write(f"const vec *a_high = a + {half};")
    f.write(f"vec *columns_high = columns + {size}, *d = spare;")
    f.write("vec_mask d_negative;")
    f.block(lambda: square_columns(f, half, to_columns))
    # Here, so that its long chain of carries runs beside multiplications.
    difference = Difference(f, half, "a", "d")
    for k in range(half):
        difference.limb(k, str(k))
    difference.end()
    f.block(lambda: square_columns(f, half, into("columns_high"), "a_high"))
    f.block(lambda: square_columns(f, half, fold_into(half, "d"), "d"))
    fold_corner(f, half, "d")


def fold_into(size: int, d: str) -> Sink:
    """The sink that adds Karatsuba's middle term of a square while it is computed.

    `columns` hold A = a_0^2 in their lower half and C = a_1^2 in their upper half; the column that is complete is one
    of E = S^2 with the difference d = a_0 - a_1 = S - s B (B is 2^(52 size), s = 1 where the difference is negative).
    To be added at B: A + C - d^2 = A + C - E + 2 B s S - s B^2. Column k < size of E comes with everything that goes to
    columns size + k and 2 size + k, except the upper half of E, which is subtracted when its own columns are
    complete."""

    def fold(f: Function, column: Column, _next: Column | None, k: str) -> None:
        f.check(column)
        name = column.name
        if int(k) >= size:
            place = f"columns[{size + int(k)}]"
            f.write(f"vec_store(&{place}, vec_sub(vec_load(&{place}), {name}));")
            return
        f.write(f"vec both{k} = vec_add(vec_load(&columns[{size} + {k}]), vec_load(&columns[{2 * size} + {k}]));")
        f.write(f"vec low{k} = vec_sub(vec_load(&columns[{k}]), {name});")
        f.write(f"vec_store(&columns[{size} + {k}], vec_add(both{k}, low{k}));")
        f.write(f"vec high{k} = vec_add(both{k}, vec_load(&columns[{3 * size} + {k}]));")
        for _ in range(2):
            f.write(f"high{k} = vec_masked_add({d}_negative, high{k}, vec_load(&{d}[{k}]));")
        f.write(f"vec_store(&columns[{2 * size} + {k}], high{k});")

    return fold


def fold_corner(f: Function, size: int, d: str) -> None:
    f.write(f"vec corner = vec_load(&columns[{3 * size}]);")
    f.write(f"corner = vec_masked_sub({d}_negative, corner, vec_all(1));")
    f.write(f"vec_store(&columns[{3 * size}], corner);")


# Products


def product_of_halves(f: Function, size: int, target: Target) -> None:
    """a b. With halves a0, a1, b0, b1, B = 2^(52 half), d = a0 - a1 and e = b1 - b0:

        a b = a0 b0 + B (a0 b0 + a1 b1 + d e) + B^2 a1 b1 = (1 + B) W + B d e,   W = a0 b0 + B a1 b1 .

    W is one window of three halves of columns: `size` rows, half of them with b0, half with b1. (1 + B) W is made on
    the way: column k + half does not start at 0 but at the complete column k, which is no addition. So columns below
    `size` are those of (1 + B) W; column k above has W[k] + W[k - half] + W[k - size], and the lowest are taken off
    again. `kept` is where they are kept if `columns` cannot, being added to.

    The columns of d e start at what is there then. In limbs d = D - s B and e = E - t B, with s and t 0 or 1:
    d e = D E - B (s E + t D) + s t B^2."""
    half = size // 2
    add, finish = target is not Target.COLUMNS, target is Target.RESULT
    kept = "kept" if add else "columns"
    f.write(f"const vec *b_high = b + {half};")
    if finish:
        f.write("vec carry = vec_zero();")

    def put(k: str, value: str) -> None:
        f.write(f"vec_store(&columns[{k}], {f'vec_add(vec_load(&columns[{k}]), {value})' if add else value});")

    def lowest(_f: Function, column: Column, _next: Column | None, k: str) -> None:
        f.store(column, f"{kept}[{k}]")
        if finish:
            finish_column(f, f"vec_add(vec_load(&columns[{k}]), {column.name})", k)
        elif add:
            put(k, column.name)

    def middle(_f: Function, column: Column, _next: Column | None, k: str) -> None:
        f.store(column, f"{kept}[{k}]")
        if add:
            put(k, column.name)

    def highest(_f: Function, column: Column, _next: Column | None, k: str) -> None:
        f.check(column)
        put(k, f"vec_sub({column.name}, vec_load(&{kept}[{k} - {size}]))")
        put(f"{k} + {half}", f"vec_sub({column.name}, vec_load(&{kept}[{k} - {half}]))")

    def both() -> None:
        window = Window(f, half)
        made = [Difference(f, half, "a", "d")]
        if not add:
            made.append(Difference(f, half, "b", "e", upwards=True))
        window.rows(lambda r, live: row(r, live, "b", made), lowest)
        for difference in made:
            difference.end()
        window.rows(lambda r, live: row(r, live, "b_high", []), middle)
        window.rest(highest)

    def row(r: int, live: list[Column], factor: str, beside: list[Difference]) -> None:
        f.forget("a", factor)
        for difference in beside:
            difference.limb(r, f"row + {r}")
        limb = f.factor(f"a{r}", f"a[row + {r}]")
        for j in range(half):
            if j == half - 1:
                f.copy(live[half], live[0])
            f.product(live, j, limb, f.factor(f"b{r}_{j}", f"{factor}[{j}]"))

    def differences(_f: Function, column: Column, _next: Column | None, k: str) -> None:
        f.check(column)
        if k.isdigit():
            place = int(k) - half
            for negative, other in (("d_negative", f"e[{place}]"), ("e_negative", f"d[{place}]")):
                f.write(f"{column.name} = vec_masked_sub({negative}, {column.name}, vec_load(&{other}));")
        if finish:
            finish_column(f, column.name, f"{half} + {k}")
        else:
            f.write(f"vec_store(&columns[{half} + {k}], {column.name});")

    f.block(both)
    f.write(f"const vec *initial = columns + {half};")
    f.block(lambda: product_columns(f, half, differences, "d", "e", "initial"))
    f.write(f"vec corner = vec_load(&columns[{size + half}]);")
    f.write("corner = vec_masked_add(d_negative & e_negative, corner, vec_all(1));")
    if finish:
        for k in range(size + half, 2 * size):
            finish_column(f, "corner" if k == size + half else f"vec_load(&columns[{k}])", str(k))
    else:
        f.write(f"vec_store(&columns[{size + half}], corner);")


def finish_column(f: Function, column: str, k: str) -> None:
    """Column k with its carry becomes limb k of the result."""
    f.write(f"carry = vec_add(carry, {column});")
    f.write(f"vec_store(&result[{k}], vec_and(carry, limb_max));")
    f.write(f"carry = vec_shift_right_signed(carry, {LIMB_BITS});")
