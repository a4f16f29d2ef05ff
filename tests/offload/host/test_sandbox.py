"""The daemon in its sandbox: it serves, reloads and drains without rights."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload import _dataplane
from offload.reporting import exit_codes
from offload.v1 import admin_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import (
    DaemonProcess,
    command,
    environment,
    folder_of_root,
    sign_request,
)
from tests.offload.host.landlock import landlocked
from tests.offload.key_files import Authority, key_id, shared_key, write_pair

WWW = sign_request(key_id(shared_key("p256")), 0x0403)
NOBODY = 65534


def status(pid: int, field: str) -> str:
    found = re.search(rf"^{field}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return found[1]


def threads(pid: int) -> list[str]:
    return [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]


def serves_reloads_and_drains(daemon: DaemonProcess) -> None:
    with daemon.client() as stub:
        assert stub.Sign(WWW, timeout=20).signature
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reloaded")
    with daemon.admin() as admin:
        assert not admin.Reload(admin_pb2.ReloadRequest(), timeout=60).configuration_error
        assert admin.ListKeys(admin_pb2.ListKeysRequest(), timeout=20).identities
    with daemon.client() as stub:
        assert stub.Sign(WWW, timeout=20).signature
    assert daemon.stop() == exit_codes.OK
    assert not daemon.socket.exists()


@pytest.mark.slow(seconds=3)
def test_it_serves_reloads_and_drains_without_rights(daemon: DaemonProcess) -> None:
    daemon.configure(identities={"www": ME}, security={"sandbox": True})
    daemon.start()
    for task in threads(daemon.pid):
        for line in ("CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            assert line in task
    serves_reloads_and_drains(daemon)


@pytest.fixture
def nobodys(authority: Authority) -> Iterator[DaemonProcess]:
    """Files of another user, outside pytest's folder, which is closed to others."""
    with tempfile.TemporaryDirectory(prefix="offload-test-") as name:
        folder = Path(name)
        key = shared_key("p256")
        write_pair(folder / "keys", "www", key, authority.issue(key, "www"))
        for path in (folder, folder / "keys", *(folder / "keys").iterdir()):
            os.chown(path, NOBODY, NOBODY)
        folder.chmod(0o755)
        made = DaemonProcess(folder)
        with folder_of_root() as etc:
            made.config_file = etc / "offload.yaml"
            yield made
            made.stop()


@pytest.mark.root
def test_started_as_root_it_becomes_another_user(nobodys: DaemonProcess) -> None:
    tried = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command("--version"))
    if subprocess.run(tried, env=environment(), timeout=60, check=False).returncode:
        pytest.skip("this Python is closed to other users")
    nobodys.configure(
        sockets={"main": {"path": str(nobodys.socket), "owner": 12345, "group": 23456, "mode": "0660"}},
        identities={"www": ME},
        security={"sandbox": True, "user": NOBODY},
    )
    nobodys.start()
    assert status(nobodys.pid, "Uid").split() == [str(NOBODY)] * 4
    assert status(nobodys.pid, "Gid").split() == [str(NOBODY)] * 4
    assert "0" not in status(nobodys.pid, "Groups").split()
    made, admin = nobodys.socket.stat(), nobodys.admin_socket.stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (12345, 23456, 0o660)
    assert (admin.st_uid, admin.st_mode & 0o777) == (NOBODY, 0o600)
    serves_reloads_and_drains(nobodys)


@pytest.mark.slow(seconds=3)
@pytest.mark.skipif(not landlocked(), reason="needs Landlock of Linux 6.12")
def test_all_features_work_in_the_sandbox(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Audit log, metrics, a dedicated socket that comes with a reload, one that is made again, an upgrade."""
    (tmp_path / "logs").mkdir()
    sections = {
        "identities": {"www": ME},
        "security": {"sandbox": True},
        "audit": {"path": str(tmp_path / "logs" / "audit.jsonl")},
    }
    daemon.configure(**sections)
    daemon.start()
    sandbox = daemon.events("sandbox")[0]
    assert (sandbox["landlock"], sandbox["programs"]) == (_dataplane.landlock_version(), False)
    with daemon.admin() as admin:
        shown = admin.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=20).sandbox
    assert shown == f"system calls filtered, Landlock {_dataplane.landlock_version()}"
    names = {(task / "comm").read_text().strip() for task in Path(f"/proc/{daemon.pid}/task").iterdir()}
    assert {"offload-front", "offload-shard0"} <= names
    cart = tmp_path / "cart.sock"
    main = {"path": str(daemon.socket)}
    daemon.configure(sockets={"main": main, "dedicated": [{"name": "cart", "path": str(cart)}]}, **sections)
    with daemon.admin() as admin:
        assert not admin.Reload(admin_pb2.ReloadRequest(), timeout=60).configuration_error
    with daemon.client(cart) as stub:
        assert stub.Sign(WWW, timeout=20).signature
    cart.unlink()
    daemon.wait_log("recreated a socket whose file had been removed")
    assert (
        b"offload_operations_total"
        in urllib.request.urlopen(f"http://{daemon.metrics_address()}/metrics", timeout=20).read()
    )
    wait_for("the audit log", lambda: "key_used" in (tmp_path / "logs" / "audit.jsonl").read_text())
    following = daemon.upgrade(2)
    following.wait_log("serving")
    assert daemon.wait() == exit_codes.OK
    with following.client(cart) as stub:
        assert stub.Sign(WWW, timeout=20).signature
    assert following.stop() == exit_codes.OK
    assert not cart.exists()


CERTIFY = """#!/bin/sh
set -e
request=$(mktemp); trap 'rm -f "$request"' EXIT
cat > "$request"
if chmod 644 "$request"; then echo "chmod by path works" >&2; exit 9; fi
openssl x509 -req -in "$request" -CA {ca}/ca.crt -CAkey {ca}/ca.key -days 1 -copy_extensions copy
"""


@pytest.mark.root
def test_a_program_certifies_in_the_sandbox(daemon: DaemonProcess, tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca").mkdir()
    write_pair(tmp_path / "ca", "ca", authority.key, authority.certificate)
    program = tmp_path / "certify"
    program.write_text(CERTIFY.format(ca=tmp_path / "ca"))
    program.chmod(0o755)
    generate: dict[str, object] = {"issuer": "here", "dns_names": ["cart.test"]}
    cart = {"source": {"generate": generate}} | ME
    daemon.configure(
        identities={"www": ME, "cart": cart},
        issuers={"here": {"exec": {"command": [str(program)]}}},
        security={"sandbox": True},
    )
    daemon.start()
    daemon.wait_log("certificate issued")

    def names() -> list[str]:
        with suppress(grpc.RpcError):  # it is logged before it is in force
            return list(daemon.identity("cart").credentials[0].dns_names)
        return []

    wait_for("the identity", lambda: names() == ["cart.test"])
    # Somebody else's program does not run with the daemon's rights.
    os.chown(program, NOBODY, NOBODY)
    generate["dns_names"] = ["shop.test"]
    daemon.configure(
        identities={"www": ME, "cart": cart},
        issuers={"here": {"exec": {"command": [str(program)]}}},
        security={"sandbox": True},
    )
    daemon.signal(signal.SIGHUP)
    assert "certify is not executed: " in daemon.wait_log("no certificate")["reason"]
    assert daemon.identity("cart").credentials[0].dns_names == ["cart.test"]


@pytest.mark.slow(seconds=4)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_nothing_that_the_daemon_does_is_forbidden_it(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Also no library is loaded late, which would need executable memory. (Not looked at: prctl, by which Abseil would
    give its memory a name, and does without.)"""
    trace = tmp_path / "trace"
    daemon.configure(identities={"www": ME}, security={"sandbox": True})
    daemon.start(prefix=("strace", "-f", "-qq", "-e", "trace=mmap,mprotect,openat,chmod,fchmod,fchmodat,fchownat,ioctl,"
                         "prlimit64,clone,execve", "-o", str(trace)))  # fmt: skip
    assert daemon.process
    with daemon.client() as stub:
        assert stub.Sign(WWW, timeout=20).signature
    with daemon.admin() as admin:
        assert not admin.Reload(admin_pb2.ReloadRequest(), timeout=60).configuration_error
        admin.Drain(admin_pb2.DrainRequest(), timeout=20)
    assert daemon.wait(60) == exit_codes.OK
    lines = trace.read_text(errors="replace").splitlines()
    refused = [line for line in lines if "EPERM" in line or "EACCES" in line]
    assert refused == []


def test_programs_of_issuers_are_the_only_reason_for_execve() -> None:
    execve = {"x86_64": 59, "aarch64": 221}[os.uname().machine]
    assert _dataplane.filter_allows(execve, True)
    assert not _dataplane.filter_allows(execve, False)


def test_a_user_without_the_sandbox_is_refused(daemon: DaemonProcess) -> None:
    daemon.configure(security={"user": 0})
    checked = subprocess.run(
        command("check-config", "-c", daemon.config_file),
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == exit_codes.CONFIGURATION
    assert b"set both" in checked.stderr
