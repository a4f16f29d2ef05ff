"""Peers that want to cost more than they send: bounds on memory, work and connections, per user and not per connection.

What a number of attackers from another user does to a victim's times is measured by `make faults`; here is what holds
on any machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.raw_http2 import PREFACE, RawClient, grpc_frame, headers
from tests.offload.dataplane.serving import Server, identity, tls13_input, why_turned_away
from tests.offload.dataplane.test_http2_hostile import ENHANCE_YOUR_CALM, memory_mib, request_bytes, serves

NOBODY = [{"uid": 2**32 - 2}]


def refusals(server: Server) -> dict[str, int]:
    return dict(server.plane.statistics()["refusals"])


def allow(server: Server, selectors: Sequence[object] | None = None, name: str = "www") -> None:
    rule = {"key": server.keys["p256"], "usage": "any", "decrypt": False}
    server.plane.set_identities([identity(name, [rule], selectors)])  # type: ignore[list-item,arg-type]


def send_until_blocked(connection: socket.socket, data: bytes, most: int) -> int:
    """How much the other side took before it stopped to, at most `most` bytes."""
    connection.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
        while sent < most:
            sent += connection.send(data[sent % len(data) :])
    return sent


# --- peers that do not read -------------------------------------------------------------------------------------------


def refused_calls(client: RawClient, count: int) -> bytes:
    """Calls of a method that there is not: each is answered by its headers alone."""
    return b"".join(
        client.request(headers("Unknown"), flags=["END_HEADERS", "END_STREAM"]).serialize() for _ in range(count)
    )


def test_refused_calls_to_a_peer_that_does_not_read(server: Server) -> None:
    """It is no longer read from once its answers do not leave: neither memory nor work grows by what it sends."""
    serves(server)
    before = memory_mib()
    with RawClient(server.connect()) as client:
        data = refused_calls(client, 100_000)  # 3 MB, and a hundred times that as answers in nghttp2's queue
        taken = send_until_blocked(client.socket, data, len(data))
        assert taken < len(data) // 2
        assert memory_mib() - before < 20
        serves(server)
        # It wakes up: everything that was taken is answered, and the rest is taken.
        client.socket.settimeout(20)
        client.read_available()
        assert any(answer.status == "12" for answer in client.answers.values())
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
    assert server.plane.statistics()["streams"] == 0


@pytest.mark.parametrize("frame", [PingFrame(0, b"12345678"), SettingsFrame(0)], ids=["ping", "settings"])
def test_control_frames_of_a_peer_that_does_not_read(server: Server, frame: PingFrame | SettingsFrame) -> None:
    before = memory_mib()
    with contextlib.ExitStack() as clients:
        for _ in range(50):
            client = clients.enter_context(RawClient(server.connect()))
            client.socket.settimeout(0.02)
            with contextlib.suppress(OSError):
                client.socket.sendall(1900 * frame.serialize())
        serves(server)
        assert memory_mib() - before < 20


def test_who_takes_nothing_for_long_is_closed(make_server: Callable[..., Server]) -> None:
    server = make_server(stalled_timeout_ms=200)
    with RawClient(server.connect()) as client, server.connect() as blocked:
        # One whose socket is full, and one whose windows are closed.
        data = refused_calls(client, 30_000)
        send_until_blocked(client.socket, data, len(data))
        waiting = RawClient(blocked, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        stream = waiting.open("Sign")
        waiting.data(stream, grpc_frame(request_bytes(server)), end=True)
        wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
    assert refusals(server)["does_not_read"] == 2
    serves(server)


def test_who_reads_slowly_is_not_closed(make_server: Callable[..., Server]) -> None:
    server = make_server(stalled_timeout_ms=2000)
    with RawClient(server.connect()) as client:
        data = refused_calls(client, 20_000)
        send_until_blocked(client.socket, data, len(data))
        client.socket.settimeout(1)
        with contextlib.suppress(TimeoutError):  # it has read all that there was
            for _ in range(10):
                time.sleep(0.25)
                assert client.socket.recv(24 * 1024)
        client.read_available()
        assert server.plane.statistics()["connections"] == 1
    assert refusals(server)["does_not_read"] == 0


# --- headers ----------------------------------------------------------------------------------------------------------


def bomb(client: RawClient, references: int, method: str = "Sign", name: str = "x") -> list[bytes]:
    """One field of 4,000 bytes, which goes into the decoder's table, and then so many references of one byte to it."""
    block = client.encoder.encode(headers(method)) + client.encoder.encode([(name, "a" * 3900)])
    block += bytes([0x80 | 62]) * references
    stream = client.next_stream
    client.next_stream += 2
    first, rest = block[:16000], block[16000:]
    frames = [HeadersFrame(stream, first, flags=[] if rest else ["END_HEADERS"]).serialize()]
    while rest:
        piece, rest = rest[:16000], rest[16000:]
        frames.append(ContinuationFrame(stream, piece, flags=[] if rest else ["END_HEADERS"]).serialize())
    return frames


@pytest.mark.parametrize("name", ["x", "x y"], ids=["valid", "invalid"])
def test_hpack_bomb(server: Server, name: str) -> None:
    """Beyond 64 KiB of headers in one request the connection is ended, however few bytes they were."""
    with RawClient(server.connect()) as client:
        client.send(*bomb(client, 1000, name=name))
        client.wait_closed()
        assert client.goaway is not None
        assert client.goaway.error_code == ENHANCE_YOUR_CALM
        assert b"too many headers" in client.goaway.additional_data
    assert refusals(server)["flood"] == 1
    serves(server)


def test_headers_that_are_only_too_large_are_answered(server: Server) -> None:
    with RawClient(server.connect()) as client:
        for references in (4, 8, 12):
            client.send(*bomb(client, references))
            assert client.wait(client.next_stream - 2).status == "8"
        assert client.call("Sign", request_bytes(server)).status == "0"
    assert refusals(server)["too_large"] == 3


def test_trailers_are_counted(server: Server) -> None:
    with RawClient(server.connect()) as client:
        first, second = client.open("Stream"), client.open("Stream")
        block = client.encoder.encode([("x", "a" * 3900)]) + bytes([0x80 | 62]) * 6
        client.send(HeadersFrame(first, block, flags=["END_HEADERS", "END_STREAM"]))
        assert client.wait(first).status == "8"
        client.send(HeadersFrame(second, bytes([0x80 | 62]) * 1000, flags=["END_HEADERS", "END_STREAM"]))
        client.wait_closed()
    assert refusals(server)["flood"] == 1


def test_requests_go_on_after_a_pause_within_their_headers(server: Server) -> None:
    """Many calls in one write, whose headers are more than one turn's worth: each is answered, in one piece or many."""
    metadata = {f"x-{n}": "v" * 1000 for n in range(10)}
    with RawClient(server.connect()) as client:
        frames = b""
        for number in range(40):
            opened = client.request([*headers("Sign"), *metadata.items()])
            message = DataFrame(opened.stream_id, grpc_frame(request_bytes(server, number)), flags=["END_STREAM"])
            frames += opened.serialize() + message.serialize()
        client.socket.sendall(frames)
        for stream in range(1, 80, 2):
            assert client.wait(stream).status == "0"
        for cut in range(1, 40):  # however the last bytes of a block come
            opened = client.request([*headers("Sign"), *metadata.items()])
            data = opened.serialize()
            client.socket.sendall(data[:-cut])
            client.socket.sendall(data[-cut:])
            client.data(opened.stream_id, grpc_frame(request_bytes(server, cut)), end=True)
            assert client.wait(opened.stream_id).status == "0"


# --- frames that carry nothing ----------------------------------------------------------------------------------------


def test_padding_alone_carries_nothing(server: Server) -> None:
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        frame = DataFrame(stream, b"", pad_length=0, flags=["PADDED"]).serialize()
        assert frame[8 + 1] == 0, "a length of padding, and nothing else"
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.socket.sendall(frame * 100)
        client.wait_closed()
    assert refusals(server)["flood"] == 1
    serves(server)


def test_a_window_for_all_streams_costs_as_much_as_there_are(server: Server) -> None:
    """One SETTINGS frame goes through every stream."""
    with RawClient(server.connect()) as client:
        client.ping()
        for _ in range(1000):
            client.open("Stream")
            client.read_available()
        with contextlib.suppress(OSError):
            for number in range(100):
                client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 65535 + number % 2}))
        client.wait_closed()
    assert refusals(server)["flood"] == 1


# --- operations that are small to ask for ----------------------------------------------------------------------------


def test_tiny_operations_are_answered_in_turns(server: Server) -> None:
    """Two bytes ask for one, and each is refused with a sentence."""
    message = grpc_frame(bytes([0x0A, 0x00]) * 256)
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}) as client:
        client.send(WindowUpdateFrame(0, window_increment=2**30))
        stream = client.open("Stream")
        client.data(stream, message * 30, end=True)
        answer = client.wait(stream)
    assert answer.status == "0"
    assert sum(len(pb.ResultBatch.FromString(m).results) for m in answer.messages()) == 30 * 256


def cancelled(ids: Sequence[int], *, packed: bool) -> bytes:
    if packed:
        return pb.OperationBatch(cancelled=ids).SerializeToString()
    return b"".join(b"\x10" + pb.OperationBatch(cancelled=[n]).SerializeToString()[2:] for n in ids)


@pytest.mark.parametrize("packed", [True, False])
def test_the_cancelled_operations_of_a_message_are_bounded(server: Server, packed: bool) -> None:
    """An id is one byte of a message that is dealt with in one go."""
    with RawClient(server.connect()) as client:
        for count, status in ((4096, "0"), (4097, "3")):
            stream = client.open("Stream")
            client.data(stream, grpc_frame(cancelled([7] * count, packed=packed)), end=True)
            assert client.wait(stream).status == status
        stream = client.open("Stream")
        client.data(stream, grpc_frame(b"\x12\x00" * 4097), end=True)  # fields without any id
        assert client.wait(stream).status == "3"
    assert refusals(server)["too_large"] == 2


def test_messages_of_identities_are_dealt_with_in_turns(server: Server) -> None:
    """As many as a window takes, to watch and to unwatch the same: each is answered, and others are served."""
    message = pb.WatchIdentitiesRequest(watch=["www"], unwatch=["none"] * 255).SerializeToString()
    with RawClient(server.connect()) as client:
        stream = client.open("WatchIdentities")
        client.data(stream, grpc_frame(message) * 300)
        serves(server)
        while stream not in client.windows:  # more than half of the window has been dealt with
            assert client.step() is not None
        client.ping()
        assert client.answer(stream).reset is None
    assert sum(refusals(server).values()) == 0


# --- users ------------------------------------------------------------------------------------------------------------


def test_connections_of_one_user_are_bounded(make_server: Callable[..., Server]) -> None:
    server = make_server(max_connections=10, max_connections_per_user=3)
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(RawClient(server.connect())) for _ in range(3)]
        for client in clients:
            client.ping()
        with server.connect() as fourth:
            assert "max_connections_per_user: 3" in why_turned_away(fourth)
        assert refusals(server)["too_many_connections_of_user"] == 1
        clients[0].socket.close()
        wait_for("2 connections", lambda: server.plane.statistics()["connections"] == 2)
        serves(server)


def test_a_dedicated_socket_is_a_user_of_its_own(make_server: Callable[..., Server]) -> None:
    server = make_server(max_connections=10, max_connections_per_user=2)
    server.listen("cart")
    with contextlib.ExitStack() as held:
        for name in ("main", "main", "cart", "cart"):
            held.enter_context(RawClient(server.connect(name))).ping()
        for name in ("main", "cart"):
            with server.connect(name) as another:
                assert "max_connections_per_user: 2" in why_turned_away(another)
    assert refusals(server)["too_many_connections_of_user"] == 2


def test_strangers_leave_room_for_callers_with_an_identity(make_server: Callable[..., Server]) -> None:
    """Through the dedicated socket somebody has an identity; through the main one nobody does."""
    server = make_server(max_connections=8, max_connections_per_user=8, max_connections_without_identity=3)
    server.listen("cart")
    allow(server, [{"socket": "cart"}])
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(RawClient(server.connect())).ping()
        for _ in range(20):
            with server.connect() as refused:
                assert "max_connections_without_identity: 3" in why_turned_away(refused)
        assert refusals(server)["too_many_connections_without_identity"] == 20
        for _ in range(5):
            client = held.enter_context(RawClient(server.connect("cart")))
            assert client.call("Sign", request_bytes(server)).status == "0"


def test_a_stranger_becomes_known_with_its_identity(make_server: Callable[..., Server]) -> None:
    """Its place among the strangers is free again, and it may have as many calls as others."""
    server = make_server(max_connections=8, max_connections_without_identity=1)
    allow(server, NOBODY)
    with RawClient(server.connect()) as early:
        assert early.call("Sign", request_bytes(server)).status == "5"
        with server.connect() as refused:
            assert "max_connections_without_identity: 1" in why_turned_away(refused)
        allow(server)
        assert early.call("Sign", request_bytes(server)).status == "0"
        streams = [early.open("Stream") for _ in range(100)]
        early.ping()
        assert all(early.answer(stream).reset is None for stream in streams)
        allow(server, NOBODY)  # and a stranger again
        early.ping()
        with server.connect() as refused:
            assert "max_connections_without_identity: 1" in why_turned_away(refused)


def test_who_loses_its_identity_is_a_stranger_at_once(make_server: Callable[..., Server]) -> None:
    """Also while it is idle: nobody waits until it is next read from."""
    server = make_server(max_connections=8, max_connections_without_identity=2)
    with RawClient(server.connect()) as one, RawClient(server.connect()) as two:
        one.ping()
        two.ping()
        allow(server, NOBODY)
        with server.connect() as refused:
            assert "max_connections_without_identity: 2" in why_turned_away(refused)
        allow(server)
        with RawClient(server.connect()) as third:
            assert third.call("Sign", request_bytes(server)).status == "0"


def test_who_loses_its_identity_takes_queued_operations_along(make_server: Callable[..., Server]) -> None:
    server = make_server(
        shards=1, backend="software", max_connections=8, max_connections_without_identity=1, max_wait_us=0
    )
    key = server.keys["rsa2048"]
    server.plane.set_identities([identity("www", [{"key": key, "usage": "any", "decrypt": False}])])
    count = 1000  # takes longer than what follows
    operations = [
        pb.Operation(id=n, key_id=key.key_id, signature_scheme=0x0804, input=tls13_input(n)) for n in range(count)
    ]
    batches = [pb.OperationBatch(operations=operations[at : at + 200]) for at in range(0, count, 200)]
    windows = {SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}
    with RawClient(server.connect(), settings=windows) as client:
        client.send(WindowUpdateFrame(0, window_increment=2**30))
        client.ping()  # the server's windows are in force
        stream = client.open("Stream")
        client.data(stream, b"".join(grpc_frame(batch.SerializeToString()) for batch in batches), end=True)
        wait_for("queued", lambda: server.plane.statistics()["queued"] > 0)
        allow(server, NOBODY)
        with server.connect() as refused:
            assert "max_connections_without_identity: 1" in why_turned_away(refused)
        queued = server.plane.statistics()["queued"]
        assert queued > 0  # all of this was before they were done
        answer = client.wait(stream)
        results = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
        assert sorted(r.id for r in results) == list(range(count))  # what was accepted is done, the rest refused
        assert sum(r.status == 0 for r in results) >= queued
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
    allow(server)
    serves(server)


def test_who_loses_its_identity_keeps_no_more_than_strangers_have(make_server: Callable[..., Server]) -> None:
    """Connections beyond that are ended, and hear why."""
    server = make_server(max_connections=8, max_connections_without_identity=2)
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(RawClient(server.connect())) for _ in range(5)]
        for client in clients:
            client.ping()
        allow(server, NOBODY)
        wait_for("2 connections", lambda: server.plane.statistics()["connections"] == 2)
        assert refusals(server)["too_many_connections_without_identity"] == 3
        for client in clients:
            client.socket.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                client.wait_closed()
        ended = [client for client in clients if client.goaway is not None]
        assert len(ended) == 3
        for client in ended:
            assert client.closed
            assert client.goaway is not None
            assert b"max_connections_without_identity: 2" in client.goaway.additional_data


def test_memory_of_one_user_is_bounded_over_its_connections(make_server: Callable[..., Server]) -> None:
    """Unfinished messages, as many as there may be, on connection after connection."""
    server = make_server(user_memory_mib=8)
    before = memory_mib()
    unfinished = grpc_frame(bytes(60_000))[:-1]
    with contextlib.ExitStack() as held:
        for _ in range(40):
            with contextlib.suppress(OSError, AssertionError):  # connections are refused as well
                client = held.enter_context(RawClient(server.connect()))
                client.ping()
                for _ in range(16):
                    client.data(client.open("Sign"), unfinished)
                client.ping()
        assert memory_mib() - before < 30
        found = refusals(server)
        assert found["user_memory"] + found["too_large"] > 20
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
    serves(server)


def test_a_connection_beyond_the_memory_of_its_user_is_refused(make_server: Callable[..., Server]) -> None:
    server = make_server(user_memory_mib=1)
    with contextlib.ExitStack() as held:
        for _ in range(64):
            held.enter_context(server.connect())
        wait_for("at least 60 connections", lambda: server.plane.statistics()["connections"] >= 60)
        with server.connect() as refused:
            assert "data_plane.user_memory_mib: 1" in why_turned_away(refused)
        assert refusals(server)["user_memory"] > 0
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
    serves(server)


def test_a_connection_that_outgrows_the_memory_of_its_user_hears_why(make_server: Callable[..., Server]) -> None:
    """What was read and has to wait for its turn is kept, within what the user may hold."""
    server = make_server(user_memory_mib=1)
    with RawClient(server.connect()) as client, contextlib.ExitStack() as held:
        client.ping()
        for _ in range(70):  # each holds 16 KiB
            held.enter_context(server.connect())
        wait_for("a refusal for memory", lambda: refusals(server)["user_memory"] > 0)
        # Headers that take more than one turn, and behind them, in the same read, more than there is room for: a
        # connection holds 16 KiB, so less than that is left.
        frames = bomb(client, 12)
        calls = [client.request([*headers("Sign"), ("y", "b" * 30)]).serialize() for _ in range(400)]
        client.send(*frames, *calls)
        client.wait_closed()
        assert client.goaway is not None
        assert client.goaway.error_code == ENHANCE_YOUR_CALM
        assert b"data_plane.user_memory_mib: 1" in client.goaway.additional_data
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
    serves(server)


def test_operations_of_one_user_are_bounded_over_its_connections(make_server: Callable[..., Server]) -> None:
    server = make_server(shards=1, backend="software", user_queue_limit=20, connection_queue_limit=15, max_wait_us=0)
    key = server.keys["rsa2048"]
    operations = [
        pb.Operation(id=n, key_id=key.key_id, signature_scheme=0x0804, input=tls13_input(n)) for n in range(15)
    ]
    message = grpc_frame(pb.OperationBatch(operations=operations).SerializeToString())
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(RawClient(server.connect())) for _ in range(12)]
        for client in clients:
            client.data(client.open("Stream"), message, end=True)
        answers = [client.wait(1) for client in clients]
    results = [r for a in answers for m in a.messages() for r in pb.ResultBatch.FromString(m).results]
    assert len(results) == 12 * 15
    assert {r.status for r in results} == {0, 8}
    assert refusals(server)["user_queue_full"] > 0


# --- idle connections -------------------------------------------------------------------------------------------------


def test_a_connection_without_calls_ends(make_server: Callable[..., Server]) -> None:
    """With a notice, so that a client connects again when it has something to ask."""
    server = make_server(idle_timeout_ms=200)
    with RawClient(server.connect()) as client, server.connect() as silent:
        assert client.call("Sign", request_bytes(server)).status == "0"
        client.wait_closed()
        assert client.goaway is not None
        assert client.goaway.error_code == 0
        while silent.recv(65536):
            pass
        wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)


def test_who_watches_is_not_idle(make_server: Callable[..., Server]) -> None:
    server = make_server(idle_timeout_ms=100)
    with RawClient(server.connect()) as client:
        stream = client.open("WatchIdentity")
        client.data(stream, grpc_frame(pb.WatchIdentityRequest(identity="www").SerializeToString()), end=True)
        time.sleep(0.6)
        client.ping()
        assert client.goaway is None
        assert client.call("Sign", request_bytes(server)).status == "0"


def test_a_client_does_not_notice_that_it_was_idle(make_server: Callable[..., Server]) -> None:
    server = make_server(idle_timeout_ms=50)
    request = pb.SignRequest.FromString(request_bytes(server))
    with server.stub() as stub:
        for pause in (0.0, 0.05, 0.051, 0.2, 0.3, 0.25, 0.05):
            time.sleep(pause)
            assert stub.Sign(request, timeout=20, wait_for_ready=True).signature


# --- connecting -------------------------------------------------------------------------------------------------------


def test_strangers_who_connect_all_the_time_are_refused_before_they_cost_much(server: Server) -> None:
    """Who has an identity is not counted, and comes in."""
    server.listen("cart")
    allow(server, [{"socket": "cart"}])
    if "SANITIZED" in os.environ:
        pytest.skip("a sanitized data plane on a busy machine accepts fewer a second than are forgiven")
    for _ in range(5000):
        with server.connect() as one, contextlib.suppress(OSError):
            one.sendall(PREFACE)
        if refusals(server)["too_many_connections_without_identity"] > 0:
            break
    else:
        pytest.fail("5,000 connections, and none was refused")
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
    for _ in range(600):
        server.connect("cart").close()
    with RawClient(server.connect("cart")) as client:
        assert client.call("Sign", request_bytes(server)).status == "0"


# Another process of the same uid, which a selector names by its group as well.
SAME_USER = """
import os, socket, sys
os.setgid(54321)
def answer():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(sys.argv[1])
        one.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        return one.recv(9)[3]
print(sum(answer() == 4 for _ in range(40)))  # SETTINGS, and no GOAWAY
"""


@pytest.mark.root
def test_a_stranger_of_the_same_user_does_not_lock_others_out(server: Server) -> None:
    server.listen("shared").chmod(0o666)
    allow(server, [{"uid": os.getuid(), "gid": 54321}])
    for _ in range(2000):
        with server.connect("shared") as one, contextlib.suppress(OSError):
            one.sendall(PREFACE)
    line = [sys.executable, "-c", SAME_USER, str(server.folder / "shared")]
    assert subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout == "40\n"


def test_who_connects_all_the_time_does_not_stop_others(server: Server) -> None:
    for _ in range(300):
        with server.connect() as one:
            one.sendall(PREFACE)
    serves(server)
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
