"""Every fault, once: what must hold holds, and the mesh recovers by itself. `make faults` writes the table.

Recovery is to take less than 1 s, and takes milliseconds: `make faults` asserts that. Here the bound is for machines
that have other things to do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS

pytestmark = pytest.mark.envoy
RECOVERY_MS = 10_000


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_fault(name: str, tmp_path: Path) -> None:
    result = SCENARIOS[name](tmp_path)
    assert result.tried > result.failed, "something succeeded before or after"
    assert result.recovery_ms is None or result.recovery_ms < RECOVERY_MS
