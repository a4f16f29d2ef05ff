"""Kernel threads: which numbers are tried, and a daemon with two."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.handshake import scaling


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, []), (2, [1, 2]), (3, [1, 2]), (4, [1, 2, 4]), (48, [1, 2, 4, 8, 16, 32])]
)
def test_thread_counts_double_up_to_the_cores(cores: int, counts: list[int]) -> None:
    assert scaling.thread_counts(cores) == counts


@pytest.mark.slow(seconds=2)
def test_each_key_is_measured(tmp_path: Path) -> None:
    seen: list[str] = []
    found = scaling.measured(tmp_path, [2], seen.append, duration=0.2)
    assert [(one["key"], one["kernel_threads"]) for one in found] == [(key, 2) for key in scaling.KEYS]
    assert all(one["operations_per_s"] > 0 and one["daemon_cores_used"] > 0 for one in found)
    assert seen == ["2 kernel threads"]
