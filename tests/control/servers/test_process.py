"""The process: its own certificate, which is renewed while streams go on, and many connections at once."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from control.own_certificates.serving import LIFETIME
from control.servers.process import ServeSettings, Service
from control.settings import Address, Files
from control.store.errors import StoreError
from control.xds.encoding.encode import CLUSTER
from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from tests.control.mesh_process import ROOT, ControlPlane
from tests.faults.wall_clock import WallClock

LOCAL = Address("127.0.0.1", 0)
MESH = {"type": "Mesh", "name": "default"}
DATAPLANE = {
    "type": "Dataplane",
    "name": "web-1",
    "mesh": "default",
    "spec": {"networking": {"address": "10.0.0.1", "inbound": [{"port": 8080, "protocol": "http"}]}},
}


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Two thirds of a certificate's life ago: what is made now is due today, and still valid."""
    return Clock(datetime.now(UTC) - LIFETIME * 2 / 3)


@pytest.fixture
async def service(tmp_path: Path, clock: Clock) -> AsyncIterator[Service]:
    service = Service(ServeSettings(Files(tmp_path), api=LOCAL, xds=LOCAL, nodes=LOCAL), clock)
    await service.start()
    yield service
    await service.stop()


def shown(address: Address, ca: str) -> x509.Certificate:
    """The certificate of the server, verified. Who is in the queue of a listener that is about to go comes again."""
    for _ in range(20):
        try:
            return _shown(address, ca)
        except ConnectionResetError:
            time.sleep(0.1)
    return _shown(address, ca)


def _shown(address: Address, ca: str) -> x509.Certificate:
    context = ssl.create_default_context(cadata=ca)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((address.host, address.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


def expiry(service: Service) -> float:
    return float(service.control_plane.state.metrics.certificate_expiry.labels("server")._value.get())


async def test_a_renewed_certificate_comes_without_a_restart_and_streams_go_on(service: Service, clock: Clock) -> None:
    ca = service.certificate.ca_pem
    addresses = (service.api, service.xds)
    before = [await asyncio.to_thread(shown, address, ca) for address in addresses]
    await service.renew()
    assert [await asyncio.to_thread(shown, address, ca) for address in addresses] == before  # it is not due
    assert expiry(service) == before[0].not_valid_after_utc.timestamp()
    token = (service._settings.files.admin_token).read_text().strip()
    api = f"https://{service.api}/meshes/default"
    async with httpx.AsyncClient(
        verify=ssl.create_default_context(cadata=ca), headers={"authorization": f"Bearer {token}"}
    ) as client:
        for path, document in (("", MESH), ("/dataplanes/web-1", DATAPLANE)):
            assert (await client.put(api + path, json=document)).status_code in (200, 201)
    metadata = [("authorization", f"Bearer {service.tokens.issue('dataplane', 600, 'default')}")]
    async with grpc.aio.secure_channel(str(service.xds), grpc.ssl_channel_credentials(ca.encode())) as channel:
        stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources(metadata=metadata)
        await stream.write(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, node={"id": "default.web-1"}))
        first: Any = await asyncio.wait_for(stream.read(), 20)
        clock.now = datetime.now(UTC)
        await service.renew()
        after = [await asyncio.to_thread(shown, address, ca) for address in addresses]
        assert after[0] == after[1] != before[0]
        assert after[0].not_valid_after_utc > clock.now + LIFETIME - timedelta(minutes=1)
        assert expiry(service) == after[0].not_valid_after_utc.timestamp()
        # The stream is of the older certificate.
        ack = discovery_pb2.DiscoveryRequest(
            type_url=CLUSTER, version_info=first.version_info, response_nonce=first.nonce
        )
        await stream.write(ack)
        changed = DATAPLANE | {
            "spec": {"networking": {"address": "10.0.0.1", "inbound": [{"port": 8081, "protocol": "http"}]}}
        }
        async with httpx.AsyncClient(
            verify=ssl.create_default_context(cadata=ca), headers={"authorization": f"Bearer {token}"}
        ) as client:
            assert (await client.put(api + "/dataplanes/web-1", json=changed)).is_success
        second: Any = await asyncio.wait_for(stream.read(), 20)
        assert second.version_info != first.version_info
        # Whoever connects from now on is served beside it.
        async with grpc.aio.secure_channel(str(service.xds), grpc.ssl_channel_credentials(ca.encode())) as other:
            again = ads_pb2_grpc.AggregatedDiscoveryServiceStub(other).StreamAggregatedResources(metadata=metadata)
            await again.write(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, node={"id": "default.web-1"}))
            found: Any = await asyncio.wait_for(again.read(), 20)
            assert found.version_info == second.version_info


async def test_a_store_that_fails_at_the_renewal_is_asked_again(
    service: Service, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, before = service.certificate.ca_pem, expiry(service)
    database = sqlite3.connect(tmp_path / "mesh.db")
    database.execute("ALTER TABLE secrets RENAME TO away")
    clock.now = datetime.now(UTC)
    with pytest.raises(StoreError):
        await service.renew()
    monkeypatch.setattr("control.servers.process.LOOK_S", 0.05)
    by_itself = asyncio.create_task(service._look())
    await asyncio.sleep(0.2)
    assert (by_itself.done(), expiry(service)) == (False, before)
    database.execute("ALTER TABLE away RENAME TO secrets")
    database.close()
    for _ in range(400):
        if expiry(service) != before:
            break
        await asyncio.sleep(0.05)
    by_itself.cancel()
    assert (await asyncio.to_thread(shown, service.xds, ca)).not_valid_after_utc.timestamp() == expiry(service)


@pytest.mark.slow(seconds=6)
def test_many_handshakes_at_once_do_not_end_the_process(tmp_path: Path) -> None:
    """They did, within a few hundred: gRPC freed a certificate that another handshake was at (ports.py)."""
    with Processes(tmp_path) as processes:
        line: list[str | Path] = [sys.executable, "-c", "from control.cli import main; main()"]
        line += ["serve", "--data", tmp_path / "data", "--name", "127.0.0.1"]
        line += ["--api", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--nodes", "127.0.0.1:0"]
        process = processes.start("mesh", line)
        process.wait_until(lambda: "serving" in process.log.read_text(), "serving", 60)
        words = process.log.read_text().split()
        host, port = next(word for word in words if word.startswith("xds=")).removeprefix("xds=").split(":")
        ca = (tmp_path / "data" / "ca.pem").read_text()
        with ThreadPoolExecutor(16) as threads:
            seen = set(threads.map(lambda _: shown(Address(host, int(port)), ca), range(1600)))
        assert len(seen) == 1
        assert process.running(), process.tail()


@pytest.mark.slow(seconds=7)
def test_a_first_start_with_a_clock_that_is_ahead_is_mended_when_it_is_right(tmp_path: Path) -> None:
    """CA, certificate and the token for `mesh` on the same host were made by a clock that was a day ahead."""
    clock, control_plane = WallClock(tmp_path / "clock"), ControlPlane(tmp_path)
    clock.is_ahead_by(24 * 3600)
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            control_plane.command(), env=control_plane.environment | clock.environment, cwd=ROOT, stdout=log, stderr=log
        )
    try:
        token = control_plane.data / "admin.token"
        wait_for("the token", token.exists)
        assert control_plane.run("get", "meshes").returncode != 0
        clock.is_ahead_by(0)
        wait_for("the API", lambda: control_plane.run("get", "meshes").returncode == 0)
        before = token.read_text()
        clock.is_ahead_by(60 * 24 * 3600)  # the token is past half of its life, and certificates are due
        wait_for("a new token", lambda: token.read_text() != before)
        clock.is_ahead_by(0)
        wait_for("the API", lambda: control_plane.run("get", "meshes").returncode == 0)
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow(seconds=5)
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
def test_the_api_at_all_addresses_is_at_those_of_ipv4_too(tmp_path: Path) -> None:
    mesh = ControlPlane(tmp_path)
    mesh.hosts["--api"] = "[::]"
    mesh.start()  # waits until `mesh` is answered, at 127.0.0.1
    assert mesh.stop() == 0
