"""Columns of products and squares: the rows that multiplications are made of, and what becomes of complete columns.

Products are loops of a few straight-line rows (ROWS): the live columns slide through the registers, and at the end of
the body they move back to where they began, which costs next to nothing. Without loops the code of one squaring is
larger than the first-level instruction cache (32 KiB), and everything is a fifth slower.
"""

from __future__ import annotations

from collections.abc import Callable

from straight_line import LIMB, Column, Function

# Limbs of a factor, and how many of its rows one pass of a loop does.
ROWS = {10: 2, 15: 3, 20: 4}
PASSES = 5

# What a column of a product under construction may hold when a function begins; montgomery_ifma8.h proves it.
COLUMN_LIMIT = 5 << 60

LIMB_MAX = f"const vec limb_max = vec_all(UINT64_C({LIMB}));"
HALF_LIMB_MAX = f"const vec half_limb_max = vec_all(UINT64_C({LIMB >> 1}));"

Sink = Callable[[Function, Column, Column | None, str], None]
"""What becomes of a complete column: (function, column, the next column, the C expression of the column's number)."""


class Window:
    """The live columns of a product that grows row by row: row i adds to columns i .. i + size.

    Inside a loop over `row`, column row + k is the variable ck. Before the first row the lowest `size` columns are
    there; row r brings column r + size. Columns start at 0; or at `initial[k]`, with the bounds COLUMN_LIMIT, so adding
    to what is there takes no additions; or, `raised`, the lowest `size` at 2^52 - 1 (see square_columns)."""

    def __init__(self, f: Function, size: int, initial: str | None = None, *, raised: bool = False) -> None:
        self.f, self.size, self.initial = f, size, initial
        self.done = 0  # rows
        self.live: list[Column] = []
        for k in range(size):
            column = Column(f"c{k}")
            if initial is not None:
                f.load(column, f"{initial}[{k}]", -COLUMN_LIMIT, COLUMN_LIMIT)
            elif raised:
                f.start(column, "limb_max", LIMB)
            else:
                f.start(column, "vec_zero()", 0)
            self.live.append(column)

    def bring(self, r: int) -> None:
        """Row r begins: column r + size appears."""
        column = Column(f"c{r + self.size}")
        self.live.append(column)
        if self.initial is not None:
            self.f.load(column, f"{self.initial}[row + {r + self.size}]", -COLUMN_LIMIT, COLUMN_LIMIT)

    def rows(self, row: Callable[[int, list[Column]], None], sink: Sink) -> None:
        """Runs row(r, columns from r on) for the next `size` rows, in a loop of a few; then the sink takes the row's
        lowest column."""
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

        end = self.done + self.size
        self.f.loop(f"for (size_t row = {self.done}; row < {end}; row += {step})", PASSES, one_pass)
        self.done = end

    def rest(self, sink: Sink) -> None:
        """After the rows: the upper `size` columns."""
        for k, column in enumerate(self.live):
            following = self.live[k + 1] if k + 1 < self.size else None
            sink(self.f, column, following, str(self.done + k))


def into(columns: str) -> Sink:
    def store(f: Function, column: Column, _next: Column | None, k: str) -> None:
        f.store(column, f"{columns}[{k}]")

    return store


to_columns = into("columns")


def to_nowhere(_f: Function, _column: Column, _next: Column | None, _k: str) -> None:
    """The lowest columns of a reduction: multiples of 2^52 whose carry has been taken."""


def to_result(first: int, *, masked: bool = True) -> Sink:
    """Carries on and stores the limb as number k - first of the result; limb_max must be there. Limbs that are not
    masked keep the bits that were carried on, which multiplications do not see."""

    def carry_out(f: Function, column: Column, following: Column | None, k: str) -> None:
        f.check(column)
        if following is not None:
            f.carry(column, following)
        place = f"{k} - {first}" if first else k
        limb = f"vec_and({column.name}, limb_max)" if masked else column.name
        f.write(f"vec_store(&result[{place}], {limb});")

    return carry_out


def multiply_row(f: Function, live: list[Column], r: int, size: int, x: str, b: str) -> None:
    """live[j] += x b[j]."""
    for j in range(size):
        f.product(live, j, x, f.factor(f"{b}{r}_{j}", f"{b}[{j}]"))


def square_columns(f: Function, size: int, sink: Sink, a: str = "a", *, raised: bool = False) -> None:
    """The columns of a^2: the triangle above the diagonal once, doubled, plus the diagonal. No loop: every row is
    shorter than the one before.

    Raised: the lowest `size` columns come out 2^52 - 1 larger, and the carries of the reduction that follows round up
    without an addition of their own. They start there, or at 2^51 - 1 and are doubled with a 1 shifted in; the C code
    has both constants, as limb_max and half_limb_max."""
    column = [Column(f"p{k}") for k in range(2 * size)]
    if raised:
        f.start(column[0], "limb_max", LIMB)
        for k in range(1, size):
            f.start(column[k], "half_limb_max", LIMB >> 1)
    for i in range(size):
        f.forget(a)
        x = f.factor(f"a{i}", f"{a}[{i}]")
        for j in range(i + 1, size):
            f.product(column, i + j, x, f.factor(f"a{i}_{j}", f"{a}[{j}]"))
        for k, half in ((2 * i, "low"), (2 * i + 1, "high")):
            if raised and 0 < k < size:
                f.double_plus_one(column[k])
            elif k > 0:
                f.double(column[k])
            f.multiply_add(half, column[k], x, x)
            sink(f, column[k], None, str(k))


def product_columns(
    f: Function, size: int, sink: Sink, a: str, b: str, initial: str | None = None, *, raised: bool = False
) -> None:
    """The columns of a b, or of `initial` + a b; raised as in square_columns."""
    window = Window(f, size, initial, raised=raised)

    def row(r: int, live: list[Column]) -> None:
        f.forget(a, b)
        multiply_row(f, live, r, size, f.factor(f"x{r}", f"{a}[row + {r}]"), b)

    window.rows(row, sink)
    window.rest(sink)
