"""Resources and secrets: versions, conflicts, what a restart keeps, what a lost store says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from control.kinds import KINDS
from control.model.resource import Resource
from control.store import engine, migrate
from control.store.database import StoreKey
from control.store.engine import make_engine
from control.store.errors import Conflict, IncompatibleStore, NotFound, StoreUnavailable, WrongStoreKey
from control.store.store import Store
from control.store.tables import metadata

Read = Callable[[str], list[Resource]]


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'mesh.db'}"


def open_store(folder: Path) -> Store:
    return Store(url(folder), StoreKey(file=folder / "store.key"), KINDS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def mesh(read: Read, name: str = "default", **labels: str) -> Resource:
    text = "".join(f"\n  {key}: {value}" for key, value in labels.items())
    return read(f"type: Mesh\nname: {name}\n" + (f"labels:{text}\n" if labels else ""))[0]


def dataplane(read: Read, name: str, address: str = "10.0.0.1", in_mesh: str = "default") -> Resource:
    return read(f"type: Dataplane\nname: {name}\nmesh: {in_mesh}\nspec: {{networking: {{address: {address}}}}}")[0]


def test_writers_take_turns(tmp_path: Path, read_resources: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long others write, none of this process is told that the database is locked."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 1)
    store = open_store(tmp_path)
    failures: list[Exception] = []

    def write(number: int) -> None:
        try:
            for version in range(10):
                store.put(mesh(read_resources, f"m{number}", version=f"v{version}"))
        except StoreUnavailable as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert failures == []
    assert {one.version for one in store.list("Mesh")} == {10}
    store.close()


def test_a_resource_comes_back_as_it_was(store: Store, read_resources: Read) -> None:
    stored = store.put(mesh(read_resources, team="a"))
    assert stored == store.get("Mesh", "", "default")
    assert (stored.version, stored.labels, stored.creation_time) == (1, {"team": "a"}, stored.modification_time)


def test_versions_grow_only_with_changes(store: Store, read_resources: Read) -> None:
    first = store.put(mesh(read_resources))
    generation = store.generation()
    assert store.put(mesh(read_resources)) == first
    assert store.generation() == generation
    second = store.put(mesh(read_resources, team="a"))
    assert (second.version, second.creation_time) == (2, first.creation_time)
    assert store.generation() == generation + 1


def test_optimistic_versions(store: Store, read_resources: Read) -> None:
    store.put(mesh(read_resources), expected_version=0)
    with pytest.raises(Conflict, match="is at version 1, not at 0: read it again"):
        store.put(mesh(read_resources, team="a"), expected_version=0)
    store.put(mesh(read_resources, team="a"), expected_version=1)
    with pytest.raises(Conflict, match="is at version 2, not at 1"):
        store.put(mesh(read_resources, team="b"), expected_version=1)
    with pytest.raises(Conflict, match="does not exist, not at 3"):
        store.put(mesh(read_resources, "other"), expected_version=3)


def test_of_writers_with_one_version_exactly_one_wins(store: Store, read_resources: Read) -> None:
    store.put(mesh(read_resources))
    outcomes: list[str] = []

    def write(number: int) -> None:
        try:
            store.put(mesh(read_resources, team=f"t{number}"), expected_version=1)
            outcomes.append("won")
        except Conflict:
            outcomes.append("lost")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]
    assert store.get("Mesh", "", "default").version == 2


def test_a_mesh_has_to_be_there_and_to_be_empty_to_go(store: Store, read_resources: Read) -> None:
    with pytest.raises(Conflict, match="there is no Mesh 'default'; create it first"):
        store.put(dataplane(read_resources, "a"))
    store.put_all([dataplane(read_resources, "a"), mesh(read_resources)])
    with pytest.raises(Conflict, match="has 1 dataplanes: delete them first"):
        store.delete("Mesh", "", "default")
    store.delete("Dataplane", "default", "a")
    store.put_secret("mesh/default/ca", b"x")
    store.put_secret("mesh/default2/ca", b"y")
    store.delete("Mesh", "", "default")
    assert store.list() == []
    assert store.secret_names("mesh/") == ["mesh/default2/ca"]
    with pytest.raises(NotFound, match="there is no Mesh 'default'"):
        store.get("Mesh", "", "default")
    with pytest.raises(NotFound, match="there is no Mesh 'default'"):
        store.delete("Mesh", "", "default")


def test_all_or_none(store: Store, read_resources: Read) -> None:
    with pytest.raises(Conflict, match="no Mesh 'other'"):
        store.put_all([mesh(read_resources), dataplane(read_resources, "a", in_mesh="other")])
    assert store.list() == []
    assert store.generation() == 0


def test_lists_are_sorted_and_paged(store: Store, read_resources: Read) -> None:
    store.put_all([mesh(read_resources), mesh(read_resources, "other")])
    store.put_all([dataplane(read_resources, f"d{n}") for n in (3, 1, 2)])
    store.put(dataplane(read_resources, "d9", in_mesh="other"))
    names = [resource.name for resource in store.read("Dataplane", "default", limit=2)]
    assert names == ["d1", "d2"]
    assert [resource.name for resource in store.read("Dataplane", "default", after="d2")] == ["d3"]
    assert [resource.kind.type for resource in store.list()] == ["Dataplane"] * 4 + ["Mesh"] * 2


def test_a_restart_loses_nothing(tmp_path: Path, read_resources: Read) -> None:
    before = open_store(tmp_path)
    stored = before.put(mesh(read_resources, team="a"))
    before.put_secret("ca", b"key")
    before.revoke("jti-1", 2**40, "lost laptop")
    generation = before.generation()
    before.close()
    after = open_store(tmp_path)
    assert after.get("Mesh", "", "default") == stored
    assert (after.secret("ca"), after.is_revoked("jti-1"), after.generation()) == (b"key", True, generation)
    after.close()


def test_revocations_are_forgotten_a_year_after_the_end_of_the_token(store: Store) -> None:
    """And not at its end: by a clock that is ahead for a while it would be of use again."""
    store.revoke("old", 1, "")
    store.revoke("ended", int(time.time()) - 30 * 24 * 3600, "")
    store.revoke("new", 2**40, "")
    revoked = [store.is_revoked(jti) for jti in ("old", "ended", "new", "other")]
    assert revoked == [False, True, True, False]


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_not_readable_in_the_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put_secret("ca", b"-----BEGIN PRIVATE KEY-----")
    store.close()
    for file in tmp_path.iterdir():
        assert b"BEGIN PRIVATE KEY" not in file.read_bytes()
    assert (tmp_path / "store.key").stat().st_mode & 0o777 == 0o600


def test_a_secret_cannot_be_passed_off_as_another(store: Store, tmp_path: Path) -> None:
    store.put_secret("a", b"1")
    with sa.create_engine(url(tmp_path)).begin() as connection:
        connection.execute(sa.text("UPDATE secrets SET name = 'b'"))
    with pytest.raises(WrongStoreKey, match="'b' cannot be opened"):
        store.secret("b")


def test_secrets_change_only_from_what_was_read(store: Store) -> None:
    store.put_secret("a", b"1", only_new=True)
    with pytest.raises(Conflict, match="was changed concurrently"):
        store.put_secret("a", b"2", only_new=True)
    store.put_secret("a", b"2", expected=b"1")
    with pytest.raises(Conflict):
        store.put_secret("a", b"3", expected=b"1")
    assert store.secret("a") == b"2"
    store.delete_secret("a")
    assert store.secret("a") is None


def test_another_key_is_refused_at_start(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(WrongStoreKey, match=r"other\.key is not the one this store was created with"):
        Store(url(tmp_path), StoreKey(file=tmp_path / "other.key"), KINDS)


@pytest.mark.slow(seconds=3)
def test_passphrases(tmp_path: Path) -> None:
    first = Store(url(tmp_path), StoreKey(passphrase="correct horse battery"), KINDS)
    first.put_secret("a", b"1")
    assert Store(url(tmp_path), StoreKey(passphrase="correct horse battery"), KINDS).secret("a") == b"1"
    with pytest.raises(WrongStoreKey, match="the passphrase is not the one"):
        Store(url(tmp_path), StoreKey(passphrase="incorrect horse battery"), KINDS)
    with pytest.raises(WrongStoreKey, match="at least 12"):
        Store(url(tmp_path / "x"), StoreKey(passphrase="short"), KINDS)
    with pytest.raises(WrongStoreKey, match="either a key file or a passphrase"):
        Store(url(tmp_path / "y"), StoreKey(), KINDS)


def test_key_files(tmp_path: Path) -> None:
    key = tmp_path / "k"
    key.write_bytes(b"x" * 31)
    key.chmod(0o600)
    with pytest.raises(WrongStoreKey, match="31 bytes instead of 32"):
        Store(url(tmp_path), StoreKey(file=key), KINDS)
    key.write_bytes(b"x" * 32)
    key.chmod(0o640)
    with pytest.raises(WrongStoreKey, match="can be read by others: chmod 600"):
        Store(url(tmp_path), StoreKey(file=key), KINDS)
    with pytest.raises(WrongStoreKey, match="cannot create"):
        Store(url(tmp_path), StoreKey(file=tmp_path / "no" / "k"), KINDS)


# --- the database -----------------------------------------------------------------------------------------------------


def test_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    (tmp_path / "mesh.db").touch()
    with make_engine(url(tmp_path)).execution_options(writes=True).begin() as connection:
        migrate.upgrade(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with sa.create_engine(url(tmp_path)).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(IncompatibleStore, match=r"revision 9999.*newer control plane"):
        open_store(tmp_path)


def test_a_store_that_is_lost_says_so_and_works_again_when_it_is_back(tmp_path: Path, read_resources: Read) -> None:
    store = open_store(tmp_path)
    store.put(mesh(read_resources))
    database, aside = tmp_path / "mesh.db", tmp_path / "aside.db"
    with sa.create_engine(url(tmp_path)).connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.rename(aside)
    database.mkdir()
    with pytest.raises(StoreUnavailable, match="failed at 'list'"):
        store.list()
    database.rmdir()
    aside.rename(database)
    assert [resource.name for resource in store.list()] == ["default"]
    store.close()


def test_operations_are_observed(tmp_path: Path) -> None:
    seen: list[str] = []
    store = Store(url(tmp_path), StoreKey(file=tmp_path / "k"), KINDS, lambda name, _: seen.append(name))
    store.list()
    assert seen == ["open", "list"]
    store.close()


def test_a_mesh_is_read_again_with_what_is_known(store: Store, read_resources: Read) -> None:
    store.put_all([mesh(read_resources), mesh(read_resources, "other")])
    store.put_all([dataplane(read_resources, f"dp-{number}") for number in range(3)])
    store.put(dataplane(read_resources, "dp-0", in_mesh="other"))
    generation, first, _ = store.read_mesh("default", {})
    assert (generation, first) == (store.generation(), store.list(mesh="default"))
    known = {resource.key: resource for resource in first}
    store.put(dataplane(read_resources, "dp-1", "10.0.0.9"))
    store.delete("Dataplane", "default", "dp-2")
    store.put(dataplane(read_resources, "dp-3"))
    later, second, _ = store.read_mesh("default", known)
    assert later == store.generation() > generation
    assert second == store.list(mesh="default")
    assert second[0] is first[0]
    assert [resource.name for resource in second] == ["dp-0", "dp-1", "dp-3"]
    # Made anew under the same name, it has the same version.
    store.delete("Dataplane", "default", "dp-0")
    store.put(dataplane(read_resources, "dp-0", "10.0.0.8"))
    _, third, _ = store.read_mesh("default", {resource.key: resource for resource in second})
    assert third[0].version == second[0].version
    assert third == store.list(mesh="default")


@pytest.mark.slow(seconds=5)
def test_many_new_resources_are_read_in_parts(store: Store, read_resources: Read) -> None:
    store.put(mesh(read_resources))
    template = dataplane(read_resources, "dp")
    store.put_all([replace(template, name=f"dp-{number}") for number in range(1000)])
    _, found, _ = store.read_mesh("default", {})
    assert len(found) == 1000
