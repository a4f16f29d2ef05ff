"""Stream scripts, state of the world: what a client says, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, version_of
from control.xds.protocol.messages import Abort, Acked, Ignored, Nacked, Request, Respond
from control.xds.protocol.states import Phase
from control.xds.protocol.stream import MAX_NAMES, PATIENCE
from control.xds.protocol.subscription import StateOfTheWorld
from control.xds.snapshot import Snapshot

Make = Callable[..., Snapshot]


def joined(client: Any, snapshot: Snapshot) -> None:
    """A client that has everything of the snapshot, as Envoy gets it."""
    client.update(snapshot)
    client.ask("CDS")
    client.ack("CDS")
    names = tuple(snapshot.of_type(ENDPOINTS))
    if names:
        client.ask("EDS", *names)
        client.ack("EDS")
    client.ask("LDS")
    client.ack("LDS")


def test_initial_exchange_in_envoys_order(client: Any, snapshot: Make) -> None:
    client.update(snapshot(CDS={"a": "1"}, EDS={"a": "1"}, LDS={"l": "1"}, RDS={"r": "1"}, SDS={"s": "1"}))
    assert client.ask("CDS") == [("CDS", "a")]
    assert client.ack("CDS") == []
    assert client.actions == [Acked(CLUSTER, client.last[CLUSTER].version)]
    assert client.ask("EDS", "a") == [("EDS", "a")]
    assert client.ask("SDS", "s") == [("SDS", "s")]
    assert client.ack("EDS") == []
    assert client.ask("LDS") == [("LDS", "l")]
    assert client.ask("RDS", "r") == []
    assert client.ack("LDS") == [("RDS", "r")]
    assert client.ack("RDS") == []
    assert client.ack("SDS") == []


def test_requests_before_the_first_snapshot_wait_for_it(client: Any, snapshot: Make) -> None:
    assert client.ask("CDS") == []
    assert client.update(snapshot(CDS={"a": "1"})) == [("CDS", "a")]


def test_an_empty_type_is_answered_with_a_version_of_its_own(client: Any, snapshot: Make) -> None:
    client.update(snapshot())
    assert client.ask("CDS") == [("CDS", "")]
    assert client.last[CLUSTER].version == version_of(CLUSTER, ()) != ""
    client.ack("CDS")
    client.ask("LDS")
    assert client.last[LISTENER].version not in ("", client.last[CLUSTER].version)


def test_the_same_content_is_not_sent_again(client: Any, snapshot: Make) -> None:
    joined(client, snapshot(CDS={"a": "1"}, LDS={"l": "1"}))
    assert client.update(snapshot(CDS={"a": "1"}, LDS={"l": "1"})) == []
    assert client.update(snapshot(CDS={"a": "2"}, LDS={"l": "1"})) == [("CDS", "a")]


def test_one_answer_at_a_time_and_the_newest_content_after_it(client: Any, snapshot: Make) -> None:
    client.update(snapshot(CDS={"a": "1"}))
    client.ask("CDS")
    assert client.update(snapshot(CDS={"a": "2"})) == []
    assert client.update(snapshot(CDS={"a": "3"})) == []
    assert client.ack("CDS") == [("CDS", "a")]
    assert client.last[CLUSTER].version == snapshot(CDS={"a": "3"}).version(CLUSTER)


def test_a_nack_is_parked_until_the_content_changes(client: Any, snapshot: Make) -> None:
    joined(client, snapshot(CDS={"a": "1"}, LDS={"l": "1"}))
    assert client.update(snapshot(CDS={"a": "bad"}, LDS={"l": "1"})) == [("CDS", "a")]
    refused = client.last[CLUSTER].version
    assert client.nack("CDS", "no such field") == []
    assert client.actions == [Nacked(CLUSTER, refused, "no such field")]
    subscription = client.stream.subscriptions[CLUSTER]
    assert subscription.phase is Phase.PARKED
    assert {refused.detail for refused in subscription.refusals.values()} == {"no such field"}
    assert subscription.acked_version == snapshot(CDS={"a": "1"}).version(CLUSTER)
    assert client.update(snapshot(CDS={"a": "bad"}, LDS={"l": "1"})) == []
    assert client.update(snapshot(CDS={"a": "bad"}, LDS={"l": "2"})) == [("LDS", "l")]
    client.ack("LDS")
    assert client.update(snapshot(CDS={"a": "good"}, LDS={"l": "2"})) == [("CDS", "a")]
    client.ack("CDS")
    assert subscription.refusals == {}


def test_after_a_nack_the_older_content_may_be_sent_again(client: Any, snapshot: Make) -> None:
    good = snapshot(CDS={"a": "1"}, LDS={"l": "1"})
    joined(client, good)
    client.update(snapshot(CDS={"a": "bad"}, LDS={"l": "1"}))
    client.nack("CDS")
    assert client.update(good) == [("CDS", "a")]


def test_a_parked_type_is_sent_again_when_the_subscription_changes_it(client: Any, snapshot: Make) -> None:
    client.update(snapshot(EDS={"a": "1", "b": "1"}))
    client.ask("EDS", "a")
    assert client.nack("EDS") == []
    assert client.ask("EDS", "a", "b") == [("EDS", "a b")]


def test_stale_nonces_change_nothing(client: Any, snapshot: Make) -> None:
    client.update(snapshot(EDS={"a": "1", "b": "1"}))
    client.ask("EDS", "a")
    first = client.last[ENDPOINTS].nonce
    client.ack("EDS")
    client.update(snapshot(EDS={"a": "2", "b": "1"}))
    assert client.ask("EDS", "a", "b", nonce=first) == []
    assert isinstance(client.actions[0], Ignored)
    assert client.stream.subscriptions[ENDPOINTS].phase is Phase.WAITING
    assert client.ack("EDS", "a", "b") == [("EDS", "a b")]


def test_an_ack_can_change_the_names(client: Any, snapshot: Make) -> None:
    client.update(snapshot(RDS={"r": "1", "s": "1"}))
    client.ask("RDS", "r")
    assert client.ack("RDS", "r", "s") == [("RDS", "r s")]
    assert client.ack("RDS", "r") == []


def test_a_name_that_comes_back_is_sent_again(client: Any, snapshot: Make) -> None:
    client.update(snapshot(RDS={"r": "1", "s": "1"}))
    client.ask("RDS", "r", "s")
    client.ack("RDS", "r")
    assert client.ask("RDS", "r", "s") == [("RDS", "r s")]


def test_names_that_do_not_exist_wait_but_clusters_without_endpoints_do_not(client: Any, snapshot: Make) -> None:
    client.update(snapshot(CDS={}))
    assert client.ask("RDS", "r") == []
    assert client.ask("EDS", "gone") == [("EDS", "gone")]
    answer = client.last[ENDPOINTS].resources[0]
    assert b"gone" in answer.any_bytes
    client.ack("EDS")
    assert client.update(snapshot(CDS={}, RDS={"r": "1"})) == [("RDS", "r")]


def test_a_changed_cluster_brings_its_endpoints_again(client: Any, snapshot: Make) -> None:
    joined(client, snapshot(CDS={"a": "1", "b": "1"}, EDS={"a": "1", "b": "1"}, LDS={}))
    changed = snapshot(CDS={"a": "2", "b": "1"}, EDS={"a": "1", "b": "1"}, LDS={})
    assert client.update(changed) == [("CDS", "a b"), ("EDS", "a b")]


def test_endpoints_are_versioned_with_the_cluster_that_the_client_has(client: Any, snapshot: Make) -> None:
    """Not with the one of a newer snapshot, which it gets later and which needs them again."""
    client.update(snapshot(CDS={"a": "1"}, EDS={"a": "1"}))
    client.ask("CDS")
    client.update(snapshot(CDS={"a": "2"}, EDS={"a": "1"}))
    assert client.ask("EDS", "a") == [("EDS", "a")]
    client.ack("EDS")
    assert client.ack("CDS") == [("CDS", "a"), ("EDS", "a")]


def test_wildcards(client: Any, snapshot: Make) -> None:
    client.update(snapshot(CDS={"a": "1", "b": "1"}))
    assert client.ask("CDS", "*") == [("CDS", "a b")]
    assert client.ack("CDS", "a") == [("CDS", "a")]
    assert client.ack("CDS", "a", "*") == [("CDS", "a b")]
    client.ack("CDS")
    assert client.ask("CDS") == []  # names were given before, so none now means nothing
    assert client.stream.subscriptions[CLUSTER].phase is Phase.UNASKED
    assert client.update(snapshot(CDS={"a": "9"})) == []


def test_a_client_that_comes_back_with_everything_gets_nothing(client: Any, snapshot: Make) -> None:
    now = snapshot(CDS={"a": "1"}, EDS={"a": "1"}, LDS={"l": "1"})
    client.update(now)
    assert client.ask("CDS", version=now.version(CLUSTER)) == []
    assert client.ask("EDS", "a", version=now.version(ENDPOINTS)) == []
    assert client.ask("LDS", version=now.version(LISTENER)) == []
    assert client.stream.subscriptions[LISTENER].acked_version == now.version(LISTENER)
    assert client.update(snapshot(CDS={"a": "1"}, EDS={"a": "2"}, LDS={"l": "1"})) == [("EDS", "a")]


def test_a_client_that_comes_back_with_less_gets_it(client: Any, snapshot: Make) -> None:
    old = snapshot(CDS={"a": "1"}, LDS={"l": "1"})
    client.update(snapshot(CDS={"a": "1"}, LDS={"l": "2"}))
    assert client.ask("CDS", version=old.version(CLUSTER)) == []
    assert client.ask("LDS", version=old.version(LISTENER)) == [("LDS", "l")]


# --- order ------------------------------------------------------------------------------------------------------------


def test_a_move_to_another_cluster_makes_before_it_breaks(client: Any, snapshot: Make) -> None:
    joined(client, snapshot(CDS={"blue": "1"}, EDS={"blue": "1"}, LDS={"l": "1"}, RDS={"r": "blue"}))
    client.ask("RDS", "r")
    client.ack("RDS")
    green = snapshot(CDS={"green": "1"}, EDS={"green": "1"}, LDS={"l": "1"}, RDS={"r": "green"})
    assert client.update(green) == [("CDS", "blue green")]
    assert client.ack("CDS") == []  # RDS waits until the client has asked for the endpoints of green
    blue = client.last[ENDPOINTS].resources[0]
    assert client.ask("EDS", "blue", "green") == [("EDS", "blue green")]
    assert client.last[ENDPOINTS].resources[0] is blue  # which keeps the endpoints that it has
    assert client.ack("EDS") == [("RDS", "r")]
    assert client.ack("RDS") == [("CDS", "green"), ("EDS", "blue green")]  # blue is no cluster any more: empty
    client.ack("CDS")
    assert client.ack("EDS", "green") == []


def test_listeners_go_before_the_clusters_they_used(client: Any, snapshot: Make) -> None:
    joined(client, snapshot(CDS={"a": "1"}, LDS={"l": "1"}))
    assert client.update(snapshot(CDS={}, LDS={})) == [("LDS", "")]
    assert client.ack("LDS") == [("CDS", "")]


def test_while_listeners_are_refused_no_cluster_goes(client: Any, snapshot: Make) -> None:
    joined(client, snapshot(CDS={"a": "1"}, LDS={"l": "1"}))
    client.update(snapshot(CDS={}, LDS={"l": "bad"}))
    assert client.nack("LDS") == []
    assert client.update(snapshot(CDS={}, LDS={"l": "good"})) == [("LDS", "l")]
    assert client.ack("LDS") == [("CDS", "")]


def test_patience_with_clients_that_do_not_ask_for_endpoints(client: Any, snapshot: Make) -> None:
    client.update(snapshot(CDS={"a": "1"}, EDS={"a": "1"}, LDS={"l": "1"}))
    client.ask("CDS")
    client.now = 10.0
    client.ack("CDS")
    assert client.stream.deadline is None  # nothing waits yet
    assert client.ask("LDS") == []
    assert client.stream.deadline == 10.0 + PATIENCE
    client.now = 10.0 + PATIENCE
    assert client.tick() == [("LDS", "l")]
    assert client.stream.deadline is None


@pytest.mark.parametrize("refuses", [True, False])
def test_patience_also_ends_where_no_ack_comes(client: Any, snapshot: Make, refuses: bool) -> None:
    now = snapshot(CDS={"a": "1"}, EDS={"a": "1"}, LDS={"l": "1"})
    client.update(now)
    if refuses:
        client.ask("CDS")
        client.nack("CDS")
    else:
        client.ask("CDS", version=now.version(CLUSTER))
    assert client.ask("LDS") == []
    client.now = PATIENCE
    assert client.tick() == [("LDS", "l")]


def test_a_client_without_clusters_is_not_kept_waiting(client: Any, snapshot: Make) -> None:
    client.update(snapshot(CDS={"a": "1"}, EDS={"a": "1"}, LDS={"l": "1"}))
    assert client.ask("LDS") == [("LDS", "l")]


def test_secrets_wait_for_nobody(client: Any, snapshot: Make) -> None:
    client.update(snapshot(CDS={"a": "1"}, SDS={"s": "1"}))
    client.ask("CDS")
    assert client.ask("SDS", "s") == [("SDS", "s")]
    client.ack("SDS")
    assert client.update(snapshot(CDS={"a": "1"}, SDS={"s": "2"})) == [("SDS", "s")]


# --- limits -----------------------------------------------------------------------------------------------------------


def test_unknown_types_are_ignored(client: Any) -> None:
    assert client.stream.receive(Request("type.googleapis.com/x.Y"), 0) == [
        Ignored("type.googleapis.com/x.Y", "this type is not served")
    ]


def test_too_much_ends_the_stream(client: Any) -> None:
    many = tuple(str(number) for number in range(MAX_NAMES + 1))
    [abort] = client.stream.receive(Request(ENDPOINTS, many), 0)
    assert isinstance(abort, Abort)
    [abort] = client.stream.receive(Request(ENDPOINTS, ("x" * 5000,)), 0)
    assert isinstance(abort, Abort)
    assert not client.stream.subscriptions[ENDPOINTS].is_asked


def test_an_answer_carries_everything_that_was_asked_for(snapshot: Make) -> None:
    subscription = StateOfTheWorld(ENDPOINTS)
    subscription.receive(Request(ENDPOINTS, ("b", "a")))
    answer = subscription.answer(snapshot(EDS={"a": "1", "b": "1", "c": "1"}), False, "7")
    assert isinstance(answer, Respond)
    assert ([r.name for r in answer.resources], answer.nonce) == (["a", "b"], "7")
