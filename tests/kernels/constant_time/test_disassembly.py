"""What the compiler made of the vector kernels: no gather, no division, and conditional jumps only where branches.toml
says so, none of them on a vector comparison (but for the verdicts that are declassified).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
OBJECTS = ROOT / "build" / "native" / "kernels" / "CMakeFiles"
LISTED: dict[str, dict[str, Any]] = tomllib.loads((Path(__file__).parent / "branches.toml").read_text())

# Instructions that take the flags from a comparison of vectors or masks.
VECTOR_FLAGS = re.compile(r"^(v?ptest|v?u?comis|k(or)?test)")
SETS_FLAGS = re.compile(
    r"^(cmp|test|add|sub|and|or|xor|inc|dec|neg|sh[lr]|sa[lr]|bt|adc|sbb|v?ptest|k(or)?test|v?u?comis)"
)
FORBIDDEN = re.compile(r"^(v?p?gather|v?p?scatter|i?div|v?div)")


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str

    @property
    def writes(self) -> str | None:
        """The general or mask register that it writes, as its 64-bit name (AT&T: the last operand)."""
        last = re.search(r"%(\w+)$", self.operands)
        return whole(last[1]) if last else None


def whole(register: str) -> str:
    """The 64-bit register that a part belongs to: al, ax, eax and rax are rax; r9d is r9."""
    if part := re.fullmatch(r"[er]?([abcd])[xlh]", register):
        return f"r{part[1]}x"
    if part := re.fullmatch(r"[er]?(si|di|bp|sp)l?", register):
        return f"r{part[1]}"
    if part := re.fullmatch(r"(r\d+)[dwb]?", register):
        return part[1]
    return register


@dataclass(frozen=True)
class Jump:
    function: str
    before: tuple[Instruction, ...]  # from the start of the function, the jump itself last

    @property
    def flags_from(self) -> Instruction | None:
        return next((i for i in reversed(self.before[:-1]) if SETS_FLAGS.match(i.name)), None)

    @property
    def backward(self) -> bool:
        target = re.match(r"([0-9a-f]+)", self.before[-1].operands)
        return target is not None and int(target[1], 16) < self.before[-1].address

    @property
    def on_mask(self) -> bool:
        """The flags come from a mask register: directly, or from a general register that was last written by kmov."""
        source = self.flags_from
        if source is None or VECTOR_FLAGS.match(source.name):
            return True
        for register in map(whole, re.findall(r"%(\w+)", source.operands)):
            earlier = self.before[: self.before.index(source)]
            writer = next((i for i in reversed(earlier) if i.writes == register), None)
            if writer is not None and writer.name.startswith("kmov"):
                return True
        return False


@cache
def functions(path: Path) -> dict[str, list[Instruction]]:
    line = ["objdump", "-d", "--no-show-raw-insn", str(path)]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for row in text.splitlines():
        if header := re.match(r"[0-9a-f]+ <(\S+)>:$", row):
            current = found.setdefault(header[1], [])
        elif body := re.match(r"\s*([0-9a-f]+):\t(\S+)\s*(.*)", row):
            current.append(Instruction(int(body[1], 16), body[2], body[3].split(" #")[0].strip()))
    return found


def jumps(path: Path) -> list[Jump]:
    return [
        Jump(name, tuple(code[: i + 1]))
        for name, code in functions(path).items()
        for i, instruction in enumerate(code)
        if instruction.name.startswith("j") and not instruction.name.startswith("jmp")
    ]


def plain(name: str) -> str:
    """The C function's name: without gcc's suffixes and vec.h's."""
    return re.sub(r"_ifma[48]$", "", name.split(".")[0])


def kernel_objects() -> dict[str, list[Path]]:
    """By source file: RSA is compiled for eight lanes and for four."""
    found: dict[str, list[Path]] = {}
    for path in sorted(OBJECTS.glob("kernels_*.dir/**/*.c.o")):
        if "portable" not in str(path) and "tables" not in str(path):
            found.setdefault(path.name.removesuffix(".c.o"), []).append(path)
    return found


@pytest.fixture(params=sorted(LISTED))
def kernel(request: pytest.FixtureRequest) -> tuple[str, list[Path]]:
    if shutil.which("objdump") is None:
        pytest.skip("objdump is missing: apt-get install binutils")
    name: str = request.param
    paths = kernel_objects().get(name)
    if paths is None:
        pytest.skip(f"{name}.c.o is not in {OBJECTS}: make build (or the compiler has no AVX-512 IFMA)")
    return name, paths


def test_every_kernel_is_listed():
    objects = kernel_objects()
    assert set(objects) <= set(LISTED), "a kernel without a section in branches.toml"
    assert all(
        len(paths) >= 2 for name, paths in objects.items() if re.match("montgomery|rsa", name) and "lone" not in name
    )


@pytest.mark.slow(seconds=2)
def test_no_gather_and_no_division(kernel):
    _, paths = kernel
    found = [
        f"{name}: {i.name} {i.operands}"
        for path in paths
        for name, code in functions(path).items()
        for i in code
        if FORBIDDEN.match(i.name)
    ]
    assert not found


def test_jumps_are_where_they_may_be(kernel):
    name, paths = kernel
    listed = LISTED[name]
    for jump in (jump for path in paths for jump in jumps(path)):
        if listed.get("only_counted_loops"):
            source = jump.flags_from
            assert source is not None
            assert jump.backward, f"{jump.function}: a conditional jump that closes no loop"
            assert re.match(r"(cmp|sub|add)", source.name), f"{jump.function}: {source}"
        else:
            assert plain(jump.function) in listed, f"{jump.function} has a conditional jump: {jump.before[-1]}"


@pytest.mark.slow(seconds=2)
def test_no_jump_on_a_comparison_of_lanes(kernel):
    name, paths = kernel
    allowed = LISTED[name].get("mask_from", [])
    found = [
        f"{jump.function}: {jump.before[-1]}"
        for path in paths
        for jump in jumps(path)
        if jump.on_mask and plain(jump.function) not in allowed
    ]
    assert not found


def test_generated_multiplications_do_not_spill(kernel):
    """Spilled limbs would be secrets on the stack, and the loads would slow everything down. Saving a few registers is
    tolerated; gcc 12 spills none in the tiles."""
    name, paths = kernel
    if name not in ("montgomery_tiles", "montgomery_lone"):
        pytest.skip("only the generated tiles are made to fit the registers")
    for function, code in ((f, code) for path in paths for f, code in functions(path).items()):
        spills = [i for i in code if re.search(r"%[yz]mm\d+,.*\(%r[sb]p", i.operands)]
        assert len(spills) <= 8, f"{function} spills {len(spills)} vector registers"


@pytest.mark.slow(seconds=4)
def test_a_jump_on_a_mask_would_be_seen(tmp_path):
    source = tmp_path / "leak.c"
    source.write_text(
        "#include <immintrin.h>\n"
        "int leak(__m512i a, __m512i b, int (*f)(void), int (*g)(void)) {\n"
        "  return _mm512_cmpeq_epi64_mask(a, b) & 1 ? f() : g();\n"
        "}\n"
        "int counted(const int *p) { int s = 0; for (int i = 0; i < 100; i++) s ^= p[i] * s; return s; }\n"
    )
    made = tmp_path / "leak.o"
    line = ["cc", "-O1", "-mavx512f", "-mavx512dq", "-c", str(source), "-o", str(made)]
    if subprocess.run(line, capture_output=True, check=False).returncode != 0:
        pytest.skip("the compiler has no AVX-512")
    found = {jump.function: jump for jump in jumps(made)}
    assert found["leak"].on_mask
    assert not found["counted"].on_mask
    assert found["counted"].backward
