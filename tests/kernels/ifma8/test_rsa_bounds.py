"""RSA on 8 lanes in a build with BOUND_CHECKS: every column and limb stays within the bounds that the generator proved.

montgomery.py computes the bounds while it writes the code; here they are asserted at run time over extreme and random
inputs (tests/native/bounds/rsa_cases.c), natively and portably.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build" / "bounds"

pytestmark = [pytest.mark.slow(seconds=51), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def rsa_cases() -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    options = ["-DBOUND_CHECKS=ON", "-DTESTING_HOOKS=ON", "-DSECRET_MEMORY_MALLOC=ON"]
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for line in (
            [
                "cmake",
                "-G",
                "Ninja",
                "-S",
                str(ROOT),
                "-B",
                str(BUILD),
                f"-DPython3_EXECUTABLE={sys.executable}",
                *options,
            ],
            ["cmake", "--build", str(BUILD), "--target", "rsa_cases", "--parallel", "2"],
        ):
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return BUILD / "tests" / "native" / "bounds" / "rsa_cases"


@pytest.mark.parametrize("way", ["eight", "four", "lone"])
@pytest.mark.parametrize(
    ("backend", "algorithm", "rounds"),
    [
        pytest.param("ifma8", "rsa2048", 40, marks=pytest.mark.ifma),
        pytest.param("ifma8", "rsa3072", 24, marks=pytest.mark.ifma),
        pytest.param("ifma8", "rsa4096", 16, marks=pytest.mark.ifma),
        ("ifma8-portable", "rsa2048", 16),
        pytest.param("ifma8-portable", "rsa3072", 16, marks=pytest.mark.long),
        pytest.param("ifma8-portable", "rsa4096", 16, marks=pytest.mark.long),
        pytest.param("ifma8", "rsa2048", 3000, marks=[pytest.mark.ifma, pytest.mark.long]),
    ],
)
def test_limbs_stay_within_their_bounds(backend, algorithm, rounds, way, rsa_cases):
    line = [str(rsa_cases), backend, algorithm, str(rounds), way]
    done = subprocess.run(line, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{rounds} batches right" in done.stdout


def test_a_wrong_bound_would_be_seen(tmp_path):
    """The assertion itself: a lane above its bound stops the program and says where."""
    source = tmp_path / "outside.c"
    source.write_text(
        '#include "kernels/ifma8/vec.h"\n'
        "int main(void) { VEC_ASSERT_WITHIN(vec_set(1, 2, 3, 4, 5, 6, 7, 8), 0, 7); return 0; }\n"
    )
    program = tmp_path / "outside"
    line = ["cc", "-DBOUND_CHECKS", "-DVEC_PORTABLE", f"-I{ROOT}", str(source), "-o", str(program)]
    subprocess.run(line, check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "lane 7" in done.stderr
