"""A control plane that sends what is no message, or nonsense in one: the daemon says so and goes on."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from deploy.node.certificates import unsigned
from deploy.node.waiting import wait_for
from offload.v1 import admin_pb2, node_pb2
from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import key_pem

GARBAGE = b"\xff\xff\xff"
Script = Sequence[bytes]


def self_signed() -> tuple[bytes, bytes]:
    """(certificate, key) of 127.0.0.1, as PEM."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    names = [x509.IPAddress(ip_address("127.0.0.1"))]
    builder = unsigned(name, name, key.public_key(), is_ca=None, names=names, names_are_critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM), key_pem(key)


def configuration(version: str, **more: Any) -> bytes:
    made = node_pb2.Configuration(version=version, **more)
    return node_pb2.ControlMessage(configuration=made).SerializeToString()


class Hostile:
    """Each stream gets the next of the scripts and then stays open; a script that is empty ends it at once."""

    def __init__(self, folder: Path) -> None:
        certificate, key = self_signed()
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate)
        self.scripts: queue.SimpleQueue[Script] = queue.SimpleQueue()
        self.joins: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.heard: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(8))
        handlers = {
            "Connect": grpc.stream_stream_rpc_method_handler(self._connect, node_pb2.NodeMessage.FromString, None),
            "Join": grpc.unary_unary_rpc_method_handler(self._join, None, None),
        }
        service = grpc.method_handlers_generic_handler("offload.v1.NodeService", handlers)
        self._server.add_generic_rpc_handlers((service,))
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    def _join(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        if self.joins.empty():
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no port")
        return self.joins.get()

    def _connect(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            script = self.scripts.get_nowait()
        except queue.Empty:
            context.abort(grpc.StatusCode.UNAVAILABLE, "nothing more to say")
        yield from script
        for request in requests:  # until the daemon ends the stream
            self.heard.append(request)

    def applied(self) -> list[str]:
        return [one.applied.version for one in self.heard if one.WhichOneof("message") == "applied"]

    def stop(self) -> None:
        self._server.stop(0).wait(10)


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    made = Hostile(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def daemon(tmp_path: Path, hostile: Hostile) -> Iterator[DaemonProcess]:
    made = DaemonProcess(tmp_path)
    token = tmp_path / "token"
    token.write_text("x")
    address = f"127.0.0.1:{hostile.port}"
    made.configure(mesh={"control_plane": address, "ca_file": str(hostile.ca_file), "token_file": str(token)})
    yield made
    made.stop()


def mesh(daemon: DaemonProcess) -> Any:
    with daemon.admin() as admin:
        return admin.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=10).mesh


NO_TEXT = configuration("abcd").replace(b"abcd", b"a\xff\xfed")
NONSENSE = configuration(
    "v2",
    identities=[
        node_pb2.MeshIdentity(spiffe_id="\n" * 3000, usage="tls13", key_type="p256"),
        node_pb2.MeshIdentity(spiffe_id="spiffe://a/b", usage="tls13", key_type="?"),
        node_pb2.MeshIdentity(spiffe_id="spiffe://a/c", usage="x" * 100_000, key_type="p256"),
    ],
    trusted_domains=[node_pb2.TrustedDomain(trust_domain="a", authorities=[b"x"], mesh="m")],
)
ANSWER = node_pb2.CertificateAnswer(id=7, certificate_chain=[b"x"], renew_at=2**62)
UNASKED = node_pb2.ControlMessage(certificate_answer=ANSWER).SerializeToString()


@pytest.mark.slow(seconds=4)
def test_what_is_no_message_ends_the_stream_and_the_next_one_works(daemon: DaemonProcess, hostile: Hostile) -> None:
    for script in ([GARBAGE], [NO_TEXT], [configuration("v1"), GARBAGE], [UNASKED, b"", NONSENSE]):
        hostile.scripts.put(script)
    daemon.start()
    wait_for("the last configuration to be answered", lambda: "v2" in hostile.applied())
    assert hostile.applied()[-1] == "v2"
    said = [
        entry["reason"]
        for entry in daemon.events("not connected to the control plane; the current state stays in force")
    ]
    assert any("bytes that are not a ControlMessage" in reason for reason in said)
    [taken] = [one.applied for one in hostile.heard if one.WhichOneof("message") == "applied" and one.applied.problems]
    assert len(taken.problems) == 4
    assert all(len(problem) < 1000 for problem in taken.problems)
    status = mesh(daemon)
    assert (status.connected, status.version, len(status.problems)) == (True, "v2", 4)
    assert not [entry for entry in daemon.log() if "Traceback" in str(entry)]
    assert daemon.stop() == 0


@pytest.mark.slow(seconds=3)
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (GARBAGE, "bytes that are not a JoinAnswer"),
        (b"", "the answer contains no certificate"),
        (node_pb2.JoinAnswer(certificate_chain=[b"x"] * 1000, port=2**31).SerializeToString(), "cannot be parsed"),
    ],
    ids=["no message", "empty", "no certificate"],
)
def test_what_is_no_certificate_of_the_node_is_said(
    daemon: DaemonProcess, hostile: Hostile, answer: bytes, says: str
) -> None:
    hostile.joins.put(answer)
    hostile.scripts.put([configuration("v1")])
    daemon.start()
    wait_for("the next try to be served", lambda: hostile.applied() == ["v1"])
    [said, *_] = daemon.events("not connected to the control plane; the current state stays in force")
    assert says in said["reason"]
    assert mesh(daemon).connected
