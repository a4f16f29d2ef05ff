"""Rotation of a CA: the table, and that at every moment every certificate in use is trusted by everybody."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.ca.authority import Authority, generate
from control.ca.rotation import TRANSITIONS, WAITS_FOR, Event, Rotation, Stage, WrongStage

NOW = datetime.now(UTC)
POOL = [generate("shop.example", NOW) for _ in range(6)]
OLD, NEW = POOL[:2]


def names(rotation: Rotation) -> tuple[str, list[str]]:
    known = {authority.fingerprint: name for name, authority in (("old", OLD), ("new", NEW))}
    return known[rotation.issuer.fingerprint], [known[a.fingerprint] for a in rotation.bundle]


def test_the_way_through() -> None:
    rotation = Rotation(Stage.STABLE, OLD)
    assert names(rotation) == ("old", ["old"])
    rotation = rotation.step(Event.BEGIN, NOW, NEW)
    assert names(rotation) == ("old", ["old", "new"])
    rotation = rotation.step(Event.DISTRIBUTED, NOW)
    assert names(rotation) == ("new", ["new", "old"])
    rotation = rotation.step(Event.REPLACED, NOW)
    assert names(rotation) == ("new", ["new"])
    rotation = rotation.step(Event.RETIRED, NOW)
    assert (names(rotation), rotation.other) == (("new", ["new"]), None)


def test_abort_before_the_new_one_signs() -> None:
    assert Rotation(Stage.STABLE, OLD).step(Event.BEGIN, NOW, NEW).step(Event.ABORT, NOW) == Rotation(Stage.STABLE, OLD)


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("event", list(Event))
def test_every_pair(stage: Stage, event: Event) -> None:
    rotation = Rotation(stage, OLD, None if stage is Stage.STABLE else NEW)
    if event in TRANSITIONS[stage]:
        assert rotation.step(event, NOW, NEW, force=True).stage is TRANSITIONS[stage][event]
    else:
        with pytest.raises(WrongStage, match=f"not possible in stage {stage.value}, which waits for"):
            rotation.step(event, NOW, NEW, force=True)
    assert WAITS_FOR[stage]


def test_begin_needs_the_new_one() -> None:
    with pytest.raises(WrongStage, match="requires the new CA"):
        Rotation(Stage.STABLE, OLD).step(Event.BEGIN, NOW)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_restart_in_any_stage(stage: Stage) -> None:
    rotation = Rotation(stage, OLD, None if stage is Stage.STABLE else NEW)
    again = Rotation.from_json(rotation.to_json())
    assert (again.stage, names(again)) == (stage, names(rotation))


class Workload:
    """Has a bundle and a certificate, each of some moment in the past."""

    def __init__(self, rotation: Rotation) -> None:
        self.trusts: tuple[Authority, ...] = rotation.bundle
        self.certified_by: Authority = rotation.issuer


# Workload n takes the bundle or renews its certificate; or the rotation tries an event.
moves = st.one_of(
    st.tuples(st.sampled_from(["bundle", "renew"]), st.integers(0, 2)),
    st.tuples(st.just("event"), st.sampled_from(list(Event))),
)


@pytest.mark.slow(seconds=2)
@given(st.lists(moves, max_size=60))
def test_at_every_moment_everybody_trusts_every_certificate_in_use(script: list[tuple[str, object]]) -> None:
    rotation, fresh = Rotation(Stage.STABLE, POOL[0]), iter(POOL[1:] * 12)
    workloads = [Workload(rotation) for _ in range(3)]
    for move, argument in script:
        if move == "bundle":
            workloads[int(str(argument))].trusts = rotation.bundle
        elif move == "renew":
            workloads[int(str(argument))].certified_by = rotation.issuer
        elif isinstance(argument, Event) and _may_happen(argument, rotation, workloads):
            rotation = rotation.step(argument, NOW, next(fresh))
        for server in workloads:
            for client in workloads:
                assert client.certified_by in server.trusts


def _may_happen(event: Event, rotation: Rotation, workloads: list[Workload]) -> bool:
    """What the outside has to see before it says so."""
    if event not in TRANSITIONS[rotation.stage] or event is Event.RESET:  # which is for CAs that have ended
        return False
    if event in (Event.DISTRIBUTED, Event.RETIRED):
        return all(workload.trusts == rotation.bundle for workload in workloads)
    return event is not Event.REPLACED or all(w.certified_by == rotation.issuer for w in workloads)
