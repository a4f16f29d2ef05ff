"""A store with a mesh that has an identity, and who issues from its CA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control.ca.identities import Identities
from control.kinds import KINDS
from control.model.resource import Resource
from control.store.database import StoreKey
from control.store.store import Store
from tests.control.ca.made import Clock, Read, identity


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    yield opened
    opened.close()


@pytest.fixture
def resource(store: Store, read_resources: Read) -> Resource:
    return store.put_all(identity(read_resources))[1]


@pytest.fixture
def identities(store: Store, clock: Clock) -> Identities:
    return Identities(store, "default", clock)
