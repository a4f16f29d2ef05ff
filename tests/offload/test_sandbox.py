"""What a daemon with security.sandbox can and cannot do: real processes, real calls."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from offload import _dataplane, exit_codes
from offload.v1 import admin_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import ROOT, DaemonProcess, command, environment, sign_request
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


# In a process under the same filter: what each call answers.
TRY = """
import ctypes, os, subprocess, sys
from offload import _dataplane
_dataplane.drop_privileges()
_dataplane.filter_calls(sys.argv[1] == "programs")
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    ctypes.set_errno(0)
    getattr(libc, name)(*arguments)
    return ctypes.get_errno()
print("ptrace", call("ptrace", 16, os.getppid(), 0, 0))
print("process_vm_readv", call("process_vm_readv", os.getppid(), None, 0, None, 0, 0))
print("unshare", call("unshare", 0x10000000))
print("setuid", call("setuid", 0))
print("mount", call("mount", b"none", b"/", b"tmpfs", 0, None))
print("bpf", call("syscall", 321, 0, 0, 0))
print("keyctl", call("syscall", 250, 0, 0, 0))
print("io_uring_setup", call("syscall", 425, 1, 0))
print("prctl", call("prctl", 4, 1, 0, 0, 0))
print("clone", call("syscall", 56, 0x10000000 | 17, 0, 0, 0, 0))
try:
    subprocess.run(["/bin/true"], check=True)
    print("exec", 0)
except OSError as error:
    print("exec", error.errno)
sys.stdout.flush()
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are those of x86_64")
@pytest.mark.parametrize("programs", ["programs", "none"])
def test_what_is_forbidden_fails(programs: str) -> None:
    tried = subprocess.run(
        [sys.executable, "-c", TRY, programs],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    results = dict(line.split() for line in tried.stdout.splitlines())
    assert results.pop("exec") == ("0" if programs == "programs" else "1"), tried.stderr
    assert len(results) == 10
    assert set(results.values()) == {"1"}, results


def test_another_abi_ends_the_process() -> None:
    """x32: the same calls under numbers that a list of numbers would not see."""
    code = (
        "import ctypes; from offload import _dataplane; _dataplane.filter_calls(False); "
        "ctypes.CDLL(None).syscall(0x40000000 + 39)"
    )
    tried = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, timeout=60, check=False)
    assert tried.returncode == -signal.SIGSYS


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
