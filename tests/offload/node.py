"""A keys directory and what is in force because of it."""

from __future__ import annotations

import datetime
from pathlib import Path

from offload.config.settings import Config
from offload.identities.directory import KeysDirectory
from offload.identities.in_force import IdentityInForce, Plan
from offload.identities.inputs import Inputs
from offload.identities.plan import plan
from offload.identities.warnings import warnings_of
from offload.v1 import private_key_pb2
from tests.offload.key_files import NOW

EVERYBODY = [{"uid": 0}]


class Node:
    """A keys directory and what is in force because of it."""

    def __init__(self, folder: Path, **identities: dict[str, object]) -> None:
        self.folder = folder
        self.directory = KeysDirectory(folder)
        self.plan = Plan()
        self.configure({}, **identities)

    def configure(self, keys: dict[str, object], **identities: dict[str, object]) -> None:
        self.config = Config.model_validate({"keys": {"directory": str(self.folder)} | keys, "identities": identities})

    def look(self, now: datetime.datetime = NOW) -> Plan:
        listing = self.directory.look(self.config.bundle_files())
        self._inputs = Inputs(self.plan.identities, listing, self.config, now)
        self.plan = plan(self._inputs)
        return self.plan

    def warnings(self, now: datetime.datetime = NOW) -> list[str]:
        """Of what is in force after a look."""
        return [warning.text for warning in warnings_of(self.look(now), self._inputs)]

    def reasons(self) -> list[str]:
        return [f"{Path(p.path).name}: {p.reason}" for p in self.plan.problems]

    def message(self, name: str) -> private_key_pb2.Identity:
        return private_key_pb2.Identity.FromString(self.plan.identities[name].message)


def algorithms(identity: IdentityInForce) -> list[str]:
    return [pair.key.algorithm for pair in identity.pairs]
