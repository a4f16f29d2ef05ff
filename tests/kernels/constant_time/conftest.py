"""The programs of tests/native/constant_time, built with testing hooks and secret memory that valgrind can see into."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build" / "constant-time"


@pytest.fixture(scope="session")
def constant_time_programs() -> Path:
    """The folder with `secret_flow` and `timing`, built now where sources are newer."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        options = ["-DTESTING_HOOKS=ON", "-DSECRET_MEMORY_MALLOC=ON", f"-DPython3_EXECUTABLE={sys.executable}"]
        for line in (
            ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(BUILD), *options],
            ["cmake", "--build", str(BUILD), "--target", "secret_flow", "timing", "--parallel", "2"],
        ):
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return BUILD / "tests" / "native" / "constant_time"
