"""Backup while in use; restore of what can be used, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from control.kinds import KINDS
from control.model.resource import Resource
from control.store.backup import BackupFailed, backup, restore
from control.store.database import StoreKey
from control.store.store import Store

Read = Callable[[str], list[Resource]]


@pytest.fixture
def original(tmp_path: Path, read_resources: Read) -> Store:
    store = Store(f"sqlite:///{tmp_path}/a/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    store.put_all(read_resources("type: Mesh\nname: default"))
    store.put_secret("ca", b"secret")
    return store


def test_there_and_back(original: Store, tmp_path: Path, read_resources: Read) -> None:
    copy, key = tmp_path / "backup.db", StoreKey(file=tmp_path / "key")
    backup(original.url, copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    stored = original.get("Mesh", "", "default")
    original.put_all(read_resources("type: Mesh\nname: later"))
    target = f"sqlite:///{tmp_path}/b/mesh.db"
    assert restore(copy, target, key, KINDS) == 1
    again = Store(target, key, KINDS)
    assert (list(again.list()), again.secret("ca")) == ([stored], b"secret")
    again.close()
    with pytest.raises(BackupFailed, match=r"there is a store at .* already: use --replace"):
        restore(copy, original.url, key, KINDS)
    original.close()
    assert restore(copy, original.url, key, KINDS, replace=True) == 1
    assert [resource.name for resource in original.list()] == ["default"]
    assert not [path.name for path in (tmp_path / "a").iterdir() if "restore" in path.name]


def test_what_cannot_be_used_replaces_nothing(original: Store, tmp_path: Path) -> None:
    copy = tmp_path / "backup.db"
    backup(original.url, copy)
    with pytest.raises(BackupFailed, match="is not the one this store was created with"):
        restore(copy, original.url, StoreKey(file=tmp_path / "other"), KINDS, replace=True)
    copy.write_bytes(b"not a database" * 100)
    with pytest.raises(BackupFailed, match="cannot be used"):
        restore(copy, original.url, StoreKey(file=tmp_path / "key"), KINDS, replace=True)
    copy.write_bytes(b"")
    with pytest.raises(BackupFailed, match="is not a store of the control plane"):
        restore(copy, original.url, StoreKey(file=tmp_path / "key"), KINDS, replace=True)
    assert [resource.name for resource in original.list()] == ["default"]


def test_targets(original: Store, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    with pytest.raises(BackupFailed, match="File exists"):
        backup(original.url, tmp_path / "there")
    with pytest.raises(BackupFailed, match="there is no store"):
        backup(f"sqlite:///{tmp_path}/none.db", tmp_path / "x")
    with pytest.raises(BackupFailed, match="there is no backup"):
        restore(tmp_path / "none", original.url, StoreKey(file=tmp_path / "key"), KINDS)
    with pytest.raises(BackupFailed, match="for SQLite"):
        backup("postgresql://u@h/d", tmp_path / "x")
