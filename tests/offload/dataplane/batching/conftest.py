"""Fixtures of the batcher's tests."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import c_bool, c_uint64, c_void_p

import pytest

from tests.offload.dataplane.batching.virtual_batcher import Batcher, with_lanes


@pytest.fixture(scope="session", autouse=True)
def _signatures(native: ctypes.CDLL) -> None:
    native.shim_new.restype = c_void_p
    native.shim_ready_at.restype = native.shim_cost.restype = c_uint64
    native.shim_cancel.restype = c_bool


@pytest.fixture
def batcher(native: ctypes.CDLL) -> Iterator[Batcher]:
    made = Batcher(native, with_lanes())
    yield made
    made.close()
