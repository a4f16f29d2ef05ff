"""What the running daemon exposes to those who steer and observe it.

The interfaces know the daemon only by these protocols, so that the daemon can know its interfaces.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from offload import _dataplane
from offload.config.settings import Config
from offload.identities.in_force import Changes, Plan
from offload.identities.uses import IdentityUses
from offload.interfaces.audit import AuditLog
from offload.issuing.generator import GeneratedIdentities
from offload.mesh.configuration import Bound
from offload.mesh.membership import Membership


@dataclass(frozen=True)
class ReloadReport:
    """What a reload did; with a configuration error, the running configuration stays in force."""

    configuration_error: str = ""
    needs_restart: tuple[str, ...] = ()
    changes: Changes = field(default_factory=Changes)


class Observed(Protocol):
    """The view for metrics."""

    started_at: float

    @property
    def plan(self) -> Plan: ...
    @property
    def generated(self) -> GeneratedIdentities: ...
    @property
    def audit(self) -> AuditLog | None: ...
    @property
    def membership(self) -> Membership | None: ...
    def statistics(self) -> _dataplane.Statistics: ...
    def identity_uses(self) -> IdentityUses: ...


class Steered(Protocol):
    """The view for the admin interface."""

    config: Config
    started_at: float
    draining: bool

    @property
    def plan(self) -> Plan: ...
    @property
    def membership(self) -> Membership | None: ...
    def limits(self) -> tuple[Bound, Bound]: ...
    def statistics(self) -> _dataplane.Statistics: ...
    def identity_uses(self) -> IdentityUses: ...
    def backend_reason(self) -> str: ...
    def sandbox(self) -> str: ...
    def ask_stop(self, why: str) -> None: ...
    def ask_reload(self, why: str) -> Future[ReloadReport]: ...
