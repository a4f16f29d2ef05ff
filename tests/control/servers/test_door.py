"""Who may be connected: the pure core, by cases and by random histories."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.servers import door
from control.servers.descriptors import API, GRPC, RESERVE, Wanted, bounds
from control.servers.door import Bounds, Door, Peer, Visit, group_of
from control.servers.doorkeeper import peer_of, peer_of_grpc

SMALL = Bounds(connections=8, per_address=5, strangers=6, strangers_per_address=3, stranger_s=10)


def reasons(sent: list[door.Sent]) -> list[tuple[Peer, str]]:
    return [(one.peer, one.reason) for one in sent]


def test_the_oldest_stranger_of_the_same_address_makes_room() -> None:
    one = Door(SMALL)
    for port in (1, 2, 3):
        assert one.arrived(("a", port), port) == []
    assert reasons(one.arrived(("a", 4), 4)) == [(("a", 1), door.STRANGERS_OF_ADDRESS)]
    assert one.arrived(("b", 1), 5) == []
    assert (len(one), one.strangers) == (4, 4)


def test_who_has_shown_a_credential_stays() -> None:
    one = Door(SMALL)
    visits = []
    for port in range(5):
        one.arrived(("a", port), 0)
        visits.append(one.welcome(("a", port), 0))
    assert one.strangers == 0
    assert reasons(one.arrived(("a", 9), 1)) == [(("a", 9), door.OF_ADDRESS)]  # the newcomer
    one.leave(visits[0], 2)
    assert reasons(one.arrived(("a", 9), 3)) == [(("a", 0), door.OF_ADDRESS)]
    assert one.arrived(("b", 1), 4) == []


def test_the_address_with_most_strangers_makes_room_for_others() -> None:
    one = Door(SMALL)
    for port in range(3):
        one.arrived(("a", port), 0)
    for address in ("b", "c", "d"):
        one.arrived((address, 1), 0)
    assert reasons(one.arrived(("e", 1), 1)) == [(("a", 0), door.STRANGERS)]


def test_who_makes_room_is_found_without_a_look_at_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of IPv6 has thousands, and so has loopback: each newcomer would cost half a millisecond."""

    class Unwalked(dict[str, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("all addresses are looked at")

    one = Door(SMALL)
    monkeypatch.setattr(one, "_strangers", Unwalked())
    for number in range(20):
        one.arrived((f"10.0.0.{number}", 1), number)
    assert (len(one), one.strangers) == (6, 6)


def test_strangers_are_overdue_and_those_who_were_let_in_begin_anew() -> None:
    one = Door(SMALL)
    one.arrived(("a", 1), 0)
    one.arrived(("a", 2), 5)
    visit = one.welcome(("a", 2), 6)
    assert [sent.peer for sent in one.overdue(10)] == [("a", 1)]
    assert one.overdue(1000) == []
    one.leave(visit, 1000)
    assert one.overdue(1009) == []
    assert reasons(one.overdue(1010)) == [(("a", 2), door.OVERDUE)]
    assert len(one) == 0


def test_a_welcome_may_come_before_anybody_has_seen_the_connection_and_a_farewell_after_it_is_gone() -> None:
    one = Door(SMALL)
    visit = one.welcome(("a", 1), 0)
    assert one.arrived(("a", 1), 1) == []
    one.gone(("a", 1))
    one.arrived(("a", 1), 2)  # another one, of the same port
    one.leave(visit, 3)
    assert (len(one), one.strangers) == (1, 1)


@given(st.lists(st.tuples(st.sampled_from("awlg"), st.sampled_from("abc"), st.integers(0, 9)), max_size=200))
def test_the_bounds_hold_after_every_event_and_nobody_known_is_sent_away(events: list[tuple[str, str, int]]) -> None:
    one, known = Door(SMALL), dict[Peer, list[Visit]]()
    for now, (what, address, port) in enumerate(events):
        peer = (address, port)
        if what == "a":
            for sent in one.arrived(peer, now):
                assert not known.get(sent.peer)
        elif what == "w" and peer in one.peers:
            known.setdefault(peer, []).append(one.welcome(peer, now))
        elif what == "l" and known.get(peer):
            one.leave(known[peer].pop(), now)
        elif what == "g":
            one.gone(peer)
            known.pop(peer, None)
        of = Counter(address for address, _ in one.peers)
        uses = {peer for peer, visits in known.items() if visits}
        assert one.strangers == len(set(one.peers) - uses)
        strangers = Counter(address for address, _ in set(one.peers) - uses)
        if strangers:
            assert strangers[one._largest()] == max(strangers.values())
        assert len(one) <= SMALL.connections
        assert all(count <= SMALL.per_address for count in of.values())
        if what == "a":
            assert one.strangers <= SMALL.strangers or uses


def test_addresses() -> None:
    assert group_of("2001:db8:1:2:3::4") == group_of("2001:db8:1:2::9") != group_of("2001:db8:1:3::9")
    assert group_of("::ffff:10.0.0.1") == group_of("10.0.0.1") != group_of("10.0.0.2")
    assert peer_of_grpc("ipv4:127.0.0.1:5678") == ("127.0.0.1", 5678) == peer_of("::ffff:127.0.0.1", 5678)
    assert peer_of_grpc("ipv6:%5B::1%5D:5678") == ("::1", 5678) == peer_of_grpc("ipv6:[::1]:5678")
    assert peer_of_grpc("unix:") == ("", 0)


@given(st.integers(256, 1 << 20), st.integers(16, 100_000), st.integers(16, 100_000))
def test_there_are_descriptors_for_all_bounds(limit: int, connections: int, per_address: int) -> None:
    found = bounds(limit, Wanted(connections, per_address))
    # Each of gRPC's two ports takes in as many as both may have, until the next look.
    most = found[API].connections + 2 * found[GRPC].connections
    assert most <= max(limit - RESERVE, limit // 2)
    for of in found.values():
        assert 0 < of.strangers_per_address <= of.strangers <= of.connections
        assert of.per_address <= of.connections
