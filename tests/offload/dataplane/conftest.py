"""Fixtures of the data plane's tests: the pure C parts through ctypes, and a running DataPlane with fresh keys."""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from offload._dataplane import DataPlane, Key
from tests.offload.dataplane.serving import DEFAULTS, Server, identity

if TYPE_CHECKING:
    from offload._dataplane import IdentityRule, KeyRule

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def native() -> ctypes.CDLL:
    """Codec, batcher and checks as C functions, built by `make build`; DATAPLANE_TESTING_LIBRARY names another."""
    default = ROOT / "build" / "native" / "tests" / "native" / "libdataplane_testing.so"
    path = Path(os.environ.get("DATAPLANE_TESTING_LIBRARY", default))
    if not path.is_file():
        pytest.fail(f"{path} is missing: make build")
    return ctypes.CDLL(str(path))


@pytest.fixture(scope="session")
def keys() -> dict[str, Key]:
    """One key of each type except the slow ones to make."""
    return {name: Key.generate(name) for name in ("rsa2048", "p256", "p384", "ed25519")}


@pytest.fixture(scope="session")
def rsa4096() -> Key:
    return Key.generate("rsa4096")


@pytest.fixture
def make_server(tmp_path: Path, keys: dict[str, Key]) -> Iterator[Callable[..., Server]]:
    """Starts data planes: settings by keyword, `identities` to replace the default (every key, usage any, everyone)."""
    made: list[Server] = []
    numbers = itertools.count()

    def start(
        identities: Sequence[IdentityRule] | None = None, *, folder: Path | None = None, **settings: Any
    ) -> Server:
        place = folder or tmp_path / str(next(numbers))
        place.mkdir(exist_ok=True)
        data_plane = DataPlane({**DEFAULTS, **settings})  # type: ignore[typeddict-item]
        server = Server(data_plane, place, keys)
        made.append(server)
        if identities is None:
            rules: list[KeyRule] = [{"key": key, "usage": "any", "decrypt": True} for key in keys.values()]
            identities = [identity("www", rules)]
        data_plane.set_identities(identities)
        server.listen("main")
        data_plane.start()
        return server

    yield start
    for server in made:
        server.close()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server()
