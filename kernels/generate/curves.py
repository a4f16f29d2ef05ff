"""Writes the constants and the comb tables of the 8-lane curve kernels.

    python kernels/generate/curves.py p256 --constants p256_constants.h --table p256_comb.c

What each constant means stands beside it in the output. The tables are multiples of the base point, affine, cut into
limbs of 52 bits, in the order in which the kernels read them:

    table[window][part][entry]    part: limbs of x, limbs of y, tag      entry 0 .. 63: the odd multiple 2 * entry + 1

so that the 64 entries of one limb are eight AVX-512 registers in a row. Entry e of window w is (2 e + 1) 2^(7 w) G, and
its tag is (2 e + 1) 2^(7 w) mod 2^52 - 1: the kernels add the tags of what they looked up, and compare with the nonce.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

LIMB_BITS = 52
WINDOW_BITS = 7
ENTRIES = 1 << (WINDOW_BITS - 1)
TAG_MODULUS = (1 << LIMB_BITS) - 1
# Inversion: how many bits a batch of division steps removes (divsteps_ifma8.h).
DIVSTEP_BATCH = 51

Point = tuple[int, int]


@dataclass(frozen=True)
class Curve:
    """A curve of prime order; `add` adds two different affine points or doubles one."""

    name: str
    limbs: int
    p: int
    n: int
    generator: Point
    add: Callable[[Curve, Point, Point], Point]
    b: int = 0
    d: int = 0

    @property
    def r(self) -> int:
        """The Montgomery constant R."""
        return 1 << (LIMB_BITS * self.limbs)

    @property
    def windows(self) -> int:
        """Windows of the comb: enough for scalars of one bit more than the order has."""
        return -(-(self.n.bit_length() + 1) // WINDOW_BITS)


def add_weierstrass(curve: Curve, a: Point, b: Point) -> Point:
    """Chord and tangent on y^2 = x^3 - 3 x + b; the sum is never the neutral point here."""
    p = curve.p
    rise, run = (3 * (a[0] * a[0] - 1), 2 * a[1]) if a == b else (b[1] - a[1], b[0] - a[0])
    slope = rise * pow(run, -1, p)
    x = (slope * slope - a[0] - b[0]) % p
    return x, (slope * (a[0] - x) - a[1]) % p


def add_edwards(curve: Curve, a: Point, b: Point) -> Point:
    """The complete law of -x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032, 5.1.4)."""
    p = curve.p
    product = curve.d * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, p)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, p)
    return x % p, y % p


P256 = Curve(
    name="p256",
    limbs=5,
    p=2**256 - 2**224 + 2**192 + 2**96 - 1,
    n=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    generator=(
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    ),
    add=add_weierstrass,
    b=0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
)
P384 = Curve(
    name="p384",
    limbs=8,
    p=2**384 - 2**128 - 2**96 + 2**32 - 1,
    n=0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    generator=(
        0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
        0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
    ),
    add=add_weierstrass,
    b=0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
)
_P25519 = 2**255 - 19
ED25519 = Curve(
    name="ed25519",
    limbs=5,
    p=_P25519,
    n=2**252 + 27742317777372353535851937790883648493,
    generator=(
        0x216936D3CD6E53FEC0A4E231FDD6DC5C692CC7609525A7B2C9562D608F25D51A,
        0x6666666666666666666666666666666666666666666666666666666666666658,
    ),
    add=add_edwards,
    d=(-121665 * pow(121666, -1, _P25519)) % _P25519,
)
CURVES = {curve.name: curve for curve in (P256, P384, ED25519)}


def limbs_of(x: int, count: int) -> list[int]:
    """x in limbs of 52 bits, the least significant first."""
    if not 0 <= x < 1 << (LIMB_BITS * count):
        raise ValueError(f"{x} does not fit {count} limbs of {LIMB_BITS} bits")
    return [x >> (LIMB_BITS * i) & TAG_MODULUS for i in range(count)]


def divstep_batches(bits: int) -> int:
    """Batches that end every inversion of a number of so many bits.

    The bound on half-delta division steps is proved in P. Wuille, "Bounds on divsteps iterations in safegcd".
    """
    steps = (45907 * bits + 26313) // 19929
    return -(-steps // DIVSTEP_BATCH)


def constants(curve: Curve) -> str:
    """A C header with everything that follows from the curve's parameters."""
    lines = [f"/* Written by kernels/generate/curves.py for {curve.name}; do not edit. */", "#include <stdint.h>", ""]

    def array(name: str, value: int, meaning: str) -> None:
        text = ", ".join(f"0x{limb:013x}" for limb in limbs_of(value, curve.limbs))
        lines.append(f"/* {meaning} */")
        lines.append(f"static const uint64_t {name}[{curve.limbs}]\n    __attribute__((unused)) = {{{text}}};")

    p, n, r = curve.p, curve.n, curve.r
    batches = divstep_batches(p.bit_length())
    # A batch divides f and g by 2^51, but d and e by 2^52: what is missing at the end.
    missing = pow(2, batches, p)
    for k in range(1, 5):
        array(f"fe_{k}p" if k > 1 else "fe_p", k * p, f"{k} p")
    if curve.b:
        array("fe_one", r % p, "1 in Montgomery form, R mod p")
        array("fe_b", curve.b * r % p, "b of the curve, in Montgomery form")
        array("fe_inverse_factor", r * r * missing % p, "R^2 2^batches mod p: turns an inversion's result into (1/a) R")
        array("order_inverse_factor", r * r * pow(2, batches, n) % n, "R^2 2^batches mod n, likewise")
    else:
        array("fe_d", curve.d, "d of the curve")
        array("fe_2d", 2 * curve.d % p, "2 d")
        array("fe_inverse_factor", missing, "2^batches mod p: turns an inversion's result into 1/a")
    array("order_n", n, "n, the order")
    array("order_2n", 2 * n, "2 n")
    array("order_3n", 3 * n, "3 n")
    array("order_r2", r * r % n, "R^2 mod n")
    array("order_r3", r * r * r % n, "R^3 mod n")
    limb = 1 << LIMB_BITS
    lines += [
        f"#define FE_P_INVERSE UINT64_C(0x{-pow(p, -1, limb) % limb:x}) /* -1/p mod 2^52 */",
        f"#define ORDER_N_INVERSE UINT64_C(0x{-pow(n, -1, limb) % limb:x}) /* -1/n mod 2^52 */",
        f"enum {{ COMB_WINDOW_BITS = {WINDOW_BITS}, COMB_ENTRIES = {ENTRIES}, COMB_WINDOWS = {curve.windows} }};",
        f"enum {{ DIVSTEP_BATCHES = {batches} }};",
        f"enum {{ COMB_PARTS = {parts(curve)} }};",
        "/* table[window][part][entry]: see curves.py. */",
        f"extern const uint64_t {curve.name}_comb[{curve.windows}][{parts(curve)}][{ENTRIES}];",
    ]
    return "\n".join(lines) + "\n"


def parts(curve: Curve) -> int:
    """Limbs that one table entry takes, with the tag."""
    coordinates = 2 if curve.b else 3
    return coordinates * curve.limbs + 1


def entry_numbers(curve: Curve, point: Point) -> list[int]:
    """The field elements that the kernel wants of a point."""
    x, y = point
    if curve.b:
        return [x * curve.r % curve.p, y * curve.r % curve.p]
    return [(y + x) % curve.p, (y - x) % curve.p, 2 * curve.d * x * y % curve.p]


def windows(curve: Curve) -> Iterable[list[list[int]]]:
    """For every window its 64 entries, each a list of limbs and the tag."""
    base = curve.generator
    for window in range(curve.windows):
        double = curve.add(curve, base, base)
        point, entries = base, []
        for entry in range(ENTRIES):
            limbs = [limb for x in entry_numbers(curve, point) for limb in limbs_of(x, curve.limbs)]
            entries.append([*limbs, ((2 * entry + 1) << (WINDOW_BITS * window)) % TAG_MODULUS])
            if entry + 1 < ENTRIES:
                point = curve.add(curve, point, double)
        yield entries
        # The last entry is 127 times the base, so one more base makes the 128 of the next window.
        base = curve.add(curve, point, base)


def table(curve: Curve) -> str:
    """The C source of the comb table."""
    lines = [
        f"/* Written by kernels/generate/curves.py for {curve.name}; do not edit. */",
        "#include <stdint.h>",
        f"extern const uint64_t {curve.name}_comb[{curve.windows}][{parts(curve)}][{ENTRIES}];",
        f"_Alignas(4096) const uint64_t {curve.name}_comb[{curve.windows}][{parts(curve)}][{ENTRIES}] = {{",
    ]
    for entries in windows(curve):
        rows = (",".join(f"0x{entry[part]:x}" for entry in entries) for part in range(parts(curve)))
        lines += ["{", *(f"{{{row}}}," for row in rows), "},"]
    lines.append("};")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curve", choices=CURVES)
    parser.add_argument("--constants", type=Path, help="where the header of constants goes")
    parser.add_argument("--table", type=Path, help="where the comb table goes")
    options = parser.parse_args()
    curve = CURVES[options.curve]
    if options.constants:
        options.constants.write_text(constants(curve))
    if options.table:
        options.table.write_text(table(curve))


if __name__ == "__main__":
    main()
