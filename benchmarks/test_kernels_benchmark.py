"""The measurements of benchmarks.kernels for pytest-benchmark: `pytest benchmarks/test_kernels_benchmark.py`.

A round is one batch; the times are those that the contenders measure themselves, around the batch alone.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.kernels.contenders import ALGORITHMS, LANES, MAKERS, Unavailable

CASES = [(name, batch) for name in MAKERS for batch in (1, 4, LANES) if batch == LANES or name in ("ours", "boringssl")]


class Clock:
    """Time that passes only while a contender measures."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("contender", "batch"), CASES, ids=[f"{name}-{batch}" for name, batch in CASES])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_batch(benchmark: Any, algorithm: str, contender: str, batch: int) -> None:
    try:
        runner = MAKERS[contender](algorithm)
    except Unavailable as missing:
        pytest.skip(str(missing))
    clock = Clock()
    benchmark._timer = clock  # pytest-benchmark accepts a timer only for the whole run

    def one_batch() -> None:
        clock.now += runner.run(batch, 1) * 1e-6

    benchmark.group = f"{algorithm}, batch of {batch}"
    benchmark.extra_info["operations"] = batch
    benchmark.pedantic(one_batch, rounds=15, warmup_rounds=1)
