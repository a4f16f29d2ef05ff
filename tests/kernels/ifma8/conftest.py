"""Builds the curve kernels apart from the library, natively and portably, with the bounds on limbs asserted."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
IFMA_FLAGS = ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx512vbmi", "-mavx512vbmi2", "-mavx512ifma"]
IFMA_FLAGS += ["-mbmi2"]
CACHE = ROOT / "build" / "tests" / "curves"
HEADERS = [*(ROOT / "kernels").glob("*.h"), *(ROOT / "kernels" / "ifma8").glob("*.h")]
CURVES = ("p256", "p384", "ed25519")
LIMB_BITS = 52

Limbs = NDArray[np.uint64]


def module_from(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


curves = module_from(ROOT / "kernels" / "generate" / "curves.py")


@dataclass(frozen=True)
class Build:
    """How the kernels are compiled for these tests: `native` with AVX-512, or `portable`."""

    folder: Path
    boringssl: Path
    flags: list[str]

    def compile(self, sources: list[Path], name: str, *options: str) -> Path:
        """The program or library; taken from an earlier run when neither sources nor options have changed."""
        command = [os.environ.get("CC", "cc"), "-std=gnu11", "-O1", "-DBOUND_CHECKS=1", "-D_GNU_SOURCE"]
        command += [*self.flags, *options]
        seen = hashlib.sha256(" ".join(command).encode())
        for path in sorted({*sources, *HEADERS, *self.folder.glob("*_constants.h")}, key=lambda path: path.name):
            seen.update(path.read_bytes())
        output = CACHE / seen.hexdigest()[:16] / name
        if not output.exists():
            output.parent.mkdir(parents=True, exist_ok=True)
            partial = output.with_name(f"{name}.{os.getpid()}")
            includes = [f"-I{ROOT}", f"-I{self.folder}", f"-I{self.boringssl / 'include'}"]
            subprocess.run([*command, *includes, "-o", str(partial), *map(str, sources)], check=True)
            partial.rename(output)
        return output


@pytest.fixture(scope="session", params=["portable", pytest.param("native", marks=pytest.mark.ifma)])
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp(f"curves-{request.param}")
    for curve in CURVES:
        (folder / f"{curve}_constants.h").write_text(curves.constants(curves.CURVES[curve]))
        (folder / f"{curve}_comb.c").write_text(curves.table(curves.CURVES[curve]))
    script = ROOT / "kernels" / "generate" / "sha512.py"
    subprocess.run([sys.executable, str(script), str(folder / "sha512_constants.h")], check=True)
    boringssl = module_from(ROOT / "deploy" / "setup" / "boringssl.py").installed_prefix()
    flags = IFMA_FLAGS if request.param == "native" else ["-DVEC_PORTABLE"]
    return Build(folder, boringssl, flags)


class Arithmetic:
    """arithmetic.c of one curve; numbers are eight Python integers."""

    def __init__(self, curve: str, library: Path) -> None:
        self.curve = curves.CURVES[curve]
        self.library = ctypes.CDLL(str(library))

    def empty(self, count: int = 1) -> Limbs:
        return np.zeros((count * self.curve.limbs, 8), np.uint64)

    def limbs(self, values: list[int]) -> Limbs:
        """Tight limbs of eight numbers."""
        columns = [curves.limbs_of(value, self.curve.limbs) for value in values]
        return np.array(columns, np.uint64).T.copy()

    def values(self, limbs: Limbs) -> list[int]:
        """The eight numbers; the top limb counts as signed."""
        signed = limbs.astype(np.int64)
        return [sum(int(x) << LIMB_BITS * i for i, x in enumerate(signed[:, lane])) for lane in range(8)]

    def call(self, name: str, *arguments: Limbs) -> int:
        result: int = getattr(self.library, name)(*(ctypes.c_void_p(a.ctypes.data) for a in arguments))
        return result

    def compute(self, name: str, *arguments: Limbs) -> list[int]:
        """Calls a function whose last argument is its result."""
        result = self.empty()
        self.call(name, *arguments, result)
        return self.values(result)


@pytest.fixture(scope="session")
def arithmetic_of(build: Build) -> Callable[[str], Arithmetic]:
    @cache
    def make(curve: str) -> Arithmetic:
        sources = [HERE / "arithmetic.c", build.folder / f"{curve}_comb.c"]
        library = build.compile(sources, f"{curve}.so", f"-DCURVE_{curve}", "-shared", "-fPIC")
        return Arithmetic(curve, library)

    return make


@pytest.fixture(scope="session")
def sign_cases(build: Build) -> Callable[[str], Path]:
    """The program sign_cases.c of a curve."""

    @cache
    def make(curve: str) -> Path:
        kernels = ROOT / "kernels" / "ifma8"
        sources = [HERE / "sign_cases.c", kernels / f"{curve}_ifma8_sign.c", kernels / "sha512_ifma8_batch.c"]
        sources.append(build.folder / f"{curve}_comb.c")
        return build.compile(sources, f"{curve}_sign", f"-DCURVE_{curve}")

    return make
