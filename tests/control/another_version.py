"""What a newer version of the control plane leaves in a store that both use."""

from __future__ import annotations

import sqlalchemy as sa

from control.store.store import Store
from control.store.tables import resources

NEW_LOG = {"rules": [{"default": {"backends": [{"type": "Syslog", "syslog": {"host": "a"}}]}}]}


def write(store: Store, type_name: str, name: str, spec: object, mesh: str = "default") -> None:
    """As another version would, without this one's opinion."""
    with store._transaction("test", writes=True) as connection:
        key = {"type": type_name, "mesh": mesh, "name": name}
        where = sa.and_(*(resources.c[column] == value for column, value in key.items()))
        connection.execute(resources.delete().where(where))
        times = {"created_at": "2030", "modified_at": "2030"}
        connection.execute(resources.insert().values(**key, labels={}, spec=spec, version=7, **times))
        store._advance(connection)
