"""The stages of replacing a CA without a failed request, as a table. Pure: callers say who has which bundle.

Theory of operation
-------------------
    STABLE --BEGIN--> DISTRIBUTING --DISTRIBUTED--> ISSUING --REPLACED--> RETIRING --RETIRED--> STABLE
                          |
                        ABORT                        any stage --RESET--> RETIRING
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

RESET is the way out of every stage, for a CA that keeps nobody's connections alive any more (it has ended, or it is not
valid yet), or whose key somebody else has. Another CA signs at once, and is the only one in the bundles: the one that
DISTRIBUTING was handing out, where there is one, else a new one. It waits for nobody. Where the CA could still sign,
that breaks connections until everybody has the new bundle and a new certificate; so then it has to be forced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from control.ca.authority import Authority, UnusableAuthority, load


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
    RESET = "reset"


TRANSITIONS: Mapping[Stage, Mapping[Event, Stage]] = {
    Stage.STABLE: {Event.BEGIN: Stage.DISTRIBUTING, Event.RESET: Stage.RETIRING},
    Stage.DISTRIBUTING: {
        Event.DISTRIBUTED: Stage.ISSUING,
        Event.ABORT: Stage.STABLE,
        Event.RESET: Stage.RETIRING,
    },
    Stage.ISSUING: {Event.REPLACED: Stage.RETIRING, Event.RESET: Stage.RETIRING},
    Stage.RETIRING: {Event.RETIRED: Stage.STABLE, Event.RESET: Stage.RETIRING},
}

# What each stage waits for, in words for `mesh ca rotate`.
WAITS_FOR: Mapping[Stage, str] = {
    Stage.STABLE: "nothing: no rotation is in progress",
    Stage.DISTRIBUTING: "every node and proxy to apply the trust bundle with the new CA",
    Stage.ISSUING: "every certificate of the old CA to be replaced or to expire",
    Stage.RETIRING: "every node and proxy to apply the trust bundle without the old CA",
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

    @property
    def handed_out(self) -> Authority | None:
        """The new CA that everybody is being told to trust, and that has not signed yet."""
        return self.other if self.stage is Stage.DISTRIBUTING else None

    def check(self, event: Event, now: datetime, force: bool = False) -> Stage:
        """The stage that the event leads to. Raises WrongStage."""
        stage = TRANSITIONS[self.stage].get(event)
        if stage is None:
            waits = WAITS_FOR[self.stage]
            raise WrongStage(f"{event.value} is not possible in stage {self.stage.value}, which waits for {waits}")
        if event is Event.DISTRIBUTED and self.other is not None and (problem := self.other.problem_at(now)):
            raise WrongStage(f"{event.value}: the new CA cannot sign ({problem}): abort, or reset")
        if event is Event.RESET and not force and self.current.problem_at(now) is None:
            raise WrongStage(
                f"{event.value}: the CA can still sign, and a reset breaks connections until every proxy has another "
                "bundle and certificate: begin a rotation instead, or force it (--force) if its key is compromised"
            )
        return stage

    def step(self, event: Event, now: datetime, new: Authority | None = None, force: bool = False) -> Rotation:
        """Raises WrongStage. `new` goes with BEGIN and RESET."""
        stage = self.check(event, now, force)
        if event in (Event.BEGIN, Event.RESET):
            if new is None:
                raise WrongStage("a rotation requires the new CA")
            return Rotation(stage, self.current, new) if event is Event.BEGIN else Rotation(stage, new, self.current)
        if event is Event.DISTRIBUTED:
            assert self.other is not None
            return Rotation(stage, self.other, self.current)
        return replace(self, stage=stage, other=None if stage is Stage.STABLE else self.other)

    def to_json(self) -> str:
        """For the store, which seals it: it has the keys."""
        authorities = [self.current] + ([self.other] if self.other else [])
        return json.dumps({"stage": self.stage.value, "authorities": [authority.to_pem() for authority in authorities]})

    @staticmethod
    def from_json(text: str) -> Rotation:
        """Whatever the time is: a CA that has ended is still there to be replaced. Raises UnusableAuthority."""
        try:
            data = json.loads(text)
            pairs = [(str(certificate), str(key)) for certificate, key in data["authorities"]]
            stage = Stage(data["stage"])
            current, *other = [load(certificate, key, "the stored CA") for certificate, key in pairs]
        except UnusableAuthority:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise UnusableAuthority(f"the stored CA is damaged: {error!r}") from None
        return Rotation(stage, current, other[0] if other else None)
