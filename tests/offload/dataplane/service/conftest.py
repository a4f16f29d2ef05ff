"""Fixtures of the tests of the gRPC service."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.offload.dataplane.serving import (
    Server,
)


@pytest.fixture
def slow(make_server: Callable[..., Server]) -> Server:
    """One shard, software: a queue of RSA operations takes long enough to be looked at."""
    return make_server(shards=1, backend="software")
