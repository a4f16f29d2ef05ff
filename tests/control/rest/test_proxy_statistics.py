"""A proxy's statistics by way of the control plane: a real `mesh serve`, a stock Envoy on another address, and whoever
else would like to read them or to answer in its place."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.ca.identities import Identities
from control.ca.issue import RefusedRequest, issue
from control.kinds import KINDS
from control.model.identity import Identity, control_plane_id
from control.rest import proxy_statistics
from control.store.database import StoreKey
from control.store.store import Store, svid_secret
from tests.control.mesh_process import MESH, ROOT, ControlPlane, free_port
from tests.control.resources import MESH_WITH_IDENTITY

pytestmark = pytest.mark.envoy

DOMAIN = "default.default.mesh.local"
# Another address than that of Envoy's admin interface, as on a node of its own.
ADDRESS = "127.0.0.2"


def resources(admin: int, inbound: int, address: str = ADDRESS) -> str:
    return (
        MESH_WITH_IDENTITY
        + f"""---
type: Dataplane
name: web-1
labels: {{kuma.io/workload: web}}
spec:
  networking:
    address: {address}
    admin: {{port: {admin}}}
    inbound: [{{port: {inbound}, servicePort: {free_port()}, name: http, protocol: http}}]
"""
    )


class World:
    def __init__(self, folder: Path, envoy: Path) -> None:
        self.mesh, self.admin, self.inbound = ControlPlane(folder), free_port(), free_port()
        self.folder, self._binary = folder, envoy
        self.envoy: subprocess.Popen[bytes] | None = None
        self.mesh.start()
        self.apply(resources(self.admin, self.inbound))
        self.token = folder / "token"
        self.token.write_text(self.mesh.output("generate", "dataplane-token", "--name", "web-1"))

    def apply(self, text: str) -> None:
        self.mesh.output("apply", "-m", "default", "-f", "-", stdin=text)

    def start_envoy(self, *more: str) -> None:
        command = [*MESH, "dataplane", "run", "--name", "web-1", "--token-file", str(self.token)]
        command += ["--envoy", str(self._binary), "--ca-file", str(self.mesh.data / "ca.pem"), "--concurrency", "1"]
        command += [
            "--control-plane",
            f"127.0.0.1:{self.mesh.xds}",
            "--runtime-folder",
            str(self.folder / "run"),
            *more,
        ]
        with (self.folder / "envoy.log").open("ab") as log:
            self.envoy = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        for _ in range(300):
            if self.mesh.run("inspect", "stats", "web-1", "--filter", "server.live").returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(self.stats_error() + (self.folder / "envoy.log").read_text())

    def stop_envoy(self) -> None:
        if self.envoy is not None:
            self.envoy.terminate()
            self.envoy.wait(20)
            self.envoy = None

    def stats_error(self) -> str:
        refused = self.mesh.run("inspect", "stats", "web-1")
        assert refused.returncode == 1
        return refused.stderr

    def credential(self, spiffe_id: str) -> Path:
        """A certificate and key of the mesh's CA, which only who has its store can make; for either end."""
        store = Store(f"sqlite:///{self.mesh.data}/mesh.db", StoreKey(file=self.mesh.data / "store.key"), KINDS)
        key, issuer = (
            ec.generate_private_key(ec.SECP256R1()),
            Identities(store, "default").issuer("default", "identity"),
        )
        svid = issue(issuer, key.public_key(), spiffe_id, timedelta(hours=1), datetime.now(UTC))
        store.close()
        pem = self.folder / f"{spiffe_id.rpartition('/')[2]}.pem"
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pem.write_bytes(svid.chain_pem.encode() + key.private_bytes(*form))
        return pem

    def client(self, spiffe_id: str | None) -> httpx.Client:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if spiffe_id is not None:
            context.load_cert_chain(self.credential(spiffe_id))
        return httpx.Client(base_url=f"https://{ADDRESS}:{self.admin}", verify=context)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, envoy_binary: Path) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("statistics"), envoy_binary)
    try:
        made.start_envoy()
        yield made
    finally:
        made.stop_envoy()
        made.mesh.stop()


def stats(world: World, name: str) -> dict[str, Any]:
    found = json.loads(world.mesh.output("inspect", "stats", "web-1", "--filter", name, "-o", "json"))
    return {one["name"]: one["value"] for one in found["stats"] if "name" in one}


def test_every_form(world: World) -> None:
    assert "server.live: 1" in world.mesh.output("inspect", "stats", "web-1", "--filter", "^server.live$")
    assert stats(world, "^server.live$") == {"server.live": 1}
    assert "envoy_server_live{} 1" in world.mesh.output("inspect", "stats", "web-1", "-o", "prometheus")
    wrong = world.mesh.run("inspect", "stats", "web-1", "--filter", "(")
    assert (wrong.returncode, "the proxy refuses: 400" in wrong.stderr) == (1, True), wrong.stderr


def test_nobody_else_reads_them_and_nothing_else_is_read(world: World) -> None:
    with world.client(None) as nobody, pytest.raises(httpx.TransportError):
        nobody.get("/stats")
    with world.client(f"spiffe://{DOMAIN}/workload/web") as workload:
        assert workload.get("/stats").status_code == 403
    with world.client(control_plane_id(DOMAIN)) as control_plane:
        assert control_plane.get("/stats").status_code == 200
        for method, path in (("GET", "/config_dump"), ("GET", "/certs"), ("POST", "/quitquitquit"), ("POST", "/stats")):
            assert control_plane.request(method, path).status_code == 404, path


@contextlib.contextmanager
def restarted(world: World, address: str, *more: str) -> Iterator[None]:
    """The same dataplane at another address, and its Envoy with other options."""
    world.stop_envoy()
    world.apply(resources(world.admin, world.inbound, address))
    world.start_envoy(*more)
    try:
        yield
    finally:
        world.stop_envoy()
        world.apply(resources(world.admin, world.inbound))
        world.start_envoy()


def test_the_admin_interface_is_for_the_proxys_user_alone(world: World) -> None:
    place = world.folder / "run" / "default.web-1" / "admin.sock"
    assert place.is_socket()
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", world.admin), 5)


def pages(client: httpx.Client) -> dict[str, str]:
    """Every page of Envoy's admin interface that changes nothing, by its path."""
    named = re.findall(r"^  (/[^\s:]*):", client.get("/help").text, re.MULTILINE)
    assert {"/config_dump", "/certs", "/init_dump", "/stats", "/clusters"} <= set(named)
    more = ["/config_dump?include_eds", "/config_dump?resource=dynamic_active_secrets", "/clusters?format=json"]
    answers = {path: client.get(path) for path in [*named, *more]}
    # The others answer with 405: they change something, and take POST only.
    return {path: answer.text for path, answer in answers.items() if answer.status_code == 200}


def no_secret_is_in(shown: dict[str, str], world: World) -> None:
    store = Store(f"sqlite:///{world.mesh.data}/mesh.db", StoreKey(file=world.mesh.data / "store.key"), KINDS)
    kept = store.secret(svid_secret("default", "web-1"))
    store.close()
    assert kept is not None
    key = re.search(
        r"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----", kept.decode().replace("\\n", "\n"), re.S
    )
    assert key is not None
    lines = key[0].splitlines()[1:-1]
    secrets = [line for line in lines if len(line) == 64]  # the last one has a few bytes only
    secrets += [base64.b64encode(key[0].encode()).decode()[:80], base64.b64decode("".join(lines)).hex()[80:]]
    secrets += world.token.read_text().split(".")[1:]
    for path, text in shown.items():
        assert not [secret for secret in secrets if secret in text], path
    assert "[redacted]" in shown["/config_dump"], "the key is there, and Envoy hides it"


def test_no_page_of_the_admin_interface_has_the_token_or_the_key(world: World) -> None:
    transport = httpx.HTTPTransport(uds=str(world.folder / "run" / "default.web-1" / "admin.sock"))
    with httpx.Client(transport=transport, base_url="http://envoy", timeout=60) as client:
        no_secret_is_in(pages(client), world)


def test_with_an_admin_port(world: World) -> None:
    """Who wants it has it as before: also at 127.0.0.1, where nothing stands before it. It shows no secret either."""
    with restarted(world, "127.0.0.1", "--admin-port", str(world.admin)):
        assert stats(world, "^server.live$") == {"server.live": 1}
        with httpx.Client(base_url=f"http://127.0.0.1:{world.admin}", timeout=60) as client:
            no_secret_is_in(pages(client), world)
    with restarted(world, ADDRESS, "--admin-port", str(world.admin)):
        assert stats(world, "^server.live$") == {"server.live": 1}


def test_metrics_come_through_the_socket(world: World) -> None:
    port = free_port()
    world.apply(
        "type: MeshMetric\nname: all\nspec: {default: {backends: [{type: Prometheus, prometheus: "
        f"{{port: {port}, path: /metrics}}}}]}}}}\n"
    )
    text = ""
    for _ in range(300):
        with contextlib.suppress(httpx.TransportError):
            text = httpx.get(f"http://{ADDRESS}:{port}/metrics", trust_env=False).text
        if "envoy_server_live{} 1" in text:
            break
        time.sleep(0.1)
    assert "envoy_server_live{} 1" in text
    assert httpx.get(f"http://{ADDRESS}:{port}/config_dump", trust_env=False).status_code == 404
    world.mesh.output("delete", "mm", "all")


def test_no_workload_gets_the_name_that_opens_it(world: World) -> None:
    store = Store(f"sqlite:///{world.mesh.data}/mesh.db", StoreKey(file=world.mesh.data / "store.key"), KINDS)
    identities, ours = Identities(store, "default"), Identity(control_plane_id(DOMAIN), DOMAIN, "identity")
    with pytest.raises(RefusedRequest, match="is reserved for the control plane"):
        identities.credential("default", "web-1", ours, "p256")
    with pytest.raises(RefusedRequest, match="is reserved for the control plane"):
        identities.sign("default", ours, b"", "n1")
    store.close()


def test_a_restart_of_the_control_plane_changes_nothing_in_envoy(world: World) -> None:
    names = "^(cluster_manager.cds|listener_manager.lds|listener_manager.listener_|cluster_manager.cluster_|sds).*"
    names += "(version|update_success|rejected|added|modified|removed)$"
    before = stats(world, names)
    assert before["listener_manager.lds.update_success"] > 0
    assert world.mesh.stop() == 0
    world.mesh.start()
    for _ in range(200):
        overview = json.loads(world.mesh.output("inspect", "overview", "web-1", "-o", "json"))
        if overview["connections"]:
            break
        time.sleep(0.1)
    assert overview["connections"], "it is back"
    time.sleep(1)
    assert stats(world, names) == before


def test_whoever_answers_in_its_place_is_not_believed(world: World) -> None:
    world.stop_envoy()
    try:
        assert "the proxy does not answer at 127.0.0.2" in world.stats_error()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(world.credential(f"spiffe://{DOMAIN}/workload/impostor"))
        heard: list[bytes] = []
        with socket.create_server((ADDRESS, world.admin)) as listener:

            def impostor() -> None:
                connection, _ = listener.accept()
                with context.wrap_socket(connection, server_side=True) as shown:
                    heard.append(shown.recv(100))

            thread = threading.Thread(target=impostor)
            thread.start()
            said = world.stats_error()
            thread.join(20)
        assert f"is spiffe://{DOMAIN}/workload/impostor, not spiffe://{DOMAIN}/workload/web" in said
        assert heard == [b""], "nothing was asked of it"
        # On the control plane's own host: who listens there has to be this proxy.
        world.apply(resources(world.admin, world.inbound, "127.0.0.1"))
        files = subprocess.Popen(
            ["python3", "-m", "http.server", "--bind", "127.0.0.1", str(world.admin)],
            cwd=world.folder,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(100):
                if "does not answer at" not in (said := world.stats_error()):
                    break
                time.sleep(0.1)
            assert "the proxy refuses: 404" in said
        finally:
            files.terminate()
            files.wait(10)
        world.apply(resources(world.admin, world.inbound))
    finally:
        world.start_envoy()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: "])
def test_an_answer_that_never_ends_is_cut(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_statistics, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            with listener.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(head)
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=5)
        with pytest.raises(proxy_statistics.NoAnswer, match="took more than"):
            proxy_statistics._get(connection, "/stats")
        connection.close()
        thread.join(timeout=10)
    assert not thread.is_alive()


WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
)


@pytest.mark.parametrize("whole", WHOLE, ids=["length", "chunks"])
def test_an_answer_that_is_cut_anywhere_is_none(whole: bytes) -> None:
    """By a proxy that ends in the middle of it."""
    end = len(whole) - len(b"\r\n\r\n") if b"chunked" in whole else len(whole)  # a chunk of 0 bytes is the end
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for size in range(len(whole) + 1):
                with listener.accept()[0] as connection:
                    connection.recv(1000)
                    connection.sendall(whole[:size])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        for size in range(len(whole) + 1):
            connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=30)
            with contextlib.closing(connection):
                if size >= end:
                    assert proxy_statistics._get(connection, "/stats") == b"ab"
                    continue
                try:
                    body = proxy_statistics._get(connection, "/stats")
                except (proxy_statistics.NoAnswer, http.client.HTTPException, OSError):
                    continue
                pytest.fail(f"{whole[:size]!r} passes for {body!r}")
        thread.join(60)
    assert not thread.is_alive()


def test_what_a_dataplane_lacks_is_said(world: World) -> None:
    without = resources(world.admin, world.inbound).replace(f"    admin: {{port: {world.admin}}}\n", "")
    world.apply(without)
    assert "has no networking.admin.port" in world.stats_error()
    world.apply(resources(world.admin, world.inbound).replace("{kuma.io/workload: web}", "{app: web}"))
    assert "has no identity" in world.stats_error()
    missing = world.mesh.run("inspect", "stats", "none")
    assert (missing.returncode, "there is no Dataplane 'none'" in missing.stderr) == (1, True)
    world.apply(resources(world.admin, world.inbound))
