"""The daemon's life with real processes: start, drain, stop."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from pathlib import Path

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload.daemon.data_plane import backend_reason
from offload.reporting import exit_codes
from offload.v1 import admin_pb2, private_key_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import (
    DaemonProcess,
    sign_request,
)
from tests.offload.key_files import Authority, key_id, shared_key, write_pair

WWW = key_id(shared_key("p256"))
RSA = key_id(shared_key("rsa2048"))

# ---- start ----


def test_it_says_what_it_serves_with(running: DaemonProcess) -> None:
    (backend,) = running.events("backend")
    assert backend["backend"] in ("software", "ifma8")
    assert "AVX-512 IFMA" in backend["reason"]
    assert backend["secret_memory"]["kind"] in ("memfd_secret", "mlock")
    assert {e["identity"] for e in running.events("identity in force")} == {"www", "rsa"}


def test_the_backend_can_be_chosen(daemon: DaemonProcess) -> None:
    daemon.configure(identities={"www": ME}, data_plane={"backend": "software", "shards": 1})
    daemon.start()
    (backend,) = daemon.events("backend")
    assert (backend["backend"], backend["reason"]) == ("software", "data_plane.backend is 'software'")
    assert set(backend["vector_from_batch_size"].values()) == {"never"}
    with daemon.client() as stub:
        answer = stub.Sign(sign_request(WWW, 0x0403), timeout=10)
    assert answer.backend == private_key_pb2.BACKEND_SOFTWARE


@pytest.mark.parametrize(
    ("setting", "backend", "reason"),
    [
        ("auto", "ifma8", "the CPU has AVX-512 IFMA"),
        ("auto", "software", "the CPU has no AVX-512 IFMA"),
        ("ifma8", "ifma8", "data_plane.backend is 'ifma8'"),
    ],
)
def test_why_this_backend(setting: str, backend: str, reason: str) -> None:
    assert backend_reason(setting, backend) == reason


@pytest.mark.slow(seconds=2)
def test_sockets_have_their_modes(daemon: DaemonProcess) -> None:
    daemon.configure(
        sockets={"main": {"path": str(daemon.socket), "mode": "0622", "group": os.getgid()}}, identities={"www": ME}
    )
    daemon.start()
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o622
    assert stat.S_IMODE(daemon.admin_socket.stat().st_mode) == 0o600
    assert daemon.stop() == exit_codes.OK
    assert not daemon.socket.exists()
    assert not daemon.admin_socket.exists()


@pytest.mark.slow(seconds=3)
def test_the_socket_of_a_dead_daemon_is_replaced(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    assert daemon.socket.exists()
    daemon.log_file.unlink()
    daemon.start()
    assert daemon.identity("www").name == "www"


@pytest.mark.slow(seconds=2)
def test_a_socket_file_that_was_deleted_is_made_again(daemon: DaemonProcess) -> None:
    daemon.start()
    request = sign_request(key_id(shared_key("p256")), 0x0403)
    with daemon.client() as before:
        assert before.Sign(request, timeout=10).signature
        daemon.socket.unlink()
        daemon.wait_log("recreated a socket whose file had been removed")
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
        with daemon.client() as after:
            assert after.Sign(request, timeout=10).signature
        assert before.Sign(request, timeout=10).signature, "connections that were there go on"
    assert daemon.stop() == exit_codes.OK
    assert not daemon.socket.exists()


@pytest.mark.slow(seconds=3)
def test_somebody_elses_file_in_place_of_a_deleted_one_is_left_alone(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.socket.unlink()
    daemon.socket.write_text("mine")
    time.sleep(2.5)  # the daemon looks each second
    assert daemon.socket.read_text() == "mine"
    assert daemon.stop() == exit_codes.OK
    assert daemon.socket.read_text() == "mine"


@pytest.mark.slow(seconds=3)
def test_a_second_daemon_does_not_take_the_socket_away(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.start()
    second = DaemonProcess(tmp_path / "second")
    second.folder.mkdir()
    second.socket = daemon.socket
    second.configure(keys={"directory": str(tmp_path / "keys")})
    second.start(wait=False)
    assert second.wait(60) == exit_codes.CONFIGURATION
    reason = second.events("cannot start")[0]["reason"]
    assert reason == f"another process answers on {daemon.socket}: is a daemon already running?"
    assert daemon.identity("www").name == "www"


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("which", ["main", "admin"])
def test_what_is_not_a_socket_is_left_alone(daemon: DaemonProcess, which: str) -> None:
    path = daemon.socket if which == "main" else daemon.admin_socket
    path.write_text("precious")
    daemon.start(wait=False)
    assert daemon.wait(60) == exit_codes.CONFIGURATION
    assert f"{path} exists and is not a socket" in daemon.events("cannot start")[0]["reason"]
    assert path.read_text() == "precious"


@pytest.mark.slow(seconds=8)
def test_no_folder_for_the_socket(daemon: DaemonProcess, tmp_path: Path) -> None:
    """What is missing is made; a file in its place stays."""
    (tmp_path / "file").touch()
    daemon.configure(sockets={"main": {"path": str(tmp_path / "file" / "none" / "x.sock")}})
    daemon.start(wait=False)
    assert daemon.wait(60) == exit_codes.CONFIGURATION
    assert f"{tmp_path}/file" in daemon.events("cannot start")[0]["reason"]
    assert (tmp_path / "file").is_file()


@pytest.mark.slow(seconds=2)
def test_a_taken_metrics_port(daemon: DaemonProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon.configure(metrics={"address": f"127.0.0.1:{taken.getsockname()[1]}"})
        daemon.start(wait=False)
        assert daemon.wait(60) == exit_codes.CONFIGURATION
    assert "Address already in use" in daemon.events("cannot start")[0]["reason"]
    assert not daemon.socket.exists(), "what was made is removed"


@pytest.mark.slow(seconds=2)
def test_it_starts_without_any_key_and_serves_when_one_comes(
    daemon: DaemonProcess, keys: Path, authority: Authority
) -> None:
    for file in list(keys.iterdir()):
        file.unlink()
    daemon.start()
    assert daemon.events("no identity is in force; waiting for key pairs")
    key = shared_key("p384")
    write_pair(keys, "www", key, authority.issue(key))
    daemon.wait_log("identity in force")
    assert daemon.identity("www").credentials[0].key_id == key_id(key)


# ---- end ----


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_operations_in_flight_are_answered(daemon: DaemonProcess, number: signal.Signals) -> None:
    daemon.start()
    with daemon.client() as stub:
        stub.Sign(sign_request(RSA, 0x0804), timeout=10)  # connected
        futures = [stub.Sign.future(sign_request(RSA, 0x0804), timeout=20) for _ in range(300)]
        wait_for("some to be answered", lambda: any(f.done() for f in futures))
        daemon.signal(number)
        codes = [f.code() for f in futures]
    assert daemon.wait() == exit_codes.OK
    assert daemon.events("draining")[0]["why"] == number.name
    assert daemon.events("drained")
    # Those that had not reached the daemon when it closed the connection are told to come again.
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert codes.count(grpc.StatusCode.OK) > 0


def _hold_open(daemon: DaemonProcess) -> socket.socket:
    """A client that says it speaks HTTP/2 and then never reads or writes: it holds the drain up."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(daemon.socket))
    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
    return client


@pytest.mark.slow(seconds=2)
def test_a_second_signal_stops_at_once(daemon: DaemonProcess) -> None:
    daemon.configure(shutdown={"drain_timeout_seconds": 3000}, identities={"www": ME})
    daemon.start()
    with _hold_open(daemon):
        with daemon.admin() as admin:
            wait_for("it", lambda: admin.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=10).connections == 1)
        daemon.signal(signal.SIGTERM)
        daemon.wait_log("draining")
        time.sleep(0.3)
        assert daemon.process is not None
        assert daemon.process.poll() is None, "it waits for the client"
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == exit_codes.STOPPED_EARLY
    assert daemon.events("stopped immediately")


@pytest.mark.slow(seconds=2)
def test_the_drain_timeout(daemon: DaemonProcess) -> None:
    daemon.configure(shutdown={"drain_timeout_seconds": 0.3}, identities={"www": ME})
    daemon.start()
    with _hold_open(daemon):
        with daemon.admin() as admin:
            wait_for("it", lambda: admin.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=10).connections == 1)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == exit_codes.STOPPED_EARLY
    assert daemon.events("the drain timeout expired with clients still connected")
