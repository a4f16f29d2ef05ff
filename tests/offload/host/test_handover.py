"""Upgrades of a running daemon: the next one takes its sockets, and no call is lost on the way."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload.reporting import exit_codes
from offload.v1 import admin_pb2, private_key_pb2_grpc
from tests.offload.conftest import ME
from tests.offload.daemon_process import DaemonProcess, sign_request
from tests.offload.key_files import Authority, key_id, shared_key, write_pair

REQUEST = sign_request(key_id(shared_key("p256")), 0x0403)


class Load:
    """Callers that go on all the time: some on one connection, some on a new connection for each call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ended = threading.Event()
        self.failures: list[str] = []
        self.answered = [0] * 4
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(len(self.answered))]

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(timeout=60)

    def more(self) -> None:
        """Waits until each has been answered again."""
        before = list(self.answered)
        wait_for("every caller to be answered", lambda: all(a > b for a, b in zip(self.answered, before, strict=True)))

    def _run(self, number: int) -> None:
        fresh = number % 2 == 1
        options = [("grpc.use_local_subchannel_pool", 1)]
        while not self._ended.is_set():
            with grpc.insecure_channel(f"unix:{self._path}", options=options) as channel:
                stub = private_key_pb2_grpc.PrivateKeyServiceStub(channel)
                while not self._ended.is_set():
                    try:
                        assert stub.Sign(REQUEST, timeout=20).signature
                        self.answered[number] += 1
                    except grpc.RpcError as error:
                        self.failures.append(f"{error.code()}: {error.details()}")
                    if fresh or self._ended.wait(0.005):
                        break


@pytest.mark.parametrize("upgrades", [2, pytest.param(8, marks=pytest.mark.long)])
def test_upgrades_under_load_lose_no_call(daemon: DaemonProcess, upgrades: int) -> None:
    running = daemon.start()
    started = [running]
    inode = daemon.socket.stat().st_ino
    load = Load(daemon.socket)
    try:
        with load.running():
            for number in range(upgrades):
                upgraded = daemon.upgrade(number)
                started.append(upgraded)
                upgraded.wait_log("serving")
                assert running.wait(60) == exit_codes.OK
                running = upgraded
                load.more()
            assert load.failures == []
        assert daemon.socket.stat().st_ino == inode, "the file is the one that callers have mounted"
        wait_for("the admin socket, which the one before has until it ends", running.admin_socket.exists)
        with running.admin() as admin:
            assert admin.ListKeys(admin_pb2.ListKeysRequest(), timeout=20).identities
        assert running.metrics_address()
        assert running.stop() == exit_codes.OK
        assert not daemon.socket.exists(), "the last one removes it"
        assert {p.name for p in daemon.folder.iterdir() if p.is_socket()} == set()
    finally:
        for each in started:
            each.stop()


@pytest.mark.slow(seconds=3)
def test_an_upgrade_that_fails_leaves_the_running_one(daemon: DaemonProcess) -> None:
    """Before it has asked for the sockets, and after it has got them."""
    daemon.start()
    dedicated = [{"name": "cart", "path": str(daemon.config_file / "no-folder" / "cart.sock")}]
    load = Load(daemon.socket)
    with load.running():
        for number in range(2):
            if number == 0:
                daemon.config_file.write_text("sockets: [nonsense")
            else:
                daemon.configure(sockets={"main": {"path": str(daemon.socket)}, "dedicated": dedicated})
            failed = daemon.upgrade(number)
            assert failed.wait(60) == exit_codes.CONFIGURATION
            load.more()
        assert failed.events("taking over from the running daemon")
        daemon.wait_log("handover failed; this daemon continues")
        assert load.failures == []
    assert daemon.socket.exists()
    assert daemon.admin_socket.exists()


@pytest.mark.slow(seconds=2)
def test_dedicated_sockets_and_a_path_that_changed(daemon: DaemonProcess, tmp_path: Path) -> None:
    sockets = {
        "main": {"path": str(daemon.socket)},
        "dedicated": [{"name": n, "path": str(tmp_path / f"{n}.sock")} for n in ("cart", "old")],
    }
    daemon.configure(sockets=sockets, identities={"www": ME})
    daemon.start()
    sockets["dedicated"] = [
        {"name": "cart", "path": str(tmp_path / "cart.sock")},
        {"name": "old", "path": str(tmp_path / "elsewhere.sock")},
    ]
    daemon.configure(sockets=sockets, identities={"www": ME})
    upgraded = daemon.upgrade(1)
    try:
        assert upgraded.wait_log("taking over from the running daemon")["sockets"] == ["cart", "main"]
        upgraded.wait_log("serving")
        assert daemon.wait(60) == exit_codes.OK
        assert not (tmp_path / "old.sock").exists()
        for name in ("offload", "cart", "elsewhere"):
            with upgraded.client(tmp_path / f"{name}.sock") as stub:
                assert stub.Sign(REQUEST, timeout=20).signature
    finally:
        upgraded.stop()


@pytest.mark.slow(seconds=2)
def test_without_a_daemon_it_starts(daemon: DaemonProcess) -> None:
    started = daemon.upgrade(0)
    try:
        started.wait_log("serving")
        assert started.events("no daemon to take over from")
        handover = Path(f"{daemon.admin_socket}.handover")
        assert stat.S_IMODE(handover.stat().st_mode) == 0o600
    finally:
        started.stop()


@pytest.mark.slow(seconds=2)
def test_whoever_speaks_nonsense_changes_nothing(daemon: DaemonProcess) -> None:
    daemon.start()
    path = f"{daemon.admin_socket}.handover"
    for count, packet in enumerate((b"", b"\xff", b"[]", b'{"take": 99}', b"x" * 70_000), 1):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hostile:
            hostile.settimeout(60)
            hostile.connect(path)
            hostile.send(packet)
            if packet:
                hostile.recv(1000)
        daemon.wait_log("handover failed; this daemon continues", count)
    with daemon.client() as stub:
        assert stub.Sign(REQUEST, timeout=20).signature


@pytest.mark.slow(seconds=3)
def test_a_handover_works_again_after_descriptors_ran_out(daemon: DaemonProcess) -> None:
    def refused() -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.settimeout(20)
            asking.connect(f"{daemon.admin_socket}.handover")
            asking.send(b'{"take": 99}')
            return b"refused" in asking.recv(1000)

    daemon.start()
    with daemon.without_descriptors():
        assert refused()  # by the descriptor that accept had when it began to wait
        time.sleep(0.5)  # the next cannot be accepted
    assert refused()


NOBODY = 65534


@pytest.fixture
def reachable(authority: Authority) -> Iterator[DaemonProcess]:
    """A daemon in a folder that others may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="offload-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        key = shared_key("p256")
        write_pair(folder / "keys", "www", key, authority.issue(key, "www"))
        made = DaemonProcess(folder)
        made.configure(identities={"www": ME})
        yield made
        made.stop()


@pytest.mark.root
def test_only_root_and_its_own_user_are_answered(reachable: DaemonProcess) -> None:
    """Even where the file's mode lets somebody else in."""
    reachable.start()
    path = f"{reachable.admin_socket}.handover"
    os.chmod(path, 0o666)  # noqa: S103
    tried = subprocess.run(
        [sys.executable, "-c", ASK, path, str(NOBODY), "1"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert tried.stdout == b"0\n", tried.stderr
    reachable.wait_log("handover failed; this daemon continues")


@pytest.mark.root
def test_foreign_users_who_ask_again_and_again_are_one_line(reachable: DaemonProcess) -> None:
    count = 50
    reachable.start()
    path = f"{reachable.admin_socket}.handover"
    os.chmod(path, 0o666)  # noqa: S103
    asking = [sys.executable, "-c", ASK, path, str(NOBODY), str(count)]
    tried = subprocess.run(asking, capture_output=True, timeout=120, check=False)
    assert tried.stdout == count * b"0\n", tried.stderr

    def told() -> list[dict[str, Any]]:
        return [
            event for event in reachable.events("handover failed; this daemon continues") if event.get("uid") == NOBODY
        ]

    wait_for("all of them in the log", lambda: sum(event["count"] for event in told()) == count)
    assert len(told()) < count / 4


ASK = """
import os, socket, sys
os.setgroups([])  # here, and not by setpriv: the other user may not be able to read this Python
os.setresgid(*[int(sys.argv[2])] * 3)
os.setresuid(*[int(sys.argv[2])] * 3)
for _ in range(int(sys.argv[3])):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(sys.argv[1])
        try:
            asking.send(b'{"take": 1}')
            data, descriptors, _, _ = asking.recvmsg(65536, 4096)
        except OSError:
            data, descriptors = b"", []
        print(len(data) + len(descriptors))
"""
