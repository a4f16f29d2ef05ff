"""One node for all checks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import rig as node
from tests.conformance.judge import Explained, load


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[node.Rig]:
    with node.rig(tmp_path_factory.mktemp("conformance")) as running:
        yield running


@pytest.fixture(scope="session")
def explained() -> Explained:
    return load()
