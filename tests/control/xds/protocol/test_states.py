"""The table of states: complete, and nothing in it that cannot be reached."""

from __future__ import annotations

import pytest

from control.xds.protocol.states import TRANSITIONS, Event, Phase, ProtocolBug, step


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("event", list(Event))
def test_every_pair_is_in_the_table_or_a_bug(phase: Phase, event: Event) -> None:
    if event in TRANSITIONS[phase]:
        assert step(phase, event) in Phase
    else:
        with pytest.raises(ProtocolBug, match=f"{event.name} in {phase.name}"):
            step(phase, event)


def test_every_phase_can_be_reached_and_left() -> None:
    reached, frontier = {Phase.UNASKED}, [Phase.UNASKED]
    while frontier:
        for phase in TRANSITIONS[frontier.pop()].values():
            if phase not in reached:
                reached.add(phase)
                frontier.append(phase)
    assert reached == set(Phase)
    assert all(set(transitions.values()) - {phase} for phase, transitions in TRANSITIONS.items())


def test_only_a_settled_type_is_sent_and_only_a_waiting_one_is_answered() -> None:
    assert [phase for phase in Phase if Event.SENT in TRANSITIONS[phase]] == [Phase.SETTLED]
    for answer in (Event.ACK, Event.NACK):
        assert [phase for phase in Phase if answer in TRANSITIONS[phase]] == [Phase.WAITING]
