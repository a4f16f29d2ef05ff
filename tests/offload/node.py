"""A keys directory and what is in force because of it."""

from __future__ import annotations

import datetime
from pathlib import Path

from offload.config.settings import Config
from offload.identities.directory import KeysDirectory
from offload.identities.plan import IdentityInForce, Plan, bundle_files, plan
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
        self.plan = plan(self.plan.identities, self.directory.look(bundle_files(self.config)), self.config, now)
        return self.plan

    def reasons(self) -> list[str]:
        return [f"{Path(p.path).name}: {p.reason}" for p in self.plan.problems]

    def message(self, name: str) -> private_key_pb2.Identity:
        return private_key_pb2.Identity.FromString(self.plan.identities[name].message)


def algorithms(identity: IdentityInForce) -> list[str]:
    return [pair.key.algorithm for pair in identity.pairs]
