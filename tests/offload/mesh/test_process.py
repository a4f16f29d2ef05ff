"""The daemon and `mesh serve`, each a process of its own: who is believed, what is bounded, what people see."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.node.waiting import wait_for
from offload.v1 import admin_pb2
from tests.control.mesh_process import ControlPlane
from tests.control.resources import MESH_WITH_IDENTITY
from tests.offload.daemon_process import DaemonProcess, command, environment, sign_request
from tests.offload.issuing.test_generator import SCHEMES

CART = "spiffe://default.default.mesh.local/workload/cart"
APART = "not connected to the control plane; the current state stays in force"
MESH = (
    MESH_WITH_IDENTITY
    + f"""---
type: Dataplane
name: cart-1
labels: {{kuma.io/workload: cart, offload.mesh/node: n1, offload.mesh/uid: "{os.getuid()}"}}
spec: {{networking: {{address: 10.0.0.1, inbound: [{{port: 80, servicePort: 8080}}]}}}}
"""
)


def policy(socket: Path, **more: Any) -> str:
    return f"\n---\ntype: MeshOffload\nname: all\nspec: {{default: { ({'socket': str(socket)} | more) }}}\n"


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    made = ControlPlane(tmp_path_factory.mktemp("mesh"))
    made.start()
    made.output("apply", "-m", "default", "-f", "-", stdin=MESH)
    yield made
    if made.process is not None and made.process.poll() is None:
        assert made.stop() == 0


class Node(DaemonProcess):
    """The node n1 of that control plane; not started."""

    def __init__(self, folder: Path, control_plane: ControlPlane) -> None:
        super().__init__(folder)
        self.control_plane = control_plane
        self.token_file = folder / "token"
        self.token_file.write_text(control_plane.output("generate", "node-token", "--name", "n1"))

    def join(self, ca_file: Path | None = None, **sections: Any) -> None:
        address, ca = f"127.0.0.1:{self.control_plane.xds}", ca_file or self.control_plane.data / "ca.pem"
        mesh = {"control_plane": address, "ca_file": str(ca), "token_file": str(self.token_file)}
        self.configure(mesh=mesh, **sections)

    def policy(self, **more: Any) -> None:
        self.control_plane.output("apply", "-m", "default", "-f", "-", stdin=policy(self.socket, **more))

    def names(self) -> list[str]:
        with self.admin() as admin:
            return [one.name for one in admin.ListKeys(admin_pb2.ListKeysRequest(), timeout=10).identities]

    def mesh(self) -> Any:
        with self.admin() as admin:
            return admin.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=10).mesh


@pytest.fixture
def node(tmp_path: Path, control_plane: ControlPlane) -> Iterator[Node]:
    made = Node(tmp_path, control_plane)
    yield made
    made.stop()


@pytest.mark.slow(seconds=3)
def test_status_and_metrics_say_where_it_stands(node: Node) -> None:
    node.policy(software="Forbid")
    node.join(data_plane={"backend": "software"})
    node.start()
    wait_for("the problem", lambda: node.mesh().problems)
    assert node.mesh().connected
    assert not node.names()
    log = node.control_plane.folder / "serve.log"
    wait_for("the control plane to know", lambda: "no vector kernels" in log.read_text())
    with urllib.request.urlopen(f"http://{node.metrics_address()}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert "offload_mesh_connected 1.0" in text
    assert "offload_mesh_problems 1.0" in text
    shown = command("status", "--admin-socket", node.admin_socket)
    printed = subprocess.run(shown, env=environment(COLUMNS="300"), capture_output=True, text=True, check=True).stdout
    assert f"connected by mutual TLS to 127.0.0.1:{node.control_plane.xds}, configuration " in printed
    assert "no vector kernels" in printed
    node.policy(software="Allow", batch={"maxWaitUs": 0, "maxQueue": 16})
    wait_for("the identity", lambda: node.names() == [CART])
    assert not node.mesh().problems
    (credential,) = node.identity(CART).credentials
    with node.client() as stub:
        assert stub.Sign(sign_request(credential.key_id, SCHEMES["p256"]), timeout=10).signature


@pytest.mark.slow(seconds=3)
def test_another_server_is_not_believed(node: Node, tmp_path: Path) -> None:
    """The certificate is not of the CA that the node was given: no token goes out."""
    ca = tmp_path / "other.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
         "/CN=other", "-keyout", "/dev/null", "-out", ca],
        check=True, capture_output=True,
    )  # fmt: skip
    joins = (node.control_plane.folder / "serve.log").read_text().count("a node joined")
    node.join(ca_file=ca)
    node.start()
    reason = node.wait_log(APART)["reason"]
    assert "CERTIFICATE_VERIFY_FAILED" in reason
    assert (node.control_plane.folder / "serve.log").read_text().count("a node joined") == joins
    assert not node.mesh().connected
    assert node.token_file.read_text().strip() not in node.log_file.read_text()


@pytest.mark.slow(seconds=3)
def test_a_token_file_of_any_content_ends_nothing(node: Node) -> None:
    good = node.token_file.read_text()
    node.policy()
    node.join()
    node.token_file.write_bytes(b"\xff\x00\n\x01")
    node.start()
    wait_for("the reason", lambda: "has no token" in node.mesh().reason)
    node.token_file.write_text("")
    wait_for("the next try", lambda: len(node.events(APART)) >= 1 and "has no token" in node.mesh().reason)
    node.token_file.write_text(good)
    wait_for("the identity", lambda: node.names() == [CART])


@pytest.mark.slow(seconds=10)
def test_mutual_tls_and_the_token_is_needed_once(node: Node) -> None:
    """Both are killed and come back; the token is gone meanwhile, and what is in force stays."""
    node.policy()
    node.join()
    node.start()
    wait_for("the identity", lambda: node.names() == [CART])
    assert node.mesh().mutual_tls
    assert node.events("connected to the control plane")[-1]["mutual_tls"] is True
    nodes_port = node.events("received the node's certificate")[-1]["address"].rpartition(":")[2]
    version = node.identity(CART).version
    node.token_file.unlink()
    assert node.control_plane.stop() == 0
    node.wait_log(APART)
    assert node.identity(CART).version == version
    node.control_plane.start(nodes=int(nodes_port))
    wait_for("the stream", lambda: node.mesh().connected)
    assert node.mesh().mutual_tls
    assert len(node.events("received the node's certificate")) == 1, "the same certificate, and no token"
    assert node.identity(CART).version == version


PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.mark.slow(seconds=3)
def test_proxies_of_the_environment_do_not_come_between(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither between daemon and control plane nor between people's commands and both."""
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    node.policy()  # by `mesh apply`
    node.join()
    node.start()
    wait_for("the identity", lambda: node.names() == [CART])
    status = subprocess.run(
        command("status", "--admin-socket", node.admin_socket),
        capture_output=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert status.returncode == 0, status.stderr


@pytest.mark.slow(seconds=2)
def test_a_proxy_of_the_configuration_is_used(node: Node) -> None:
    """A real one: it sees the CONNECT and carries the stream."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_proxy, args=(listening, seen), daemon=True).start()
        node.policy()
        node.join()
        config = yaml.safe_load(node.config_file.read_text())
        config["mesh"]["proxy"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
        node.config_file.write_text(yaml.safe_dump(config))
        node.start()
        wait_for("the identity", lambda: node.names() == [CART])
        assert seen[0].startswith(b"CONNECT 127.0.0.1:%d " % node.control_plane.xds)
        node.stop()


def _proxy(listening: socket.socket, seen: list[bytes]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_tunnel, args=(client, seen), daemon=True).start()


def _tunnel(client: socket.socket, seen: list[bytes]) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(4096)
    seen.append(head)
    host, _, port = head.split()[1].decode().rpartition(":")
    server = socket.create_connection((host, int(port)))
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    threading.Thread(target=_copy, args=(server, client), daemon=True).start()
    _copy(client, server)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
