"""Bounds of the data plane as the configuration gives them."""

from __future__ import annotations

import pytest

from offload import _dataplane, backends
from offload.config.data_plane import DataPlane
from offload.daemon.data_plane import within_descriptors


def test_bounds_that_are_not_given_follow_from_others() -> None:
    settings = DataPlane()
    assert (settings.users_queue_limit, settings.connections_per_user) == (3072, 2048)
    assert settings.connections_without_identity == 512
    small = DataPlane(queue_limit=4, connection_queue_limit=2, max_connections=4)
    assert (small.users_queue_limit, small.connections_per_user, small.connections_without_identity) == (3, 2, 1)


def test_bounds_are_never_above_those_of_all() -> None:
    settings = DataPlane(max_connections=10, max_connections_per_user=100, max_connections_without_identity=100)
    assert (settings.connections_per_user, settings.connections_without_identity) == (10, 10)


@pytest.mark.parametrize(("limit", "served"), [(1024, 896), (1_000_000, 4096), (100, 1)])
def test_connections_are_no_more_than_descriptors(limit: int, served: int) -> None:
    """And so is the part of those without an identity, which leaves the rest to others."""
    settings = within_descriptors(DataPlane(), limit)
    assert settings.max_connections == served
    assert settings.connections_without_identity <= max(1, served // 8)


def test_lanes_are_those_of_the_kernels() -> None:
    assert backends.LANES == _dataplane.LANES
