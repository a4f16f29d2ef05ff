"""How long the gRPC front works for whom in one turn of its loop, run by hand (tests/native/dataplane/grpc/shares.c).

FRONT_SHARES names another build of the program; tests/native/sanitized.py runs sanitized ones.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = Path(os.environ.get("FRONT_SHARES", ROOT / "build/native/tests/native/dataplane/grpc/front_shares"))


TESTS = ("strangers", "users", "timeouts", "hanging_up", "standing", "arriving", "without_descriptors")


@pytest.mark.parametrize("name", TESTS)
def test_shares(name: str) -> None:
    """Taking in a crowd, writing to it, closing it and reviewing it take a share of a turn each."""
    assert PROGRAM.is_file(), f"{PROGRAM} is missing: make build"
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run([PROGRAM, name], env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{name}\n"
