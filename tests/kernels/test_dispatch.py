"""Which backend serves, and that it can be seen and forced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kernels
from kernels import ALGORITHMS

ROOT = Path(__file__).resolve().parents[2]
FORCE = "import kernels; print(*[kernels.backend_for(a) for a in kernels.ALGORITHMS])"

shipped = pytest.mark.skipif("SANITIZED" in os.environ, reason="the sanitized build has testing hooks everywhere")


def chosen(**environment: str) -> list[str]:
    clean = {k: v for k, v in os.environ.items() if k != "OFFLOAD_KERNEL_BACKEND"}
    result = subprocess.run(
        [sys.executable, "-c", FORCE],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    return result.stdout.split()


@shipped
def test_backends_are_listed_the_preferred_one_first():
    names = [backend.name for backend in kernels.backends()]
    assert names == ["ifma8", "software"], "nothing of the tests is in the library that ships"
    software = kernels.backends()[1]
    assert software.usable
    assert software.algorithms == ALGORITHMS
    assert all(backend.description for backend in kernels.backends())


def test_usable_agrees_with_the_cpu():
    ifma8 = kernels.backends()[0]
    flags = Path("/proc/cpuinfo").read_text().split("flags")[1].split("\n")[0].split()
    wanted = {"avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512vbmi", "avx512_vbmi2", "avx512ifma", "bmi2"}
    if not ifma8.algorithms:
        pytest.skip(f"not built here: {ifma8.description}")
    assert ifma8.usable == (wanted <= set(flags))


def test_the_best_usable_backend_is_chosen():
    ifma8 = kernels.backends()[0]
    wanted = ["ifma8" if ifma8.usable and a in ifma8.algorithms else "software" for a in ALGORITHMS]
    assert chosen() == wanted


def test_the_environment_forces_one():
    assert chosen(OFFLOAD_KERNEL_BACKEND="software") == ["software"] * len(ALGORITHMS)


def test_a_name_that_does_not_exist_forces_nothing():
    assert chosen(OFFLOAD_KERNEL_BACKEND="quantum") == chosen()
    assert chosen(OFFLOAD_KERNEL_BACKEND="") == chosen()


@shipped
def test_the_shipped_library_has_no_testing_hooks():
    """Known nonces and faults would be a way to the keys."""
    library = Path(kernels._kernels.__file__).read_bytes()
    for name in (b"kernel_inject_fault", b"kernel_known_nonce", b"TESTING_SECRET_MEMORY_KIND", b"ifma8-portable"):
        assert name not in library
    hooks = pytest.importorskip("kernels._testing", reason="built without TLS_OFFLOAD_TESTING=1")
    assert b"TESTING_SECRET_MEMORY_KIND" in Path(hooks.__file__).read_bytes(), "the control: names can be found"
    assert not hasattr(kernels._kernels, "inject_fault")
