"""Random meshes change at random moments under a client that behaves as Envoy does. Whatever happens:

- a type never has two answers on its way;
- a route that the client has never leads to a cluster that it lacks, or whose endpoints it has not got;
- what is refused is not repeated;
- when all is quiet, the client has exactly the snapshot, or of a refused type what it had before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, Encoded, intern
from control.xds.protocol import stream as streams
from control.xds.protocol.messages import DeltaRequest, Request, Respond
from control.xds.snapshot import Snapshot

CLUSTERS = "abcd"


def world(targets: Sequence[str], contents: Sequence[int], bad: bool) -> Snapshot:
    """Route i leads to cluster targets[i]; only clusters that a route leads to are there. `bad`: for listeners."""
    clusters = {name: intern(name, f"c{contents[CLUSTERS.index(name)]}".encode()) for name in set(targets)}
    endpoints = {name: intern(name, b"e") for name in clusters}
    routes = {f"r{index}": intern(f"r{index}", target.encode()) for index, target in enumerate(targets)}
    kind = b"bad" if bad else b"good"
    listeners = {f"l{index}": intern(f"l{index}", kind) for index in range(len(targets))}
    return Snapshot({CLUSTER: clusters, ENDPOINTS: endpoints, LISTENER: listeners, ROUTES: routes})


def content(answer: Respond) -> object:
    return answer.resources, answer.removed


class EnvoyModel:
    """Asks as Envoy: endpoints of the clusters it has, routes of its listeners; refuses listeners that are `bad`.

    As Envoy it acknowledges clusters only when all are warm: when new and changed ones have got their endpoints.
    """

    def __init__(self, delta: bool) -> None:
        self.delta = delta
        self.stream = streams.delta() if delta else streams.state_of_the_world()
        self.has: dict[str, dict[str, Encoded]] = {url: {} for url in (CLUSTER, ENDPOINTS, LISTENER, ROUTES)}
        self.names: dict[str, set[str]] = {ENDPOINTS: set(), ROUTES: set()}
        self.inbox: deque[Respond] = deque()
        self.last: dict[str, Respond] = {}
        self.refused: list[tuple[str, object]] = []
        self.listeners_asked = False
        self.warming: set[str] = set()

    def deliver(self, actions: Sequence[object]) -> None:
        for action in actions:
            if isinstance(action, Respond):
                assert all(waiting.type_url != action.type_url for waiting in self.inbox), "two answers on their way"
                assert (action.type_url, content(action)) not in self.refused, "refused content again"
                self.inbox.append(action)

    def send(self, url: str, names: Sequence[str] = (), gone: Sequence[str] = (), error: str | None = None) -> None:
        answer = self.last.get(url)
        nonce = answer.nonce if answer else ""
        if self.delta:
            answers = error is not None or not (names or gone)
            request: Request | DeltaRequest = DeltaRequest(
                url, tuple(names), tuple(gone), {}, nonce if answers else "", error
            )
        else:
            every = tuple(sorted(self.names.get(url, ())))
            request = Request(url, every, answer.version if answer and error is None else "", nonce, error)
        self.deliver(self.stream.receive(request, 0.0))

    def begin(self) -> None:
        self.send(CLUSTER)

    def take_one(self) -> None:
        answer = self.inbox.popleft()
        url = answer.type_url
        self.last[url] = answer
        if url == LISTENER and any(b"bad" in resource.any_bytes for resource in answer.resources):
            # Between two contents that are both refused, each is a change.
            self.refused = [*(self.refused if self.delta else ()), (url, content(answer))]
            self.send(url, error="bad listener")
            return
        self.refused = [(refused, what) for refused, what in self.refused if refused != url]
        wanted = self.names.get(url)
        carried = {r.name: r for r in answer.resources if wanted is None or r.name in wanted}
        if url == CLUSTER:
            self.warming |= {name for name, cluster in carried.items() if self.has[CLUSTER].get(name) is not cluster}
        whole = url in (CLUSTER, LISTENER) and not self.delta
        self.has[url] = carried if whole else self.has[url] | carried
        for name in answer.removed:
            self.has[url].pop(name, None)
        self.check()
        if url == CLUSTER:
            self.warming &= set(self.has[CLUSTER])
            self.subscribe(ENDPOINTS, set(self.has[CLUSTER]))
            if not self.warming:
                self.send(CLUSTER)
        else:
            self.send(url)
        if url == ENDPOINTS and self.warming:
            self.warming -= carried.keys()
            if not self.warming:
                self.send(CLUSTER)
        if url == CLUSTER:
            if not self.listeners_asked:
                self.listeners_asked = True
                self.send(LISTENER)
        elif url == LISTENER:
            self.subscribe(ROUTES, {name.replace("l", "r") for name in self.has[LISTENER]})

    def subscribe(self, url: str, names: set[str]) -> None:
        added, gone = names - self.names[url], self.names[url] - names
        self.names[url] = names
        self.has[url] = {name: resource for name, resource in self.has[url].items() if name in names}
        if added or gone:
            self.send(url, sorted(added), sorted(gone))

    def check(self) -> None:
        for route in self.has[ROUTES].values():
            cluster = route.any_bytes.decode()
            assert cluster in self.has[CLUSTER], f"route {route.name} leads to {cluster}, which is not there"
            assert cluster in self.has[ENDPOINTS], f"route {route.name} leads to {cluster}, which has no endpoints"


worlds = st.builds(
    world,
    st.lists(st.sampled_from(CLUSTERS), min_size=1, max_size=3),
    st.lists(st.integers(0, 1), min_size=4, max_size=4),
    st.integers(0, 5).map(lambda number: number == 0),
)
# Between two snapshots the client takes so many answers; None: all there are.
steps = st.lists(st.tuples(worlds, st.one_of(st.none(), st.integers(0, 5))), min_size=1, max_size=8)


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("delta", [False, True], ids=["state of the world", "delta"])
@settings(max_examples=200, deadline=None)
@given(steps=steps)
def test_whatever_happens(delta: bool, steps: list[tuple[Snapshot, int | None]]) -> None:
    envoy = EnvoyModel(delta)
    envoy.begin()
    for snapshot, budget in steps:
        envoy.deliver(envoy.stream.update(snapshot, 0.0))
        taken = 0
        while envoy.inbox and (budget is None or taken < budget):
            envoy.take_one()
            taken += 1
            assert taken < 200, "it does not come to rest"
    taken = 0
    while envoy.inbox:
        envoy.take_one()
        taken += 1
        assert taken < 200, "it does not come to rest"
    final = steps[-1][0]
    if any(b"bad" in resource.any_bytes for resource in final.of_type(LISTENER).values()):
        return
    assert envoy.has[CLUSTER] == final.of_type(CLUSTER)
    assert envoy.has[LISTENER] == final.of_type(LISTENER)
    assert envoy.has[ROUTES] == final.of_type(ROUTES)
    assert {name: r.any_bytes for name, r in envoy.has[ENDPOINTS].items()} == dict.fromkeys(
        final.of_type(CLUSTER), b"e"
    )
    assert not envoy.warming
    assert envoy.stream.deadline is None
