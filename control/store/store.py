"""Persistent resources and sealed secrets. Every method is one transaction; nothing is cached."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from control.model.resource import Kinds, Resource
from control.model.unreadable import Unreadable, read_spec
from control.store.database import Database, Observe, StoreKey, timestamp
from control.store.errors import Conflict, IncompatibleStore, NotFound
from control.store.tables import facts, resources, revocations, secrets


def ca_secret(mesh: str, identity: str) -> str:
    """Name of the secret with the CAs of a MeshIdentity."""
    return f"mesh/{mesh}/ca/{identity}"


def svid_secret(mesh: str, dataplane: str) -> str:
    """Name of the secret with the key and certificate of a proxy on Envoy's own TLS."""
    return f"mesh/{mesh}/svid/{dataplane}"


Key = tuple[str, str, str]

_GENERATION = "generation"
_ISSUED = "issued/"
# How long a revocation outlives its token: a clock that was ahead for a while must not revive the token.
FORGOTTEN_AFTER_S = 366 * 24 * 3600
# How long the id of something issued outlives its expiry, when it is no longer valid.
KEPT_AFTER_S = 7 * 24 * 3600
# Names per query; SQLite allows 32,766 values, older versions 999.
_ROWS_AT_ONCE = 400


class MeshContent(NamedTuple):
    """The content of a mesh, sorted. What stays in force of `unreadable` is among the resources."""

    generation: int
    resources: Sequence[Resource]
    unreadable: Sequence[Unreadable]


class Store(Database):
    """The resources, secrets and issued credentials of one database."""

    def __init__(self, url: str, key: StoreKey, kinds: Kinds, observe: Observe | None = None) -> None:
        """Like Database."""
        super().__init__(url, key, observe)
        self._kinds = kinds

    # --- resources ----------------------------------------------------------------------------------------------------

    def generation(self) -> int:
        """Grows with every change of a resource."""
        with self._transaction("generation") as connection:
            return self._read_generation(connection)

    @staticmethod
    def _read_generation(connection: sa.Connection) -> int:
        value = connection.execute(sa.select(facts.c.value).where(facts.c.name == _GENERATION)).scalar()
        return int(value or 0)

    @staticmethod
    def _advance(connection: sa.Connection) -> None:
        where = facts.c.name == _GENERATION
        value = connection.execute(sa.select(facts.c.value).where(where)).scalar()
        if value is None:
            connection.execute(facts.insert().values(name=_GENERATION, value="1"))
        else:
            connection.execute(facts.update().where(where).values(value=str(int(value) + 1)))

    def get(self, type_name: str, mesh: str, name: str) -> Resource:
        """What is in force of a resource. Raises NotFound, or IncompatibleStore if nothing is."""
        return self._resource(self.read_one(type_name, mesh, name))

    def read_one(self, type_name: str, mesh: str, name: str) -> Resource | Unreadable:
        """Raises NotFound."""
        with self._transaction("get") as connection:
            row = connection.execute(sa.select(resources).where(_is(type_name, mesh, name))).one_or_none()
        if row is None:
            raise NotFound(_missing(type_name, mesh, name))
        return self._read(row)

    def has(self, type_name: str, mesh: str, name: str) -> bool:
        with self._transaction("get") as connection:
            return connection.execute(sa.select(1).where(_is(type_name, mesh, name))).scalar() is not None

    def list(self, type_name: str | None = None, mesh: str | None = None) -> Sequence[Resource]:
        """Sorted by type, mesh and name; without resources that this version cannot read."""
        return _readable(self.read(type_name, mesh))

    def unreadable(self, type_name: str | None = None) -> Sequence[Unreadable]:
        """The resources that this version cannot read."""
        return [found for found in self.read(type_name) if isinstance(found, Unreadable)]

    def names(self, type_name: str, mesh: str = "") -> Sequence[str]:
        """Includes resources that cannot be read."""
        where = sa.and_(resources.c.type == type_name, resources.c.mesh == mesh)
        with self._transaction("list") as connection:
            return list(
                connection.execute(sa.select(resources.c.name).where(where).order_by(resources.c.name)).scalars()
            )

    def read(
        self, type_name: str | None = None, mesh: str | None = None, after: str = "", limit: int | None = None
    ) -> Sequence[Resource | Unreadable]:
        """Like `list`, including unreadable resources; `after` is the last name of the previous page."""
        query = sa.select(resources).order_by(resources.c.type, resources.c.mesh, resources.c.name)
        if type_name is not None:
            query = query.where(resources.c.type == type_name)
        if mesh is not None:
            query = query.where(resources.c.mesh == mesh)
        if after:
            query = query.where(resources.c.name > after)
        if limit is not None:
            query = query.limit(limit)
        with self._transaction("list") as connection:
            rows = connection.execute(query).all()
        return [self._read(row) for row in rows]

    def read_mesh(self, mesh: str, known: Mapping[Key, Resource | Unreadable]) -> MeshContent:
        """All resources of a mesh; those that have not changed since they were read are taken from `known`.

        Making a resource from a row takes some 100 us; a mesh of thousands is read at each change.
        """
        where = resources.c.mesh == mesh
        marks = sa.select(resources.c.type, resources.c.name, resources.c.version, resources.c.modified_at)
        with self._transaction("list") as connection:
            generation = self._read_generation(connection)
            found: dict[Key, Resource | Unreadable | None] = {}
            for row in connection.execute(marks.where(where)):
                before = known.get((row.type, mesh, row.name))
                same = before is not None and (before.version, before.modification_time) == row[2:]
                found[row.type, mesh, row.name] = before if same else None
            changed = [(type_name, name) for (type_name, _, name), resource in found.items() if resource is None]
            rows: list[Any] = []
            for some in (changed[at : at + _ROWS_AT_ONCE] for at in range(0, len(changed), _ROWS_AT_ONCE)):
                key = sa.tuple_(resources.c.type, resources.c.name)
                rows += connection.execute(sa.select(resources).where(where, key.in_(some))).all()
        read = {(row.type, mesh, row.name): self._read(row) for row in rows}
        content = [one for _, one in sorted((found | read).items()) if one is not None]
        return MeshContent(generation, _readable(content), [one for one in content if isinstance(one, Unreadable)])

    def put(self, resource: Resource, expected_version: int | None = None) -> Resource:
        """Creates or changes it. `expected_version`: 0 if it must be new, None for any. Raises Conflict.

        If it already is as requested, nothing is written, and the version stays.
        """
        with self._transaction("put", writes=True) as connection:
            return self._put(connection, resource, expected_version)

    def put_all(self, wanted: Sequence[Resource]) -> Sequence[Resource]:
        """Stores all of them or, if one is rejected, none."""
        ordered = sorted(wanted, key=lambda resource: resource.kind.in_mesh)
        with self._transaction("put", writes=True) as connection:
            stored = {resource.key: self._put(connection, resource, None) for resource in ordered}
        return [stored[resource.key] for resource in wanted]

    def _put(self, connection: sa.Connection, resource: Resource, expected: int | None) -> Resource:
        where = _is(*resource.key)
        row = connection.execute(sa.select(resources).where(where)).one_or_none()
        found = row.version if row is not None else 0
        if expected is not None and expected != found:
            raise Conflict(_not_at(*resource.key, found, expected))
        if resource.mesh and connection.execute(sa.select(1).where(_is("Mesh", "", resource.mesh))).scalar() is None:
            raise Conflict(f"{_name(*resource.key)}: there is no Mesh {resource.mesh!r}; create it first")
        content = {"labels": dict(resource.labels), "spec": resource.spec.to_data()}
        if row is not None and row.labels == content["labels"] and row.spec == content["spec"]:
            return self._resource(self._read(row))
        now = timestamp()
        if row is None:
            type_name, mesh, name = resource.key
            values = {"type": type_name, "mesh": mesh, "name": name, **content}
            connection.execute(resources.insert().values(**values, version=1, created_at=now, modified_at=now))
        else:
            connection.execute(resources.update().where(where).values(**content, version=found + 1, modified_at=now))
        self._advance(connection)
        return resource.stored(found + 1, row.created_at if row is not None else now, now)

    def delete(self, type_name: str, mesh: str, name: str, expected_version: int | None = None) -> None:
        """Deleting a Mesh deletes all that is in it, but fails while it has dataplanes. Raises NotFound, Conflict."""
        with self._transaction("delete", writes=True) as connection:
            if expected_version is not None:
                found = connection.execute(sa.select(resources.c.version).where(_is(type_name, mesh, name))).scalar()
                if found is not None and found != expected_version:
                    raise Conflict(_not_at(type_name, mesh, name, found, expected_version))
            if type_name == "Mesh":
                self._empty_mesh(connection, name)
            if connection.execute(resources.delete().where(_is(type_name, mesh, name))).rowcount == 0:
                raise NotFound(_missing(type_name, mesh, name))
            # A new resource of that name gets new secrets.
            own = {"MeshIdentity": ca_secret, "Dataplane": svid_secret}.get(type_name)
            if own is not None:
                connection.execute(secrets.delete().where(secrets.c.name == own(mesh, name)))
            self._advance(connection)

    @staticmethod
    def _empty_mesh(connection: sa.Connection, mesh: str) -> None:
        in_mesh = resources.c.mesh == mesh
        query = sa.select(sa.func.count()).where(in_mesh, resources.c.type == "Dataplane")
        dataplanes = connection.execute(query).scalar_one()
        if dataplanes:
            raise Conflict(f"Mesh {mesh!r} has {dataplanes} dataplanes: delete them first")
        connection.execute(resources.delete().where(in_mesh))
        prefix = f"mesh/{mesh}/"
        connection.execute(secrets.delete().where(secrets.c.name.startswith(prefix, autoescape=True)))

    def _read(self, row: Any) -> Resource | Unreadable:
        kind = self._kinds.of_type(row.type)
        if kind is None:
            return _unreadable(row, f"the type {row.type} is not known")
        spec, problem = read_spec(kind, row.spec)
        made = None
        if spec is not None:
            made = Resource(kind, row.mesh, row.name, spec, row.labels)
            made = made.stored(row.version, row.created_at, row.modified_at)
        return made if made is not None and not problem else _unreadable(row, problem, made)

    @staticmethod
    def _resource(found: Resource | Unreadable) -> Resource:
        if isinstance(found, Resource):
            return found
        if found.kept is None:
            raise IncompatibleStore(f"{_name(*found.key)} as stored is not valid for this version: {found.problem}")
        return found.kept

    # --- secrets ------------------------------------------------------------------------------------------------------

    def secret(self, name: str) -> bytes | None:
        with self._transaction("secret") as connection:
            sealed = connection.execute(sa.select(secrets.c.sealed).where(secrets.c.name == name)).scalar()
        return None if sealed is None else self._sealer.open(name, sealed)

    def secret_names(self, prefix: str) -> Sequence[str]:
        query = sa.select(secrets.c.name).where(secrets.c.name.startswith(prefix, autoescape=True))
        with self._transaction("secret") as connection:
            return list(connection.execute(query.order_by(secrets.c.name)).scalars())

    def secret_marks(self, prefix: str) -> Mapping[str, tuple[int, str]]:
        """By name, what tells one content from another: the version, and when it was written."""
        query = sa.select(secrets.c.name, secrets.c.version, secrets.c.modified_at)
        with self._transaction("secret") as connection:
            rows = connection.execute(query.where(secrets.c.name.startswith(prefix, autoescape=True))).all()
        return {row.name: (row.version, row.modified_at) for row in rows}

    def put_secret(self, name: str, secret: bytes, expected: bytes | None = None, only_new: bool = False) -> None:
        """`expected` is what it must be now, `only_new` that it must not exist: else Conflict."""
        sealed = self._sealer.seal(name, secret)
        with self._transaction("put_secret", writes=True) as connection:
            row = connection.execute(sa.select(secrets).where(secrets.c.name == name)).one_or_none()
            current = None if row is None else self._sealer.open(name, row.sealed)
            if (only_new and row is not None) or (expected is not None and current != expected):
                raise Conflict(f"the secret {name!r} was changed concurrently; read it again")
            if row is None:
                connection.execute(
                    secrets.insert().values(name=name, sealed=sealed, version=1, modified_at=timestamp())
                )
            else:
                values = {"sealed": sealed, "version": row.version + 1, "modified_at": timestamp()}
                connection.execute(secrets.update().where(secrets.c.name == name).values(**values))

    def delete_secret(self, name: str) -> None:
        with self._transaction("delete_secret", writes=True) as connection:
            connection.execute(secrets.delete().where(secrets.c.name == name))

    # --- issued and revoked tokens ------------------------------------------------------------------------------------

    def record_issued(self, jti: str, expires_at: int, what: str, now: float, keep_s: int = KEPT_AFTER_S) -> None:
        """Stores the id of an issued token or certificate, until `keep_s` after its expiry. `what`: a description.

        It is stored among the facts, since the previous version would reject a database with another table.
        """
        until, end = max(0, expires_at + keep_s), max(0, expires_at)
        # All numbers have the same length, so that they compare as texts.
        value = f"{until:020d} {end:020d} {what}"
        with self._transaction("record_issued", writes=True) as connection:
            # "0" is the character after "/": a range uses the index, as LIKE does not.
            is_issued = sa.and_(facts.c.name >= _ISSUED, facts.c.name < _ISSUED[:-1] + "0")
            connection.execute(facts.delete().where(is_issued, facts.c.value < f"{max(0, int(now)):020d}"))
            connection.execute(facts.insert().values(name=_ISSUED + jti, value=value))

    def issued(self, jti: str) -> tuple[int, str] | None:
        """When it expires, and what it is; None if it was not issued here, or expired long ago."""
        with self._transaction("issued") as connection:
            value = connection.execute(sa.select(facts.c.value).where(facts.c.name == _ISSUED + jti)).scalar()
        if value is None:
            return None
        _, end, what = value.split(" ", 2)
        return int(end), what

    def revoke(self, jti: str, expires_at: int, reason: str) -> None:
        """Valid until `expires_at`, and a year more: then the entry is dropped, as the token is useless anyway."""
        with self._transaction("revoke", writes=True) as connection:
            connection.execute(
                revocations.delete().where(revocations.c.expires_at < int(time.time()) - FORGOTTEN_AFTER_S)
            )
            connection.execute(revocations.delete().where(revocations.c.jti == jti))
            connection.execute(revocations.insert().values(jti=jti, expires_at=expires_at, reason=reason))

    def revoked(self, jtis: Iterable[str]) -> set[str]:
        """Those of them that are revoked."""
        wanted, found = sorted(set(jtis)), set[str]()
        with self._transaction("is_revoked") as connection:
            for at in range(0, len(wanted), _ROWS_AT_ONCE):
                some = revocations.c.jti.in_(wanted[at : at + _ROWS_AT_ONCE])
                found |= set(connection.execute(sa.select(revocations.c.jti).where(some)).scalars())
        return found

    def is_revoked(self, jti: str) -> bool:
        with self._transaction("is_revoked") as connection:
            return connection.execute(sa.select(1).where(revocations.c.jti == jti)).scalar() is not None


def _readable(found: Iterable[Resource | Unreadable]) -> Sequence[Resource]:
    """Replaces unreadable resources by what stays in force of them."""
    in_force = [one if isinstance(one, Resource) else one.kept for one in found]
    return [one for one in in_force if one is not None]


def _unreadable(row: Any, problem: str, kept: Resource | None = None) -> Unreadable:
    data = {"type": row.type, "name": row.name, **({"mesh": row.mesh} if row.mesh else {})}
    data |= {"labels": row.labels} if row.labels else {}
    data |= {"creationTime": row.created_at, "modificationTime": row.modified_at, "version": row.version}
    data["spec"] = row.spec
    return Unreadable(row.type, row.mesh, row.name, row.version, row.modified_at, problem, data, kept)


def _is(type_name: str, mesh: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(resources.c.type == type_name, resources.c.mesh == mesh, resources.c.name == name)


def _name(type_name: str, mesh: str, name: str) -> str:
    return f"{type_name} {name!r}" + (f" in mesh {mesh!r}" if mesh else "")


def _not_at(type_name: str, mesh: str, name: str, found: int, expected: int) -> str:
    state = f"is at version {found}" if found else "does not exist"
    return f"{_name(type_name, mesh, name)} {state}, not at {expected}: read it again and repeat the change"


def _missing(type_name: str, mesh: str, name: str) -> str:
    return f"there is no {_name(type_name, mesh, name)}"
