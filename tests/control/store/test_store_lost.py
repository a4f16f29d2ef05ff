"""A real `mesh serve` that loses its store in each way there is, and gets it back: it says so, serves nothing wrong (a
proxy's stream gets nothing at all), and is itself again without anybody's help. And a restart, which loses nothing."""

from __future__ import annotations

import itertools
import queue
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from control.xds.encoding.encode import CLUSTER, LISTENER, SECRET
from deploy.node.waiting import wait_for
from tests.control.mesh_process import ControlPlane
from tests.control.resources import MESH_WITH_IDENTITY

RESOURCES = (
    MESH_WITH_IDENTITY
    + """---
type: Dataplane
name: web-1
labels: {kuma.io/workload: web}
spec:
  networking:
    address: 127.0.0.1
    inbound: [{port: 21390, servicePort: 21391, name: http, protocol: http}]
"""
)
_PORTS = itertools.count(21400)


def another_inbound() -> str:
    """A change, each time a new one."""
    more = f"}}, {{port: {next(_PORTS)}, servicePort: 21392, name: more, protocol: http}}]"
    return RESOURCES.replace("}]", more)


QUIET_S = 1.0


class Proxy:
    """A state-of-the-world stream driven by hand; what comes is acknowledged."""

    def __init__(self, mesh: ControlPlane, token: str) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()
        credentials = grpc.ssl_channel_credentials((mesh.data / "ca.pem").read_bytes())
        self._channel = grpc.secure_channel(f"127.0.0.1:{mesh.xds}", credentials)
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self._channel)
        metadata = [("authorization", f"Bearer {token}")]
        self._call = stub.StreamAggregatedResources(iter(self._requests.get, None), metadata=metadata)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for answer in self._call:
                self.ask(answer.type_url, [], answer.version_info, answer.nonce)
                self.answers.put(answer)
        except grpc.RpcError as error:
            self.answers.put(error)

    def ask(self, type_url: str, names: list[str], version: str = "", nonce: str = "") -> None:
        if type_url == SECRET:
            names = ["identity", "trust"]
        request = discovery_pb2.DiscoveryRequest(
            type_url=type_url, resource_names=names, version_info=version, response_nonce=nonce
        )
        request.node.id = "default.web-1"
        self._requests.put(request)

    def answer(self) -> Any:
        return self.answers.get(timeout=20)

    def all(self) -> dict[str, tuple[str, list[bytes]]]:
        """Version and resources of what a proxy asks for first."""
        found = {}
        for type_url in (CLUSTER, LISTENER, SECRET):
            self.ask(type_url, [])
            answer = self.answer()
            assert not isinstance(answer, grpc.RpcError), answer
            found[answer.type_url] = (answer.version_info, [resource.value for resource in answer.resources])
        return found

    def close(self) -> None:
        self._requests.put(None)
        self._channel.close()


class Running:
    def __init__(self, mesh: ControlPlane) -> None:
        self.mesh = mesh
        mesh.start()
        mesh.output("apply", "-m", "default", "-f", "-", stdin=RESOURCES)
        self.token = mesh.output("generate", "dataplane-token", "--name", "web-1").strip()
        trusts = ssl.create_default_context(cafile=str(mesh.data / "ca.pem"))
        self.http = httpx.Client(base_url=f"https://127.0.0.1:{mesh.api}", verify=trusts)
        assert self.ready()[0] == 200

    def ready(self) -> tuple[int, str]:
        answer = self.http.get("/ready")
        return answer.status_code, answer.text

    def metric(self, name: str) -> float:
        text = self.http.get("/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def connect(self) -> Proxy:
        return Proxy(self.mesh, self.token)

    def refuses_proxies(self) -> None:
        late = self.connect()
        late.ask(CLUSTER, [])
        answer = late.answer()
        assert isinstance(answer, grpc.RpcError)
        assert (answer.code(), "the store is unavailable" in answer.details()) == (grpc.StatusCode.UNAVAILABLE, True)
        late.close()

    def comes_back(self, proxy: Proxy) -> None:
        """By itself; and the stream that was there all the time gets the next change."""
        wait_for("readiness", lambda: self.ready()[0] == 200)
        wait_for("the metric", lambda: self.metric("mesh_store_up") == 1)
        assert proxy.answers.empty()
        self.mesh.output("apply", "-m", "default", "-f", "-", stdin=another_inbound())
        answer = proxy.answer()
        while answer.type_url != LISTENER:  # the port is that of a listener
            answer = proxy.answer()
        assert len(answer.resources) == 2
        proxy.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all: each test leaves it as it was."""
    mesh = ControlPlane(tmp_path_factory.mktemp("mesh"))
    yield Running(mesh)
    if mesh.process is not None and mesh.process.poll() is None:
        assert mesh.stop() == 0


@pytest.mark.slow(seconds=5)
def test_the_file_is_gone(running: Running) -> None:
    mesh, proxy = running.mesh, running.connect()
    proxy.all()
    database = mesh.data / "mesh.db"
    aside = database.rename(mesh.data / "aside")
    status, text = running.ready()
    assert (status, "unable to open database file" in text) == (503, True)
    for command in (("get", "dp"), ("apply", "-m", "default", "-f", "-")):
        lost = mesh.run(*command, stdin=another_inbound())
        assert (lost.returncode, "unable to open database file" in lost.stderr) == (1, True), lost.stderr
    running.refuses_proxies()
    wait_for("the metric", lambda: running.metric("mesh_store_up") == 0)
    assert not database.exists(), "an empty store in its place would be one without a single rule"
    assert running.http.get("/healthy").status_code == 200
    time.sleep(QUIET_S)
    assert proxy.answers.empty(), "nothing is taken from a proxy because the store is not there"
    aside.rename(database)
    running.comes_back(proxy)


@pytest.mark.slow(seconds=3)
@pytest.mark.parametrize("content", [b"", b"not a database" * 1000])
def test_something_else_lies_in_its_place(running: Running, content: bytes) -> None:
    mesh, proxy = running.mesh, running.connect()
    proxy.all()
    database = mesh.data / "mesh.db"
    aside = database.rename(mesh.data / "aside")
    database.write_bytes(content)
    assert running.ready()[0] == 503
    assert mesh.run("get", "dp").returncode == 1
    running.refuses_proxies()
    time.sleep(QUIET_S)
    assert proxy.answers.empty()
    aside.rename(database)
    running.comes_back(proxy)


@pytest.mark.slow(seconds=6)
def test_somebody_locks_it(running: Running) -> None:
    mesh, proxy = running.mesh, running.connect()
    before = proxy.all()
    with sqlite3.connect(mesh.data / "mesh.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = mesh.run("apply", "-m", "default", "-f", "-", stdin=another_inbound())
        assert (refused.returncode, "database is locked" in refused.stderr) == (1, True), refused.stderr
        status, text = running.ready()
        assert (status, "database is locked" in text) == (503, True)
        # What can be read goes on: proxies that come get what is in force.
        late = running.connect()
        assert late.all() == before
        late.close()
        other.execute("ROLLBACK")
    running.comes_back(proxy)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
def test_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    mesh = ControlPlane(tmp_path)
    running = Running(mesh)
    try:
        proxy = running.connect()
        proxy.all()
        filler = small_disk / "filler"
        assert subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4096"], capture_output=True).returncode != 0
        # Nobody has to try a change before it is noticed.
        wait_for("a red light", lambda: running.ready()[0] == 503)
        assert any(word in running.ready()[1] for word in ("full", "I/O error")), running.ready()
        refused = mesh.run("apply", "-m", "default", "-f", "-", stdin=another_inbound())
        assert (refused.returncode, "failed at" in refused.stderr) == (1, True), refused.stderr
        time.sleep(QUIET_S)
        assert proxy.answers.empty()
        filler.unlink()
        running.comes_back(proxy)
    finally:
        assert mesh.stop() == 0


@pytest.mark.slow(seconds=8)
def test_a_restart_loses_nothing_and_proxies_see_no_change(running: Running) -> None:
    mesh = running.mesh
    first = running.connect()
    before, ca = first.all(), (mesh.data / "ca.pem").read_text()
    exported, stored = mesh.output("export"), mesh.output("get", "dp", "-o", "json")
    rotation = mesh.output("ca", "status", "identity", "-o", "json")
    first.close()
    assert mesh.stop() == 0
    mesh.start()
    again = running.connect()
    assert again.all() == before, "also the key and certificate of a proxy on Envoy's own TLS"
    assert (mesh.data / "ca.pem").read_text() == ca
    assert (mesh.output("export"), mesh.output("get", "dp", "-o", "json")) == (exported, stored)
    assert mesh.output("ca", "status", "identity", "-o", "json") == rotation
    again.close()
    # One that comes with the versions it has gets nothing.
    known = running.connect()
    for type_url, (version, _) in before.items():
        known.ask(type_url, [], version)
    time.sleep(QUIET_S)
    assert known.answers.empty()
    known.close()


@pytest.mark.slow(seconds=7)
def test_it_does_not_begin_anew_where_it_once_had_a_store(running: Running) -> None:
    mesh = running.mesh
    assert mesh.stop() == 0
    (mesh.data / "mesh.db").rename(mesh.data / "aside")
    refused = mesh.serve_to_its_end()
    assert refused.returncode == 78
    assert "there is no store" in refused.stderr
    assert "mesh restore" in refused.stderr
    assert not (mesh.data / "mesh.db").exists()
    (mesh.data / "aside").rename(mesh.data / "mesh.db")
    mesh.start()
    assert "web-1" in mesh.output("get", "dp")
