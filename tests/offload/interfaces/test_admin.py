"""The admin interface, with a real grpcio client and a real daemon."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from deploy.node.waiting import wait_for
from offload.interfaces.admin import CONNECTIONS_MAX
from offload.v1 import admin_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import DaemonProcess, sign_request, status_of
from tests.offload.key_files import key_id, shared_key


def test_keys(running: DaemonProcess) -> None:
    with running.admin() as admin:
        answer = admin.ListKeys(admin_pb2.ListKeysRequest(), timeout=10)
    assert [i.name for i in answer.identities] == ["rsa", "www"]
    www = answer.identities[1]
    (key,) = www.keys
    assert (www.usage, list(www.selectors)) == ("tls13", [f"uid {ME['selectors'][0]['uid']}"])
    assert (key.algorithm, key.key_id) == ("p256", key_id(shared_key("p256")))
    assert (key.subject, list(key.dns_names), list(key.signature_schemes)) == ("CN=www", ["www.example.com"], [0x0403])
    assert key.not_before < time.time() < key.chain_not_after <= key.not_after
    assert list(answer.problems) == []


def test_statistics_count(running: DaemonProcess) -> None:
    def done(algorithm: str) -> tuple[int, int, int]:
        one = next(c for c in admin.GetStatistics(request, timeout=10).classes if c.algorithm == algorithm)
        good = sum(o.count for o in one.operations if o.status == "OK")
        return good, sum(b.count * b.size for b in one.batches), sum(one.queue_seconds.counts)

    request = admin_pb2.GetStatisticsRequest()
    with running.admin() as admin, running.client() as stub:
        before = done("p256")
        for _ in range(7):
            stub.Sign(sign_request(key_id(shared_key("p256")), 0x0403), timeout=10)
        after = wait_for("the counts", lambda: (now := done("p256")) >= tuple(n + 7 for n in before) and now, 10)
        assert [a - b for a, b in zip(after, before, strict=True)] == [7, 7, 7]
        now = admin.GetStatistics(request, timeout=10)
    assert now.backend in ("software", "ifma8")
    assert now.secret_memory_used_bytes > 0
    assert now.connections >= 1
    assert not now.draining
    assert {c.algorithm for c in now.classes} == {"rsa2048", "rsa3072", "rsa4096", "p256", "p384", "ed25519"}
    for one in now.classes:
        assert 1 <= one.crossover <= 9
        assert len(one.queue_seconds.counts) == len(one.queue_seconds.bounds) + 1
        assert all(len(times.batch_us) == 8 for times in one.calibration)


def test_watching_statistics(running: DaemonProcess) -> None:
    with running.admin() as admin:
        stream = admin.WatchStatistics(admin_pb2.WatchStatisticsRequest(interval_ms=1), timeout=20)
        times = [next(stream).time_seconds for _ in range(3)]
        stream.cancel()
        assert times == sorted(times)
        assert times[1] - times[0] >= 0.09, "not faster than every 100 ms"


def test_not_everybody_may_watch_at_once(running: DaemonProcess) -> None:
    with running.admin() as admin:
        streams: list[Any] = []

        def one_more_watches() -> bool:
            stream = admin.WatchStatistics(admin_pb2.WatchStatisticsRequest(), timeout=20)
            if status_of(lambda: next(stream)) is grpc.StatusCode.OK:
                streams.append(stream)
            return len(streams) == 4

        wait_for("four to watch, when those of the test before are gone", one_more_watches, 10)
        one_more = admin.WatchStatistics(admin_pb2.WatchStatisticsRequest(), timeout=20)
        assert status_of(lambda: next(one_more)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert admin.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=10).uptime_seconds > 0
        for stream in streams:
            stream.cancel()


def test_log_level(running: DaemonProcess) -> None:
    with running.admin() as admin:
        assert admin.SetLogLevel(admin_pb2.SetLogLevelRequest(level="warning"), timeout=10).previous == "info"
        assert admin.SetLogLevel(admin_pb2.SetLogLevelRequest(level="info"), timeout=10).previous == "warning"
        wrong = admin_pb2.SetLogLevelRequest(level="chatty")
        assert status_of(lambda: admin.SetLogLevel(wrong, timeout=10)) is grpc.StatusCode.INVALID_ARGUMENT


def test_health(running: DaemonProcess) -> None:
    with grpc.insecure_channel(f"unix:{running.admin_socket}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "offload.v1.PrivateKeyService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        unknown = health_pb2.HealthCheckRequest(service="nobody")
        assert status_of(lambda: health.Check(unknown, timeout=10)) is grpc.StatusCode.NOT_FOUND


def test_reflection(running: DaemonProcess) -> None:
    with grpc.insecure_channel(f"unix:{running.admin_socket}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "offload.v1.AdminService",
        }
        file = database.FindFileContainingSymbol("offload.v1.AdminService")
        assert [m.name for m in file.service[0].method if m.server_streaming] == ["WatchStatistics"]


@pytest.mark.slow(seconds=2)
def test_reload(daemon: DaemonProcess) -> None:
    daemon.configure(
        keys={"directory": str(daemon.folder / "keys"), "watch": False},
        identities={"www": ME},
        metrics={"address": None},
    )
    daemon.start()
    key_file = daemon.folder / "keys" / "rsa.key"
    key_file.rename(daemon.folder / "rsa.key")
    with daemon.admin() as admin:
        answer = admin.Reload(admin_pb2.ReloadRequest(), timeout=30)
        assert (list(answer.added), list(answer.changed), list(answer.removed)) == ([], [], ["rsa"])
        assert [p.path for p in answer.problems] == [str(daemon.folder / "keys" / "rsa.crt")]
        (daemon.folder / "rsa.key").rename(key_file)
        answer = admin.Reload(admin_pb2.ReloadRequest(), timeout=30)
        assert (list(answer.added), list(answer.problems)) == (["rsa"], [])
        daemon.configure(
            identities={"www": ME}, metrics={"address": None}, admin={"path": str(daemon.admin_socket), "mode": "0660"}
        )
        answer = admin.Reload(admin_pb2.ReloadRequest(), timeout=30)
        assert "admin.mode" in answer.needs_restart
        daemon.config_file.write_text("nothing: good")
        answer = admin.Reload(admin_pb2.ReloadRequest(), timeout=30)
        assert "nothing: unknown field" in answer.configuration_error


@pytest.mark.slow(seconds=2)
def test_drain(daemon: DaemonProcess) -> None:
    daemon.start()
    with daemon.admin() as admin:
        assert admin.Drain(admin_pb2.DrainRequest(), timeout=10).timeout_ms == 25_000
    assert daemon.wait() == 0
    assert daemon.events("draining")[0]["why"] == "admin"


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("level", ["debug", "error"])
def test_the_level_of_the_configuration(daemon: DaemonProcess, level: str) -> None:
    daemon.configure(logging={"level": level, "format": "json"}, identities={"www": ME})
    daemon.start(wait=False)
    wait_for("it", lambda: daemon.admin_socket.exists() and _answers(daemon))
    assert bool(daemon.events("starting")) is (level == "debug")


def _answers(daemon: DaemonProcess) -> bool:
    with daemon.admin() as admin:
        return status_of(lambda: admin.ListKeys(admin_pb2.ListKeysRequest(), timeout=5)) is grpc.StatusCode.OK


@pytest.mark.slow(seconds=5)
def test_silent_connections_are_bounded_and_end(running: DaemonProcess) -> None:
    """More than it takes: some are turned away at once, all are gone after the time for a handshake."""
    before = running.descriptors()
    with ExitStack() as stack:
        for _ in range(3 * CONNECTIONS_MAX):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            with suppress(OSError):
                peer.connect(str(running.admin_socket))
        wait_for("the silent ones to end", lambda: running.descriptors() <= before + 3, 40)
        with running.admin() as admin:
            assert admin.ListKeys(admin_pb2.ListKeysRequest(), timeout=10, wait_for_ready=True).identities
