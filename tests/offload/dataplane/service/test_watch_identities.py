"""Many identities in one call: news of each, refusals that end nothing, bounds."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.serving import Server, identity

OK = grpc.StatusCode.OK.value[0]
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
WATCHES_MAX = 8192
ITEMS_MAX = 256  # of a message
STRANGER_WATCHES = 4096
NOBODY = [{"uid": 2**32 - 2}]


class Watching:
    """One call: what is asked on it, and the news that came."""

    def __init__(self, stub: object) -> None:
        self._requests: queue.Queue[pb.WatchIdentitiesRequest | None] = queue.Queue()
        self.call = stub.WatchIdentities(iter(self._requests.get, None), timeout=60)  # type: ignore[attr-defined]

    def ask(self, watch: list[str] = [], unwatch: list[str] = []) -> None:  # noqa: B006
        self._requests.put(pb.WatchIdentitiesRequest(watch=watch, unwatch=unwatch))

    def half_close(self) -> None:
        self._requests.put(None)

    def next(self) -> pb.WatchIdentitiesResponse:
        news: pb.WatchIdentitiesResponse = next(self.call)
        return news


@contextmanager
def watching(server: Server) -> Iterator[Watching]:
    with server.stub() as stub:
        it = Watching(stub)
        yield it
        it.half_close()
        it.call.cancel()


def version(news: pb.WatchIdentitiesResponse) -> tuple[str, int, int]:
    return news.name, news.status, news.identity.version


def test_news_of_many(server: Server) -> None:
    server.data_plane.set_identities([identity(f"id-{n}", [], version=n + 1) for n in range(3)])
    with watching(server) as it:
        it.ask(["id-0", "id-1"])
        it.ask(["id-2", "id-0"])
        assert sorted(version(it.next()) for _ in range(3)) == [("id-0", OK, 1), ("id-1", OK, 2), ("id-2", OK, 3)]
        assert server.data_plane.statistics()["watchers"] == 3
        server.data_plane.set_identities([identity(f"id-{n}", [], version=n + 1 if n else 9) for n in range(3)])
        assert version(it.next()) == ("id-0", OK, 9), "only what changed"
        it.ask(unwatch=["id-1", "never-asked"])
        wait_for("2 watchers", lambda: server.data_plane.statistics()["watchers"] == 2)
        server.data_plane.set_identities([identity(f"id-{n}", [], version=20 + n) for n in range(3)])
        assert sorted(version(it.next()) for _ in range(2)) == [("id-0", OK, 20), ("id-2", OK, 22)]
    wait_for("no watchers", lambda: server.data_plane.statistics()["watchers"] == 0)


def test_a_refusal_ends_nothing_and_the_identity_comes_when_it_is_there(server: Server) -> None:
    theirs = identity("theirs", [], selectors=[{"uid": 4_000_000}])
    server.data_plane.set_identities([theirs, identity("mine", [])])
    with watching(server) as it:
        it.ask(["theirs", "unknown", "mine"])
        news = {one.name: one for one in (it.next() for _ in range(3))}
        refusals = {(one.status, one.message) for name, one in news.items() if name != "mine"}
        assert refusals == {(NOT_FOUND, "no such identity, or this caller may not use it")}, "both look the same"
        assert news["mine"].status == OK
        assert not news["theirs"].HasField("identity")
        before = server.data_plane.statistics()["refusals"]
        server.data_plane.set_identities([theirs, identity("mine", []), identity("unknown", [], version=5)])
        assert version(it.next()) == ("unknown", OK, 5)
        assert server.data_plane.statistics()["refusals"] == before, "what is still refused is not refused again"
        server.data_plane.set_identities([theirs, identity("mine", [])])
        assert version(it.next()) == ("unknown", NOT_FOUND, 0)


def test_half_closing_leaves_the_watches(server: Server) -> None:
    server.data_plane.set_identities([identity("www", [], version=1)])
    with watching(server) as it:
        it.ask(["www"])
        it.half_close()
        assert version(it.next()) == ("www", OK, 1)
        server.data_plane.set_identities([identity("www", [], version=2)])
        assert version(it.next()) == ("www", OK, 2)


def test_more_identities_than_streams(make_server: Callable[..., Server]) -> None:
    """An Envoy of 3,000 identities on a connection that may have 10 calls."""
    names = [f"spiffe://mesh.example/ns/shop/sa/workload-{n}" for n in range(3000)]
    server = make_server([identity(name, []) for name in names], max_streams_per_connection=10)
    with watching(server) as it:
        for at in range(0, len(names), 100):
            it.ask(names[at : at + 100])
        assert {it.next().name for _ in names} == set(names)


def test_large_identities_share_the_call(server: Server) -> None:
    messages = {}
    for name in ("a", "b", "c"):
        message = pb.Identity(name=name, version=1)
        message.trust_bundles.add(authorities=[name.encode() * 1500 for _ in range(500)])
        messages[name] = message
    rules = [{**identity(name, []), "message": message.SerializeToString()} for name, message in messages.items()]
    server.data_plane.set_identities(rules)  # type: ignore[arg-type]
    with watching(server) as it:
        it.ask(["a", "b", "c"])
        assert {news.name: news.identity for news in (it.next() for _ in range(3))} == messages


def test_the_bound_is_told_for_each_that_exceeds_it(server: Server) -> None:
    with watching(server) as it:
        for at in range(0, WATCHES_MAX, ITEMS_MAX):
            it.ask([str(n) for n in range(at, at + ITEMS_MAX)])
        assert {it.next().status for _ in range(WATCHES_MAX)} == {NOT_FOUND}
        it.ask(["one-more"])
        news = it.next()
        assert (news.name, news.status) == ("one-more", EXHAUSTED)
        assert "8192" in news.message
        it.ask(unwatch=["0"])
        it.ask(["again"])
        assert version(it.next()) == ("again", NOT_FOUND, 0), "there is room again"
        statistics = server.data_plane.statistics()
        assert statistics["refusals"]["too_many_watches"] == 1
        assert statistics["watchers"] == WATCHES_MAX


def test_refusals_that_nobody_reads_end_the_call(server: Server) -> None:
    """Names that do not fit any more, and a client that reads nothing: the debt is bounded."""
    names = [f"{n:02000}" for n in range(600)]  # 1.2 MB
    with server.stub() as stub:
        requests = [pb.WatchIdentitiesRequest(watch=names[at : at + 30]) for at in range(0, len(names), 30)] * 100
        call = stub.WatchIdentities(iter(requests), timeout=60)
        wait_for(
            "more than 1024 too many watches",
            lambda: server.data_plane.statistics()["refusals"]["too_many_watches"] > 1024,
        )
        wait_for("no watchers", lambda: server.data_plane.statistics()["watchers"] == 0)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in call:
                pass
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_name_that_is_too_long(server: Server) -> None:
    with watching(server) as it:
        it.ask(["x" * 2048])
        assert it.next().status == NOT_FOUND
        it.ask(["x" * 2049])
        with pytest.raises(grpc.RpcError) as caught:
            it.next()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_name_that_is_too_long_for_the_watch_of_one(server: Server) -> None:
    """Refused by the same rule, and nothing of it is held."""
    with server.stub() as stub:
        for size, code in ((2048, grpc.StatusCode.NOT_FOUND), (2049, grpc.StatusCode.INVALID_ARGUMENT)):
            with pytest.raises(grpc.RpcError) as caught:
                next(stub.WatchIdentity(pb.WatchIdentityRequest(identity="x" * size), timeout=20))
            assert caught.value.code() is code
        assert caught.value.details() == "the name of an identity is longer than 2048 bytes"
    assert server.data_plane.statistics()["refusals"]["too_large"] == 1


def ends(it: Watching, code: grpc.StatusCode) -> str:
    """What the client hears, after the news that there were."""
    with pytest.raises(grpc.RpcError) as caught:
        list(it.call)
    assert caught.value.code() is code
    return str(caught.value.details())


@pytest.mark.parametrize("unwatched", [0, 1, ITEMS_MAX // 2, ITEMS_MAX])
def test_the_names_of_one_message_are_bounded(server: Server, unwatched: int) -> None:
    """It is dealt with in one go, so nobody else is served in the meantime."""
    watch = [str(n) for n in range(ITEMS_MAX - unwatched)]
    unwatch = ["never-asked"] * unwatched
    with watching(server) as it:
        it.ask(watch, unwatch)
        assert [it.next().name for _ in watch] == watch
        it.ask(watch, [*unwatch, "one-more"])
        assert "256" in ends(it, grpc.StatusCode.INVALID_ARGUMENT)
    assert server.data_plane.statistics()["refusals"]["too_many_watches"] == 1
    wait_for("no watchers", lambda: server.data_plane.statistics()["watchers"] == 0)


@pytest.mark.parametrize("field", ["watch", "unwatch"])
def test_an_empty_name_is_malformed(server: Server, field: str) -> None:
    with watching(server) as it:
        it.ask(**{field: [""]})
        assert "empty" in ends(it, grpc.StatusCode.INVALID_ARGUMENT)
    assert server.data_plane.statistics()["refusals"]["malformed"] == 1


def test_who_has_no_identity_watches_less(server: Server) -> None:
    """Over all calls and connections of a user, until an identity is for it."""
    server.data_plane.set_identities([identity("theirs", [], selectors=NOBODY)])  # type: ignore[arg-type]
    names = [str(n) for n in range(STRANGER_WATCHES)]
    with watching(server) as one, watching(server) as two:
        for at in range(0, len(names) - ITEMS_MAX, ITEMS_MAX):
            one.ask(names[at : at + ITEMS_MAX])
        assert {one.next().status for _ in range(len(names) - ITEMS_MAX)} == {NOT_FOUND}
        two.ask(names[:ITEMS_MAX])
        assert {two.next().status for _ in range(ITEMS_MAX)} == {NOT_FOUND}
        two.ask(["one-more"])
        assert "4096" in ends(two, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert server.data_plane.statistics()["refusals"]["too_many_watches"] == 1
        server.data_plane.set_identities([identity("mine", [])])
        for at in range(0, len(names), ITEMS_MAX):
            one.ask([f"more-{name}" for name in names[at : at + ITEMS_MAX]])
        assert {one.next().status for _ in names} == {NOT_FOUND}, "it is a stranger no more"
    wait_for("no watchers", lambda: server.data_plane.statistics()["watchers"] == 0)


def test_draining_ends_the_call(server: Server) -> None:
    server.data_plane.set_identities([identity("www", [])])
    with watching(server) as it:
        it.ask(["www"])
        it.next()
        server.data_plane.drain()
        with pytest.raises(grpc.RpcError) as caught:
            it.next()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
