"""The stages of replacing a CA without a failed request, as a table. Pure; who has what is told from outside.

Theory of operation
-------------------
    STABLE --BEGIN--> DISTRIBUTING --DISTRIBUTED--> ISSUING --REPLACED--> RETIRING --RETIRED--> STABLE
                          |
                        ABORT
                          v
                        STABLE

STABLE        One CA. It is in every bundle and signs.
DISTRIBUTING  A new CA is in every bundle beside the old one, which still signs. DISTRIBUTED: every node and proxy has
              taken a bundle with both. Only now can anybody present a certificate of the new CA.
ISSUING       The new CA signs; both are in the bundles. REPLACED: no certificate of the old CA is valid any more, or in
              use.
RETIRING      The old CA is taken from the bundles. RETIRED: every node and proxy has taken a bundle without it. Until
              then the rotation is not over, and no other one can begin.

What must hold in every stage: the CA that signs is in every bundle that anybody has, and so is every CA with a
certificate in use. ABORT is possible as long as the new CA has signed nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from control.ca.authority import Authority, from_pem


class Stage(Enum):
    STABLE = "Stable"
    DISTRIBUTING = "Distributing"
    ISSUING = "Issuing"
    RETIRING = "Retiring"


class Event(Enum):
    BEGIN = "begin"
    DISTRIBUTED = "distributed"
    REPLACED = "replaced"
    RETIRED = "retired"
    ABORT = "abort"


TRANSITIONS: Mapping[Stage, Mapping[Event, Stage]] = {
    Stage.STABLE: {Event.BEGIN: Stage.DISTRIBUTING},
    Stage.DISTRIBUTING: {Event.DISTRIBUTED: Stage.ISSUING, Event.ABORT: Stage.STABLE},
    Stage.ISSUING: {Event.REPLACED: Stage.RETIRING},
    Stage.RETIRING: {Event.RETIRED: Stage.STABLE},
}

# What each stage waits for, in words for `mesh ca rotate`.
WAITS_FOR: Mapping[Stage, str] = {
    Stage.STABLE: "nothing: no rotation is under way",
    Stage.DISTRIBUTING: "every node and proxy to take the trust bundle with the new CA",
    Stage.ISSUING: "every certificate of the old CA to be replaced or to expire",
    Stage.RETIRING: "every node and proxy to take the trust bundle without the old CA",
}


class WrongStage(ValueError):
    """The event cannot happen in this stage."""


@dataclass(frozen=True)
class Rotation:
    """The CAs of one MeshIdentity and the stage of their rotation. `other` is None in STABLE."""

    stage: Stage
    current: Authority
    # DISTRIBUTING: the one that will be current. ISSUING and RETIRING: the one that was.
    other: Authority | None = None

    @property
    def issuer(self) -> Authority:
        return self.current

    @property
    def bundle(self) -> tuple[Authority, ...]:
        """What everybody has to trust, the issuer first."""
        if self.other is None or self.stage is Stage.RETIRING:
            return (self.current,)
        return (self.current, self.other)

    def check(self, event: Event) -> Stage:
        """The stage that the event leads to. Raises WrongStage."""
        stage = TRANSITIONS[self.stage].get(event)
        if stage is None:
            waits = WAITS_FOR[self.stage]
            raise WrongStage(f"{event.value} is not possible in stage {self.stage.value}, which waits for {waits}")
        return stage

    def step(self, event: Event, new: Authority | None = None) -> Rotation:
        """Raises WrongStage. `new` goes with BEGIN."""
        stage = self.check(event)
        if event is Event.BEGIN:
            if new is None:
                raise WrongStage("a rotation needs the new CA")
            return Rotation(stage, self.current, new)
        if event is Event.DISTRIBUTED:
            assert self.other is not None
            return Rotation(stage, self.other, self.current)
        return replace(self, stage=stage, other=None if stage is Stage.STABLE else self.other)

    def to_json(self) -> str:
        """For the store, which seals it: it has the keys."""
        authorities = [self.current] + ([self.other] if self.other else [])
        return json.dumps({"stage": self.stage.value, "authorities": [authority.to_pem() for authority in authorities]})

    @staticmethod
    def from_json(text: str, now: datetime) -> Rotation:
        data = json.loads(text)
        current, *other = [from_pem(certificate, key, "the stored CA", now) for certificate, key in data["authorities"]]
        return Rotation(Stage(data["stage"]), current, other[0] if other else None)
