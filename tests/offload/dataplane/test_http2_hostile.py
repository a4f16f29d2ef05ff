"""Clients that break the rules, or use them against us: nothing may crash, grow without bound, or disturb others."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.raw_http2 import PREFACE, RawClient, grpc_frame, headers
from tests.offload.dataplane.serving import ECDSA_P256, Server, tls13_input, verify

ENHANCE_YOUR_CALM = 11
NO_ERROR = 0
IN_CLASS = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    with RawClient(server.connect()) as made:
        yield made


def request_bytes(server: Server, seed: int = 0) -> bytes:
    key = server.keys["p256"]
    return pb.SignRequest(key_id=key.key_id, signature_scheme=ECDSA_P256, input=tls13_input(seed)).SerializeToString()


def batch(server: Server, numbers: range, algorithm: str = "p256") -> bytes:
    key, scheme = server.keys[algorithm], {"p256": ECDSA_P256, "rsa2048": 0x0804}[algorithm]
    operations = [pb.Operation(id=n, key_id=key.key_id, signature_scheme=scheme, input=tls13_input(n)) for n in numbers]
    return grpc_frame(pb.OperationBatch(operations=operations).SerializeToString())


def serves(server: Server) -> None:
    """Others are served as ever."""
    with RawClient(server.connect()) as other:
        answer = other.call("Sign", request_bytes(server))
        assert answer.status == "0"
        (message,) = answer.messages()
        verify(
            server.keys["p256"].public_key_der, ECDSA_P256, pb.SignResponse.FromString(message).signature, tls13_input()
        )


def memory_mib() -> float:
    """Resident memory; 0 under a sanitizer, which keeps what is freed."""
    if "SANITIZED" in os.environ:
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


# --- not HTTP/2 at all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 100]
)
def test_other_protocols_are_closed(server: Server, data: bytes) -> None:
    connection = server.connect()
    connection.sendall(data)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    connection.close()
    assert server.plane.statistics()["refusals"]["malformed"] == 1
    serves(server)


@IN_CLASS
@given(data=st.binary(max_size=400), preface=st.booleans())
def test_random_bytes(server: Server, data: bytes, preface: bool) -> None:
    with server.connect() as connection, contextlib.suppress(OSError):
        connection.sendall((PREFACE + SettingsFrame(0).serialize() if preface else b"") + data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    serves(server)


# --- calls that are not right -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"content_type": "application/json"}, {":status": "415"}),
        ({"content_type": None}, {":status": "415"}),
        ({":method": "GET"}, {":status": "405"}),
        ({":path": "/x"}, {":status": "200", "grpc-status": "12"}),
        ({"grpc_timeout": "1 second"}, {":status": "200", "grpc-status": "3"}),
        ({"grpc_timeout": "0n"}, {":status": "200", "grpc-status": "4"}),
        ({"te": None}, {":status": "200", "grpc-status": "0"}),
        ({"grpc_encoding": "gzip"}, {":status": "200", "grpc-status": "0"}),
        ({"long": "x" * 17_000}, {":status": "200", "grpc-status": "8"}),
    ],
)
def test_headers(client: RawClient, server: Server, changes: dict[str, str | None], expected: dict[str, str]) -> None:
    frame = client.request(headers("Sign", **changes), flags=[])
    block = frame.data
    first, rest = block[:16000], block[16000:]
    client.send(
        HeadersFrame(frame.stream_id, first, flags=[] if rest else ["END_HEADERS"]),
        *([ContinuationFrame(frame.stream_id, rest, flags=["END_HEADERS"])] if rest else []),
    )
    client.data(frame.stream_id, grpc_frame(request_bytes(server)), end=True)
    found = client.wait(frame.stream_id).headers
    assert {name: found.get(name) for name in expected} == expected


def test_status_before_the_client_is_done(client: RawClient) -> None:
    """Trailers, then RST_STREAM(NO_ERROR): the client shall stop sending, and nothing went wrong in transport."""
    stream = client.open("Unknown")
    answer = client.wait(stream)
    assert answer.status == "12"
    while answer.reset is None:
        assert client.step() is not None
    assert answer.reset == NO_ERROR


def test_answer_without_half_close(client: RawClient, server: Server) -> None:
    stream = client.open("Sign")
    client.data(stream, grpc_frame(request_bytes(server)))
    assert client.wait(stream).status == "0"


@pytest.mark.parametrize("method", ["Sign", "WatchIdentity"])
def test_second_message(client: RawClient, server: Server, method: str) -> None:
    message = request_bytes(server) if method == "Sign" else pb.WatchIdentityRequest(identity="www").SerializeToString()
    stream = client.open(method)
    client.data(stream, 2 * grpc_frame(message), end=True)
    assert client.wait(stream).status == "3"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "3"),
        (b"\0\0\0", "3"),
        (grpc_frame(b"abc")[:-1], "3"),
        (grpc_frame(b"", flag=1), "13"),
        (grpc_frame(b"", flag=2), "13"),
        (b"\0\xff\xff\xff\xff", "8"),
        (b"\0\0\x09\0\x01", "8"),
    ],
)
@pytest.mark.parametrize("method", ["Sign", "Stream"])
def test_bodies(client: RawClient, method: str, body: bytes, status: str) -> None:
    stream = client.open(method)
    client.data(stream, body, end=True)
    expected = "0" if method == "Stream" and body == b"" else status
    assert client.wait(stream).status == expected


def test_message_in_one_byte_frames(client: RawClient, server: Server) -> None:
    stream = client.open("Sign")
    for byte in grpc_frame(request_bytes(server)):
        client.send(DataFrame(stream, bytes([byte])))
    client.send(DataFrame(stream, b"", flags=["END_STREAM"]))
    assert client.wait(stream).status == "0"


@IN_CLASS
@given(cuts=st.lists(st.integers(1, 3000), max_size=12), pad=st.integers(0, 50))
def test_batches_in_any_pieces(server: Server, cuts: list[int], pad: int) -> None:
    data = (
        batch(server, range(10)) + batch(server, range(10, 13)) + batch(server, range(0)) + batch(server, range(13, 20))
    )
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        for cut in [*cuts, len(data)]:
            piece, data = data[:cut], data[cut:]
            client.send(DataFrame(stream, piece, pad_length=pad, flags=["PADDED"] if pad else []))
        client.data(stream, b"", end=True)
        answer = client.wait(stream)
    results = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
    assert (answer.status, sorted(r.id for r in results)) == ("0", list(range(20)))


@IN_CLASS
@given(
    id=st.integers(0, 2**64 - 1),
    key=st.one_of(st.binary(max_size=40), st.none()),
    scheme=st.one_of(st.sampled_from([0x0403, 0x0804]), st.integers(0, 2**32 - 1)),
    data=st.one_of(st.just(tls13_input()), st.binary(max_size=600)),
    prehashed=st.booleans(),
    timeout_us=st.one_of(st.just(0), st.integers(0, 2**32 - 1)),
    kind=st.integers(-(2**31), 2**31 - 1),
    cancelled=st.lists(st.integers(0, 2**64 - 1), max_size=5),
)
def test_every_field_fuzzed(
    server: Server,
    id: int,
    key: bytes | None,
    scheme: int,
    data: bytes,
    prehashed: bool,
    timeout_us: int,
    kind: int,
    cancelled: list[int],
) -> None:
    """One answer per operation, with a status that the protocol knows."""
    key_id = server.keys["p256"].key_id if key is None else key
    operation = pb.Operation(
        id=id,
        key_id=key_id,
        signature_scheme=scheme,
        input=data,
        prehashed=prehashed,
        timeout_us=timeout_us,
        kind=kind,  # type: ignore[arg-type]  # mostly none that there is
    )
    message = pb.OperationBatch(operations=[operation], cancelled=[c for c in cancelled if c != id])
    unary = pb.SignRequest(key_id=key_id, signature_scheme=scheme, input=data, prehashed=prehashed)
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        client.data(stream, grpc_frame(message.SerializeToString()), end=True)
        answer = client.wait(stream)
        (result,) = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
        assert (answer.status, result.id) == ("0", id)
        assert result.status in (0, 3, 4, 5)
        assert client.call("Sign", unary.SerializeToString()).status in ("0", "3", "5")
        decrypt = pb.DecryptRequest(key_id=key_id, ciphertext=data)
        assert client.call("Decrypt", decrypt.SerializeToString()).status in ("3", "5")
        watch = pb.WatchIdentityRequest(identity=data.decode("latin-1"))
        assert client.call("WatchIdentity", watch.SerializeToString()).status == "5"


@IN_CLASS
@given(message=st.binary(max_size=200), method=st.sampled_from(["Sign", "Decrypt", "Stream", "WatchIdentity"]))
def test_random_messages(server: Server, message: bytes, method: str) -> None:
    with RawClient(server.connect()) as client:
        answer = client.call(method, message)
        assert answer.status in ("0", "3", "5")


# --- floods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, b"12345678"),
        SettingsFrame(0, {4: 65535}),
    ],
    ids=["ping", "settings"],
)
def test_control_frames_are_bounded(server: Server, frame: PingFrame) -> None:
    with RawClient(server.connect()) as client:
        flood = frame.serialize() * 100
        with contextlib.suppress(OSError):
            for _ in range(200):
                client.socket.sendall(flood)
                client.socket.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client.received += client.socket.recv(65536)
                client.socket.settimeout(20)
        client.wait_closed()
        assert client.goaway is None or client.goaway.error_code == ENHANCE_YOUR_CALM
    refusals = server.plane.statistics()["refusals"]
    assert refusals["flood"] + refusals["malformed"] >= 1
    serves(server)


def test_normal_keepalive_is_no_flood(client: RawClient) -> None:
    for _ in range(500):
        client.ping()


def test_empty_data_frames_are_bounded(server: Server) -> None:
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.socket.sendall(DataFrame(stream, b"").serialize() * 100)
        client.wait_closed()
    assert server.plane.statistics()["refusals"]["flood"] == 1
    serves(server)


def test_continuation_flood(server: Server) -> None:
    with RawClient(server.connect()) as client:
        frame = client.request(headers("Sign"), flags=[])
        with contextlib.suppress(OSError):
            client.send(frame)
            for _ in range(2000):
                client.send(ContinuationFrame(frame.stream_id, b""))
        client.wait_closed()
    serves(server)


def test_many_resets_are_served(server: Server) -> None:
    """A client whose own callers give up much is not thrown out, and leaves nothing behind."""
    with RawClient(server.connect()) as client:
        for _ in range(50):
            frames: list[bytes] = []
            for _ in range(100):
                opened = client.request(headers("Sign"))
                frames += [
                    opened.serialize(),
                    DataFrame(opened.stream_id, grpc_frame(request_bytes(server))).serialize(),
                    RstStreamFrame(opened.stream_id, 8).serialize(),
                ]
            client.send(*frames)
            client.ping()
        assert client.call("Sign", request_bytes(server)).status == "0"
    wait_for("no streams", lambda: server.plane.statistics()["streams"] == 0)
    assert server.plane.statistics()["queued"] == 0


def test_more_streams_than_allowed(make_server: Callable[..., Server]) -> None:
    """A client that was told the limit and goes past it is closed; one that keeps to it queues its calls itself."""
    server = make_server(max_streams_per_connection=10)
    with RawClient(server.connect()) as client:
        client.ping()
        with contextlib.suppress(OSError):
            for _ in range(12):
                client.open("Stream")
        client.wait_closed()
    with server.stub() as stub:
        request = pb.SignRequest.FromString(request_bytes(server))
        calls = [stub.Sign.future(request) for _ in range(100)]
        assert all(call.result(timeout=20).signature for call in calls)


def test_unfinished_messages_are_bounded(make_server: Callable[..., Server]) -> None:
    """Hundreds of calls that each hold back the end of a 60 KiB message: refused past 4 MiB, in memory and in count."""
    server = make_server(max_streams_per_connection=1000)
    before = memory_mib()
    with RawClient(server.connect()) as client:
        for _ in range(300):
            stream = client.open("Sign")
            client.data(stream, grpc_frame(bytes(60_000))[:-1])
        client.ping()
        refused = sum(1 for answer in client.answers.values() if answer.status == "8")
        assert refused >= 200
    assert memory_mib() - before < 40
    serves(server)


# --- readers ----------------------------------------------------------------------------------------------------------


def test_reader_with_a_tiny_window(server: Server) -> None:
    """Results come through a window of a few bytes, whole and in order of frames."""
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 7}) as client:
        stream = client.open("Stream")
        client.data(stream, batch(server, range(30)), end=True)
        answer = client.answer(stream)
        while not answer.ended:
            size = len(answer.data)
            frame = client.step()
            assert frame is not None
            if isinstance(frame, DataFrame) and len(answer.data) > size:
                client.send(
                    WindowUpdateFrame(stream, window_increment=len(answer.data) - size),
                    WindowUpdateFrame(0, window_increment=len(answer.data) - size),
                )
    results = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
    assert sorted(r.id for r in results) == list(range(30))
    for result in results:
        verify(server.keys["p256"].public_key_der, ECDSA_P256, result.output, tls13_input(result.id))


def test_unary_answer_through_a_tiny_window(server: Server) -> None:
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1}) as client:
        stream = client.open("Sign")
        client.data(stream, grpc_frame(request_bytes(server)), end=True)
        answer = client.answer(stream)
        while not answer.ended:
            if isinstance(client.step(), DataFrame):
                client.send(WindowUpdateFrame(stream, window_increment=1))
    assert answer.status == "0"
    (message,) = answer.messages()
    signature = pb.SignResponse.FromString(message).signature
    verify(server.keys["p256"].public_key_der, ECDSA_P256, signature, tls13_input())


def test_a_client_that_never_reads(make_server: Callable[..., Server]) -> None:
    """It is read from until its share is unanswered, and then no more: memory stays, others are served."""
    server = make_server(connection_queue_limit=256)
    serves(server)
    before = memory_mib()
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as client:
        client.ping()
        stream = client.open("Stream")
        client.socket.settimeout(0.5)
        sent = 0
        data = batch(server, range(200))
        with contextlib.suppress(TimeoutError):
            while sent < 200 * 2**20:
                client.socket.sendall(
                    b"".join(DataFrame(stream, data[i : i + 16384]).serialize() for i in range(0, len(data), 16384))
                )
                sent += len(data)
                client.read_available()
                while client.windows.get(stream, 0) < sent - 200_000:  # keeps to the windows it is given
                    client.step()
        assert sent < 4 * 2**20
        assert memory_mib() - before < 30
        serves(server)
        # It wakes up and reads: everything that was taken is answered.
        client.socket.settimeout(20)
        client.send(
            SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}), WindowUpdateFrame(0, window_increment=2**30)
        )
        client.ping()
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)


@pytest.mark.parametrize("tail", [b"", b"\0\0\0", grpc_frame(b"abcd")[:-1]])
def test_end_of_a_stream_that_is_paused(make_server: Callable[..., Server], tail: bytes) -> None:
    """More is sent than may be unanswered, then the end: every message is still dealt with, and so is the end."""
    server = make_server(connection_queue_limit=2)
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as client:
        stream = client.open("Stream")
        client.data(stream, b"".join(batch(server, range(n, n + 3)) for n in range(0, 60, 3)) + tail, end=True)
        client.ping()
        client.send(WindowUpdateFrame(stream, window_increment=2**20))
        answer = client.wait(stream)
    results = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
    if tail:
        assert answer.status == "3"
    else:
        assert answer.status == "0"
        assert sorted(r.id for r in results) == list(range(60))
        assert {r.status for r in results} == {0, 8}


def test_windows_reopen(server: Server) -> None:
    """Far more than a window passes through one stream, since answers leave."""
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}) as client:
        client.send(WindowUpdateFrame(0, window_increment=2**30))
        client.ping()  # the server's settings are in force: windows of 640 KiB
        stream = client.open("Stream")
        answer, allowed, sent, asked = client.answer(stream), 640 * 1024, 0, 0
        while sent < 3 * 2**20:
            data = batch(server, range(asked, asked + 100))
            while client.windows.get(stream, 0) + allowed < sent + len(data):
                assert client.step() is not None
                assert answer.reset is None
            client.send_while_reading(*(DataFrame(stream, data[at : at + 16384]) for at in range(0, len(data), 16384)))
            sent, asked = sent + len(data), asked + 100
        client.data(stream, b"", end=True)
        client.wait(stream)
    assert answer.status == "0"
    ids = sorted(r.id for m in answer.messages() for r in pb.ResultBatch.FromString(m).results)
    assert ids == list(range(asked))


def test_connections_drop_in_the_middle(server: Server) -> None:
    """Cut at a random byte of a busy exchange, many times."""
    rng = random.Random(1)
    data = batch(server, range(100)) + batch(server, range(100, 110), "rsa2048")
    for _ in range(60):
        client = RawClient(server.connect())
        stream = client.open("Stream")
        frames = b"".join(DataFrame(stream, data[i : i + 5000]).serialize() for i in range(0, len(data), 5000))
        client.send(frames[: rng.randrange(len(frames))])
        if rng.random() < 0.5:
            client.step()
        client.socket.close()
    serves(server)
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
    wait_for("no queued", lambda: server.plane.statistics()["queued"] == 0)


# --- descriptors that somebody else has too ---------------------------------------------------------------------------


@contextlib.contextmanager
def child_with_our_descriptors() -> Iterator[None]:
    """A child between fork and exec: whatever is closed here, its file stays open there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_connections_that_end_while_a_child_has_them(server: Server) -> None:
    clients = [RawClient(server.connect()) for _ in range(50)]
    for number, client in enumerate(clients):
        assert client.call("Sign", request_bytes(server, number)).status == "0"
    with child_with_our_descriptors():
        for client in clients:
            client.socket.shutdown(socket.SHUT_RDWR)
            client.socket.close()
        wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
        for _ in range(50):
            serves(server)


def test_a_removed_listener_whose_socket_lives_on(server: Server) -> None:
    for number in range(20):
        name = f"dedicated-{number}"
        server.listen(name)
        server.plane.remove_listener(name)
        with server.connect(name):
            serves(server)


def test_paused_and_running_calls_of_a_connection_that_breaks(make_server: Callable[..., Server]) -> None:
    """One call's operations are taken back while another call of the same connection is paused."""
    server = make_server(shards=1, backend="software", connection_queue_limit=64)
    for _ in range(30):
        client = RawClient(server.connect())
        streams = [client.open("Stream") for _ in range(4)]
        for stream in streams:
            for _ in range(4):
                client.data(stream, batch(server, range(60), "rsa2048"))
        client.socket.close()
    serves(server)
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
