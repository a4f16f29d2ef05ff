"""Whatever changes, and however late, lost or refusing proxies and nodes are: no plan breaks a call that works."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.mesh.facts import COUNTS, NOTHING, Place
from tests.control.mesh.world import Labels, Wish, World, dataplane, with_labels

NAMES = ("a1", "a2", "b1", "b2", "c1")
PLACES = (None, Place("n1", "/run/1"), Place("n1", "/run/2"), Place("n2", "/run/1"))

names = st.sampled_from(NAMES)
labels = st.fixed_dictionaries(
    {"has_identity": st.booleans(), "strict": st.booleans(), "place": st.sampled_from(PLACES)}
)
steps = st.one_of(
    # What is stored changes: of one dataplane, of all of them, or of the MeshIdentity.
    st.tuples(st.just("label"), names, labels),
    st.tuples(st.just("all"), labels),
    st.tuples(st.just("identity"), st.sampled_from(["workload", "sa"]), st.sampled_from(["one", "two"])),
    # Something happens to a proxy or a node.
    st.tuples(st.just("take"), names, st.sampled_from(["serving", "calling"])),
    st.tuples(st.just("go"), names),
    st.tuples(st.just("go"), names),
    st.tuples(st.just("acknowledge"), names),
    st.tuples(st.just("refuse"), names, st.booleans()),
    st.tuples(st.just("disconnect"), names),
    st.tuples(st.just("connect"), names),
    st.tuples(st.just("node"), st.sampled_from(["n1", "n2"])),
    st.tuples(st.just("settle")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("time")),
)


def beginning(**more: Any) -> World:
    """All are there, and have come to rest."""
    world = World(Wish({name: Labels(service=name[0], **more) for name in NAMES}))
    world.settle()
    return world


def act(world: World, step: Sequence[Any]) -> None:
    what, *more = step
    if what == "label":
        world.change(with_labels(world.wish, more[0], **more[1]))
    elif what == "all":
        dataplanes = {name: replace(one, **more[0]) for name, one in world.wish.dataplanes.items()}
        world.change(replace(world.wish, dataplanes=dataplanes))
    elif what == "identity":
        world.change(replace(world.wish, path=more[0], domain=more[1]))
    elif what == "take":
        world.take(*more)
    elif what == "go":
        world.take(more[0], "serving")
        world.take(more[0], "calling")
        world.acknowledge(more[0])
    elif what == "acknowledge":
        world.acknowledge(more[0])
    elif what == "refuse":
        world.proxies[more[0]].refuses = more[1]
    elif what == "disconnect":
        world.disconnect(more[0])
    elif what == "connect":
        world.connect(more[0])
    elif what == "node":
        world.node_takes(more[0])
    elif what == "settle":
        world.settle()
    elif what == "restart":
        world.restart()
    else:
        world.pass_time()


@dataclass
class Route:
    """The members of a service that a caller may pick: those that answer it, and those that do not."""

    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def routes(world: World) -> dict[tuple[str, str], Route]:
    found: dict[tuple[str, str], Route] = defaultdict(Route)
    for caller, service, member, succeeds in world.routes():
        route = found[caller, service]
        (route.good if succeeds else route.bad).append(member)
    return found


def may_be_gone(world: World, member: str) -> bool:
    """Whether a member may be left out: it is away for long, has come back from that, or has no identity."""
    known = world.evidence.known([dataplane(member)], world.now)[member]
    return known.presence not in COUNTS or NOTHING in known.possible or not world.wish.dataplanes[member].has_identity


@pytest.mark.slow(seconds=5)
@settings(max_examples=300, deadline=None)
@given(labels, st.lists(steps, max_size=25))
def test_no_call_that_works_is_broken(first: dict[str, Any], changes: Sequence[Sequence[Any]]) -> None:
    world = beginning(**first)
    before = routes(world)
    for step in changes:
        act(world, step)
        now = routes(world)
        for (caller, service), route in before.items():
            if route.bad or not route.good:
                continue
            after = now[caller, service]
            assert not after.bad, f"{step} breaks calls of {caller} to {after.bad}: {world.plan.waits}"
            lost = [member for member in route.good if not may_be_gone(world, member)]
            assert after.good or not lost, f"{step} leaves {caller} without {lost}: {world.plan.waits}"
        before = now


@pytest.mark.slow(seconds=3)
@settings(max_examples=200, deadline=None)
@given(labels, st.lists(steps, max_size=20))
def test_what_is_wanted_is_reached(first: dict[str, Any], changes: Sequence[Sequence[Any]]) -> None:
    """Once everybody is there; and then only what lacks an identity among those that have one waits."""
    world = beginning(**first)
    for step in changes:
        act(world, step)
    world.settle()
    wanted = world.wish.wanted()
    for name, proxy in wanted.proxies.items():
        given = world.plan.facts[name]
        if proxy.identity is not None:
            assert (given.identity, given.place) == (proxy.identity, proxy.place), world.plan.waits
    if len({proxy.identity is None for proxy in wanted.proxies.values()}) == 1:
        assert world.plan.waits == ()
        assert not world.plan.retained
        for name, proxy in wanted.proxies.items():
            assert world.plan.facts[name].identity == proxy.identity
            assert {s: one.plaintext for s, one in world.plan.facts[name].inbounds.items()} == proxy.plaintext
            assert all(call.tls is (proxy.identity is not None) for call in world.plan.facts[name].calls.values())
        assert all(route.good and not route.bad for route in routes(world).values())
