"""The resources of `resources/`, adapted to this run: its addresses, its user, its socket.

The files are an example to read and to apply as they are; nothing in them is a template.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from control.kinds import KINDS
from control.model import documents
from control.model.placement import UID_LABEL
from control.model.resource import Resource, parse
from deploy.node.processes import NodeError

FOLDER = Path(__file__).parent / "resources"
# The addresses in the files are 127.0.70.x; each run uses a separate network, so that two runs do not collide.
WRITTEN = "127.0.70."
NETWORKS = range(70, 100)


@contextmanager
def own_network() -> Iterator[str]:
    """ "127.0.70." or another one, for this process alone. NodeError if all are taken."""
    for number in NETWORKS:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0tls-offload-demo-network-{number}")  # released when this process ends, however it ends
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        with claim:
            yield f"127.0.{number}."
        return
    raise NodeError(f"all networks of the demo, 127.0.{NETWORKS[0]}.0 and on, are in use by other runs")


def free_port() -> int:
    """A port of 127.0.0.1 below the range that the system assigns to connections: none takes it before it is used."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@dataclass
class Example:
    network: str
    socket: Path
    admin_ports: dict[str, int] = field(default_factory=dict)  # by dataplane

    def resources(self, *names: str, **settings: Any) -> list[Resource]:
        """The resources in resources/<name>.yaml. `settings` override those of a MeshOffload, for example keyType."""
        found: list[Resource] = []
        for name in names:
            path = FOLDER / f"{name}.yaml"
            text = path.read_text().replace(WRITTEN, self.network)
            found += [parse(self._here(document, settings), KINDS) for document in documents.load(text, str(path))]
        return found

    def _here(self, document: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        if document["type"] == "Dataplane":
            document["labels"][UID_LABEL] = str(os.getuid())
            port = self.admin_ports.setdefault(document["name"], free_port())
            document["spec"]["networking"]["admin"]["port"] = port
        elif document["type"] == "MeshOffload":
            wanted = document["spec"]["default"]
            wanted |= settings
            if "socket" in wanted:
                wanted["socket"] = str(self.socket)
        return document

    @cached_property  # traffic needs these addresses with each request
    def dataplanes(self) -> Sequence[Resource]:
        return [one for one in self.resources("services") if one.kind.type == "Dataplane"]
