"""Every fault, once: what must hold holds, and the mesh recovers by itself. `make faults` writes the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS

pytestmark = pytest.mark.envoy


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_fault(name: str, tmp_path: Path) -> None:
    result = SCENARIOS[name](tmp_path)
    assert result.tried > result.failed, "something succeeded before or after"
