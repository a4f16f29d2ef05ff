"""Stream scripts, delta: additions, removals, names on demand, coming back with versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from control.xds.protocol.messages import Abort, Acked, DeltaRequest, Ignored, Nacked
from control.xds.protocol.states import Phase
from control.xds.protocol.stream import MAX_NAMES
from control.xds.snapshot import Snapshot

Make = Callable[..., Snapshot]


def versions(snapshot: Snapshot, type_url: str) -> dict[str, str]:
    return {name: resource.version for name, resource in snapshot.of_type(type_url).items()}


def test_only_what_changed_is_sent(delta_client: Any, snapshot: Make) -> None:
    client = delta_client
    client.update(snapshot(CDS={"a": "1", "b": "1"}))
    assert client.ask("CDS") == [("CDS", "a b")]
    assert client.ack("CDS") == []
    assert client.actions == [Acked(CLUSTER, client.last[CLUSTER].version)]
    assert client.update(snapshot(CDS={"a": "1", "b": "2"})) == [("CDS", "b")]
    client.ack("CDS")
    assert client.update(snapshot(CDS={"b": "2", "c": "1"})) == [("CDS", "c -a")]


def test_an_empty_wildcard_is_answered_once(delta_client: Any, snapshot: Make) -> None:
    delta_client.update(snapshot())
    assert delta_client.ask("CDS") == [("CDS", "")]
    assert delta_client.ack("CDS") == []
    assert delta_client.update(snapshot()) == []


def test_names_are_added_and_taken_back(delta_client: Any, snapshot: Make) -> None:
    client = delta_client
    client.update(snapshot(RDS={"r": "1", "s": "1"}))
    assert client.ask("RDS", "r") == [("RDS", "r")]
    client.ack("RDS")
    assert client.ask("RDS", "s") == [("RDS", "s")]
    client.ack("RDS")
    assert client.ask("RDS", unsubscribe=("r",)) == []
    assert client.update(snapshot(RDS={"r": "2", "s": "2"})) == [("RDS", "s")]
    client.ack("RDS")
    assert client.ask("RDS", unsubscribe=("s",)) == []
    assert client.stream.subscriptions[ROUTES].phase is Phase.UNASKED


def test_asking_again_brings_it_again(delta_client: Any, snapshot: Make) -> None:
    delta_client.update(snapshot(RDS={"r": "1"}))
    delta_client.ask("RDS", "r")
    delta_client.ack("RDS")
    assert delta_client.ask("RDS", "r") == [("RDS", "r")]


def test_on_demand_names_that_do_not_exist_are_said_not_to(delta_client: Any, snapshot: Make) -> None:
    client = delta_client
    client.update(snapshot(CDS={"a": "1"}))
    assert client.ask("RDS", "r") == [("RDS", "-r")]
    assert client.ack("RDS") == []
    assert client.update(snapshot(CDS={"a": "1"}, RDS={"r": "1"})) == [("RDS", "r")]
    client.ack("RDS")
    assert client.update(snapshot(CDS={"a": "1"})) == [("RDS", "-r")]


def test_unknown_clusters_have_no_endpoints(delta_client: Any, snapshot: Make) -> None:
    delta_client.update(snapshot())
    assert delta_client.ask("EDS", "gone") == [("EDS", "gone")]
    delta_client.ack("EDS")
    assert delta_client.update(snapshot(EDS={"gone": "1"})) == [("EDS", "gone")]


def test_a_subscription_during_an_answer_is_served_after_it(delta_client: Any, snapshot: Make) -> None:
    client = delta_client
    client.update(snapshot(RDS={"r": "1", "s": "1"}))
    client.ask("RDS", "r")
    assert client.ask("RDS", "s") == []
    assert client.ack("RDS") == [("RDS", "s")]


def test_a_nack_keeps_what_the_client_had(delta_client: Any, snapshot: Make) -> None:
    client = delta_client
    client.update(snapshot(CDS={"a": "1", "b": "1"}))
    client.ask("CDS")
    client.ack("CDS")
    assert client.update(snapshot(CDS={"a": "bad", "b": "1", "c": "bad"})) == [("CDS", "a c")]
    assert client.nack("CDS", "no") == []
    assert client.actions == [Nacked(CLUSTER, client.last[CLUSTER].version, "no")]
    assert client.update(snapshot(CDS={"a": "bad", "b": "1", "c": "bad"})) == []
    assert client.update(snapshot(CDS={"a": "bad", "b": "2", "c": "bad"})) == [("CDS", "b")]
    client.ack("CDS")
    # a goes back to what the client has, c to what it never had: there is nothing to say.
    assert client.update(snapshot(CDS={"a": "1", "b": "2"})) == []
    assert client.update(snapshot(CDS={"a": "3", "b": "2"})) == [("CDS", "a")]


def test_stale_nonces_do_not_acknowledge_but_subscriptions_count(delta_client: Any, snapshot: Make) -> None:
    client = delta_client
    client.update(snapshot(RDS={"r": "1", "s": "1"}))
    client.ask("RDS", "r")
    first = client.last[ROUTES].nonce
    client.ack("RDS")
    client.update(snapshot(RDS={"r": "2", "s": "1"}))
    assert client.ask("RDS", "s", nonce=first) == []
    assert isinstance(client.actions[0], Ignored)
    assert client.ack("RDS") == [("RDS", "s")]


def test_coming_back_with_versions(delta_client: Any, snapshot: Make) -> None:
    client, old = delta_client, snapshot(CDS={"a": "1", "b": "1", "c": "1"}, LDS={"l": "1"})
    client.update(snapshot(CDS={"a": "1", "b": "2"}, LDS={"l": "1"}))
    assert client.ask("CDS", "*", have=versions(old, CLUSTER)) == [("CDS", "b -c")]
    client.ack("CDS")
    assert client.ask("LDS", "*", have=versions(old, LISTENER)) == []


def test_removed_clusters_stay_until_routes_and_listeners_have_moved(delta_client: Any, snapshot: Make) -> None:
    client = delta_client
    client.update(snapshot(CDS={"blue": "1"}, EDS={"blue": "1"}, LDS={"l": "1"}, RDS={"r": "blue"}))
    for short, names in (("CDS", ()), ("EDS", ("blue",)), ("LDS", ()), ("RDS", ("r",))):
        client.ask(short, *names)
        client.ack(short)
    green = snapshot(CDS={"green": "1"}, EDS={"green": "1"}, LDS={"l": "1"}, RDS={"r": "green"})
    assert client.update(green) == [("CDS", "green")]
    assert client.ack("CDS") == []
    assert client.ask("EDS", "green") == [("EDS", "green")]
    assert client.ack("EDS") == [("RDS", "r")]
    assert client.ack("RDS") == [("CDS", "-blue"), ("EDS", "blue")]


def test_unsubscribing_from_everything_keeps_names(delta_client: Any, snapshot: Make) -> None:
    client = delta_client
    client.update(snapshot(CDS={"a": "1", "b": "1"}))
    client.ask("CDS", "*", "a")
    client.ack("CDS")
    assert client.ask("CDS", unsubscribe=("*",)) == []
    assert client.update(snapshot(CDS={"a": "2", "b": "2"})) == [("CDS", "a")]


def test_too_much_ends_the_stream(delta_client: Any) -> None:
    many = tuple(str(number) for number in range(MAX_NAMES))
    assert delta_client.stream.receive(DeltaRequest(ENDPOINTS, many), 0) == []
    [abort] = delta_client.stream.receive(DeltaRequest(ENDPOINTS, ("one more",)), 0)
    assert isinstance(abort, Abort)
