"""Fixtures of the tests of the gRPC front."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.offload.dataplane.raw_http2 import RawClient
from tests.offload.dataplane.serving import Server


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    with RawClient(server.connect()) as made:
        yield made
