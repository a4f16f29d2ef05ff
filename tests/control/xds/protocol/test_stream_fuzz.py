"""A client that says anything at any time: the machine never fails, and sends nothing twice without an ACK between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, intern
from control.xds.protocol import stream as streams
from control.xds.protocol.messages import Abort, Acked, DeltaRequest, Nacked, Request, Respond
from control.xds.snapshot import TYPES, Snapshot

urls = st.sampled_from([CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, "type.googleapis.com/unknown", ""])
names = st.lists(st.sampled_from(["a", "b", "c", "*", "", "x" * 3000]), max_size=4).map(tuple)
nonces = st.sampled_from(["", "0", "1", "2", "3", "4", "5", "6", "x"])
errors = st.none() | st.sampled_from(["", "no"])
snapshots = st.builds(
    lambda chosen: Snapshot(
        {
            url: {name: intern(name, f"{url}{content}".encode()) for name, content in of.items()}
            for url, of in chosen.items()
        }
    ),
    st.dictionaries(st.sampled_from(TYPES), st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3)),
)
requests = st.builds(Request, urls, names, st.sampled_from(["", "v"]), nonces, errors)
delta_requests = st.builds(
    DeltaRequest, urls, names, names, st.dictionaries(st.sampled_from("abc"), st.just("v"), max_size=2), nonces, errors
)


def check(stream: streams.Stream, events: list[object]) -> None:
    on_their_way: set[str] = set()
    for moment, event in enumerate(events):
        if isinstance(event, Snapshot):
            actions = stream.update(event, moment)
        else:
            assert isinstance(event, Request | DeltaRequest)
            actions = stream.receive(event, moment)
        for action in actions:
            if isinstance(action, Abort):
                return
            if isinstance(action, Acked | Nacked):
                assert action.type_url in on_their_way
                on_their_way.discard(action.type_url)
            elif isinstance(action, Respond):
                assert action.type_url not in on_their_way
                on_their_way.add(action.type_url)
        on_their_way &= {url for url, subscription in stream.subscriptions.items() if subscription.is_asked}
        assert stream.deadline is None or stream.deadline >= 0


@pytest.mark.slow(seconds=6)
@pytest.mark.parametrize(
    ("make", "said"),
    [(streams.state_of_the_world, requests), (streams.delta, delta_requests)],
    ids=["state of the world", "delta"],
)
def test_anything_at_any_time(make: Callable[[], streams.Stream], said: st.SearchStrategy[object]) -> None:
    @settings(max_examples=400, deadline=None)
    @given(st.lists(snapshots | said, max_size=25))
    def run(events: list[object]) -> None:
        check(make(), events)

    run()
