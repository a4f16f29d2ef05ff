"""Bytes of all kinds at a real control plane in a process of its own: it goes on, and says why it ends a stream.

After each stream another proxy, which was there all the time, has to get its next change.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import h2.connection
import h2.events
import h2.settings
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from control.model.placement import PROXY_LABEL
from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET
from tests.control.mesh_process import ControlPlane

MESH = """
type: Mesh
name: default
---
type: MeshService
name: backend
mesh: default
spec: {selector: {dataplaneLabels: {matchLabels: {app: backend}}}, ports: [{port: 80, targetPort: 8080}]}
"""
DATAPLANE = """
---
type: Dataplane
name: NAME
mesh: default
labels: LABELS
spec:
  networking:
    address: ADDRESS
    inbound: [{port: 8080, protocol: http}]
    outbound: [{port: 3000, backendRef: {kind: MeshService, name: backend, port: 80}}]
"""
SERVICE = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
METHODS = {False: SERVICE + "StreamAggregatedResources", True: SERVICE + "DeltaAggregatedResources"}
BACKEND = "kri_msvc_default___backend_80"
# What a stream may end with: by its own half-close, or with what is wrong with it.
FINE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED,
}


def dataplane(name: str, app: str, address: str) -> str:
    labels = {"app": app}
    if app == "backend":  # never connects here, and has to be an endpoint all the same
        labels[PROXY_LABEL] = "none"
    return DATAPLANE.replace("NAME", name).replace("LABELS", json.dumps(labels)).replace("ADDRESS", address)


class Target:
    """The control plane, raw streams to it, and the proxy that has to go on."""

    def __init__(self, folder: Path) -> None:
        self.control_plane = ControlPlane(folder)
        self.control_plane.start()
        self._addresses = itertools.count(2)
        self._apply(MESH + dataplane("web-1", "web", "10.0.0.1") + dataplane("web-2", "web", "10.0.0.1"))
        generate = ("generate", "dataplane-token", "--mesh", "default")
        self.token = self.control_plane.output(*generate).strip()
        ca = grpc.ssl_channel_credentials((self.control_plane.data / "ca.pem").read_bytes())
        self.channel = grpc.secure_channel(f"127.0.0.1:{self.control_plane.xds}", ca)
        self._requests: queue.Queue[Any] = queue.Queue()
        self._answers = self.call(False, iter(self._requests.get, None), timeout=1200)  # as long as all tests here
        self._say(ENDPOINTS, node={"id": "default.web-2"})
        self._acknowledge()

    def _apply(self, text: str) -> None:
        done = self.control_plane.run("apply", "-f", "-", stdin=text)
        assert done.returncode == 0, done.stderr

    def call(self, delta: bool, requests: Iterator[bytes], timeout: float = 60) -> Any:
        method = self.channel.stream_stream(METHODS[delta])
        return method(requests, metadata=[("authorization", f"Bearer {self.token}")], timeout=timeout)

    def _say(self, type_url: str, **more: Any) -> None:
        request = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=[BACKEND], **more)
        self._requests.put(request.SerializeToString())

    def _acknowledge(self) -> bytes:
        data: bytes = next(self._answers)
        answer = discovery_pb2.DiscoveryResponse.FromString(data)
        self._say(answer.type_url, version_info=answer.version_info, response_nonce=answer.nonce)
        return data

    def goes_on(self) -> None:
        """The process runs, and the other proxy gets what changes now."""
        process = self.control_plane.process
        assert process is not None
        assert process.poll() is None, (self.control_plane.folder / "serve.log").read_text()
        number = next(self._addresses)
        self.newest = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        self._apply(dataplane("backend-1", "backend", self.newest))
        while self.newest.encode() not in self._acknowledge():
            pass

    def say(self, delta: bool, requests: Sequence[bytes]) -> tuple[grpc.StatusCode, str]:
        """One stream with these messages: how it ends."""
        answers = self.call(delta, iter(requests))
        try:
            for _ in answers:
                pass
        except grpc.RpcError:
            pass  # its status is what is looked at
        return answers.code(), answers.details()

    def memory_kb(self) -> int:
        assert self.control_plane.process is not None
        status = Path(f"/proc/{self.control_plane.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def end(self) -> None:
        self._requests.put(None)
        self.channel.close()
        assert self.control_plane.stop() == 0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("fuzz"))
    yield target
    target.end()


text = st.text(max_size=12) | st.sampled_from(["a", "*", "", BACKEND, "x" * 600])
urls = st.sampled_from([CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, "type.googleapis.com/unknown", ""]) | text
nodes = st.sampled_from(["default.web-1", "default.web-2", "default.nobody", "other.web-1", "", ".", "x" * 5000]) | text
nonces = st.sampled_from(["", "1", "2", "3", "x", "9" * 5000])
errors = st.none() | st.builds(status_pb2.Status, code=st.integers(0, 20), message=st.text(max_size=20))
names = st.lists(text, max_size=5) | st.integers(1, 4000).map(lambda count: [f"n{number}" for number in range(count)])


def metadata(size: int) -> dict[str, Any]:
    return {"metadata": {"fields": {"m": {"string_value": "y" * size}}}}


def request_of(delta: bool, url: str, node: str, some: Sequence[str], nonce: str, error: Any, size: int) -> bytes:
    if delta:
        message = discovery_pb2.DeltaDiscoveryRequest(
            resource_names_subscribe=some[::2],
            resource_names_unsubscribe=some[1::2],
            # Short enough for thousands of them to stay below what gRPC takes as one message.
            initial_resource_versions=dict.fromkeys(some[::3], nonce[:600]),
        )
    else:
        message = discovery_pb2.DiscoveryRequest(resource_names=some, version_info=nonce)
    message.type_url, message.response_nonce = url, nonce
    if node:
        message.node.CopyFrom(type(message.node)(id=node, **metadata(size)))
    if error is not None:
        message.error_detail.CopyFrom(error)
    return message.SerializeToString()


def messages(delta: bool) -> st.SearchStrategy[bytes]:
    size = st.sampled_from([0, 0, 0, 100_000])
    rest_of_it = st.builds(request_of, st.just(delta), urls, st.just("") | nodes, names, nonces, errors, size)
    return rest_of_it | st.binary(max_size=60)


def streams(delta: bool) -> st.SearchStrategy[list[bytes]]:
    hello = st.builds(
        request_of, st.just(delta), urls, st.just("default.web-1") | nodes, names, nonces, errors, st.just(0)
    )
    return st.tuples(hello | st.binary(max_size=40), st.lists(messages(delta), max_size=8)).map(
        lambda parts: [parts[0], *parts[1]]
    )


@pytest.mark.parametrize("delta", [False, True], ids=["state of the world", "delta"])
def test_any_messages(target: Target, delta: bool) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(streams(delta))
    @example([])
    @example([b"\x0a\x02\xff\xfe"])
    def run(said: list[bytes]) -> None:
        code, details = target.say(delta, said)
        assert code in FINE, (code, details)
        assert code is grpc.StatusCode.OK or details

    run()
    target.goes_on()


HELLO = {"id": "default.web-1"}
Make = Callable[..., Any]


@pytest.mark.parametrize("delta", [False, True], ids=["state of the world", "delta"])
def test_what_ends_a_stream_is_said(target: Target, delta: bool) -> None:
    kind: Make = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest
    named = "resource_names_subscribe" if delta else "resource_names"

    def said(*requests: dict[str, Any] | bytes) -> tuple[str, str]:
        sent = [one if isinstance(one, bytes) else kind(**one).SerializeToString() for one in requests]
        code, details = target.say(delta, sent)
        return code.name, details

    good = {"type_url": CLUSTER, "node": HELLO}
    not_utf8 = b"\x22\x02\xff\xfe" if not delta else b"\x12\x02\xff\xfe"  # of the field type_url
    cases: list[tuple[list[Any], str, str]] = [
        ([], "INVALID_ARGUMENT", "no request arrived"),
        ([b"\xff\xff\xff"], "INVALID_ARGUMENT", "this is not a"),
        ([good, b"\xff\xff\xff"], "INVALID_ARGUMENT", "this is not a"),
        ([good, not_utf8], "INVALID_ARGUMENT", "this is not a"),
        ([{"type_url": CLUSTER}], "INVALID_ARGUMENT", "node.id must be"),
        ([{"type_url": CLUSTER, "node": {"id": "default." + "x" * 100_000}}], "INVALID_ARGUMENT", "node.id must be"),
        ([{"type_url": CLUSTER, "node": {"id": "default.nobody"}}], "NOT_FOUND", "apply it first"),
        ([good, {"type_url": LISTENER, "node": {"id": "default.web-2"}}], "INVALID_ARGUMENT", "another node needs"),
        ([good, {"type_url": ENDPOINTS, named: [str(n) for n in range(10_001)]}], "INVALID_ARGUMENT", "at most 10000"),
        ([good, {"type_url": ENDPOINTS, named: ["x" * 513]}], "INVALID_ARGUMENT", "more than 512"),
        # Larger than any request: gRPC itself ends it.
        ([{"type_url": CLUSTER, "node": HELLO | metadata(5_000_000)}], "RESOURCE_EXHAUSTED", "larger than max"),
        ([good, {"type_url": "type.googleapis.com/unknown", named: ["a"]}], "OK", ""),
        ([good, good, {"type_url": CLUSTER, "response_nonce": "wrong"}], "OK", ""),
        ([{"type_url": CLUSTER, "node": HELLO | metadata(3_000_000)}], "OK", ""),
    ]
    if delta:
        unknown = {"type_url": ENDPOINTS, "resource_names_unsubscribe": ["never", "*", ""]}
        versions = {"initial_resource_versions": {"a": "v" * 513}}
        cases += [
            ([good, unknown, unknown], "OK", ""),
            ([good | versions], "INVALID_ARGUMENT", "more than 512"),
        ]
    for requests, code, says in cases:
        found, details = said(*requests)
        assert (found, says in details) == (code, True), (requests, found, details)
    target.goes_on()


@pytest.mark.slow(seconds=3)
def test_memory_stays_where_it_is(target: Target) -> None:
    """Streams with much of everything, one after the other: what they held goes with them."""

    def much() -> None:
        requests = [
            request_of(True, url, "default.web-1" if first else "", [f"{url}{n}" for n in range(4000)], "", None, size)
            for first, (url, size) in enumerate([(CLUSTER, 1_000_000), (ENDPOINTS, 0), (ROUTES, 0)])
        ]
        requests[0] = request_of(True, CLUSTER, "default.web-1", ["*"], "", None, 1_000_000)
        code, details = target.say(True, requests)
        assert code is grpc.StatusCode.OK, details

    for _ in range(5):
        much()
    before = target.memory_kb()
    for _ in range(30):
        much()
    target.goes_on()
    assert target.memory_kb() < before + 40_000, "kB"


def test_streams_that_say_nothing_and_garbage_that_is_no_http(target: Target) -> None:
    with socket.create_connection(("127.0.0.1", target.control_plane.xds)) as plain:
        plain.sendall(os.urandom(2000))
    silent: queue.Queue[Any] = queue.Queue()
    calls = [target.call(False, iter(silent.get, None)) for _ in range(20)]
    target.goes_on()
    for call in calls:
        call.cancel()
    for _ in calls:
        silent.put(None)
    target.goes_on()


class Stalled:
    """A proxy that never gives HTTP/2 a byte of room for answers, until `read`; by hand, as gRPC always reads ahead."""

    def __init__(self, target: Target) -> None:
        context = ssl.create_default_context(cafile=str(target.control_plane.data / "ca.pem"))
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", target.control_plane.xds))
        self._socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        self._socket.settimeout(20)
        self._h2 = h2.connection.H2Connection()
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        head = [(":method", "POST"), (":scheme", "https"), (":authority", "127.0.0.1"), (":path", METHODS[False])]
        head += [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", f"Bearer {target.token}")]
        self._h2.send_headers(1, head)
        self._data = b""
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def say(self, **fields: Any) -> None:
        message = discovery_pb2.DiscoveryRequest(type_url=ENDPOINTS, resource_names=[BACKEND], **fields)
        data = message.SerializeToString()
        self._h2.send_data(1, b"\0" + len(data).to_bytes(4, "big") + data)
        self._flush()

    def _take(self) -> None:
        for event in self._h2.receive_data(self._socket.recv(65536)):
            if isinstance(event, h2.events.DataReceived):
                self._data += event.data or b""
        self._flush()

    def waits_for_room(self) -> None:
        """What the server sends without room: its settings and headers, but no data."""
        self._socket.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while True:
                self._take()
        self._socket.settimeout(20)
        assert self._data == b""

    def read(self) -> Any:
        """Makes room for one answer and takes it."""
        self._h2.increment_flow_control_window(100_000, 1)
        self._flush()
        while len(self._data) < 5 or len(self._data) < 5 + int.from_bytes(self._data[1:5], "big"):
            self._take()
        size = int.from_bytes(self._data[1:5], "big")
        answer, self._data = self._data[5 : 5 + size], self._data[5 + size :]
        return discovery_pb2.DiscoveryResponse.FromString(answer)

    def close(self) -> None:
        self._socket.close()


@pytest.mark.slow(seconds=7)
def test_proxies_that_do_not_read_or_refuse_hold_up_nobody(target: Target) -> None:
    stalled = [Stalled(target) for _ in range(20)]
    for proxy in stalled:
        proxy.say(node=HELLO)
    refusals: queue.Queue[Any] = queue.Queue()
    refusing = target.call(False, iter(refusals.get, None))

    def refuse(nonce: str = "", **more: Any) -> None:
        error = status_pb2.Status(message="no" * 50_000) if nonce else None
        request = discovery_pb2.DiscoveryRequest(
            type_url=ENDPOINTS, resource_names=[BACKEND], response_nonce=nonce, error_detail=error, **more
        )
        refusals.put(request.SerializeToString())

    refuse(node=HELLO)
    for _ in range(5):
        target.goes_on()
    before = target.memory_kb()
    nonces = []
    for _ in range(40):
        target.goes_on()
        # It refuses each change at once, and gets the next.
        nonces.append(discovery_pb2.DiscoveryResponse.FromString(next(refusing)).nonce)
        refuse(nonces[-1])
    assert len(set(nonces)) == 40
    assert target.memory_kb() < before + 20_000, "kB"
    stalled[0].waits_for_room()
    first = stalled[0].read()
    stalled[0].say(version_info=first.version_info, response_nonce=first.nonce)
    second = stalled[0].read()
    assert target.newest.encode() not in first.SerializeToString()
    assert target.newest.encode() in second.SerializeToString()  # and nothing of the 40 in between
    overview = json.loads(target.control_plane.output("inspect", "overview", "web-1", "-o", "json"))
    refused = [one["types"]["EDS"].get("refused") for one in overview["connections"] if "EDS" in one["types"]]
    assert "no" * 1000 in refused  # and not all the 100 kB that it said
    refusing.cancel()
    refusals.put(None)
    for proxy in stalled:
        proxy.close()
    target.goes_on()
