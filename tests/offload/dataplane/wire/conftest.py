"""The signatures of the codec's C functions."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_uint64

import pytest

from tests.offload.dataplane.wire.codec import View


@pytest.fixture(scope="session", autouse=True)
def _signatures(native: ctypes.CDLL) -> None:
    for name in ("operation", "cancelled", "result", "sign_response", "watch_request"):
        getattr(native, f"wire_append_{name}").restype = c_bool
    for name in ("credential", "certificate", "scheme", "dns_name", "trust_bundle", "authority"):
        getattr(native, f"wire_next_{name}").restype = c_bool
    native.wire_append_cancelled.argtypes = [ctypes.c_void_p, c_uint64]
    for name in ("sign_request", "decrypt_request", "watch_request", "identity"):
        getattr(native, f"wire_decode_{name}").argtypes = [View, ctypes.c_void_p]
    native.wire_append_watch_request.argtypes = [ctypes.c_void_p, View]
