"""Fixtures of the daemon's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.offload.key_files import Authority


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    return folder
