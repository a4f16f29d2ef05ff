"""The settings that force a form of RSA or a way to make its products: published vectors in the library that ships."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kernels import contenders

ROOT = Path(__file__).resolve().parents[3]
PLAN = "import json; from benchmarks.kernels.contenders import plan; print(json.dumps(plan('rsa2048')))"


def with_settings(way: str, products: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "OFFLOAD_RSA_WAY": way, "OFFLOAD_RSA_PRODUCTS": products},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


@pytest.mark.ifma
@pytest.mark.slow(seconds=6)
@pytest.mark.parametrize(
    ("way", "products"),
    [("eight", "karatsuba"), ("eight", "schoolbook"), ("four", "karatsuba"), ("four", "schoolbook"), ("lone", "")],
)
def test_published_vectors_each_way(way: str, products: str) -> None:
    try:
        contenders.bench_library()
    except contenders.Unavailable as missing:
        pytest.skip(str(missing))
    chosen = json.loads(with_settings(way, products, "-c", PLAN))
    assert all(operations == {way: int(count)} for count, operations in chosen["schedule"].items())
    if products:
        assert chosen["ways"][way]["products"] == products
    vectors = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/kernels/test_rsa_private.py",
        "-k",
        "nist and ifma8",
    )
    assert " passed" in with_settings(way, products, *vectors)
