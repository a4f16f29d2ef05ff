"""What a daemon with security.sandbox can and cannot do: real processes, real calls."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
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
    ROOT,
    DaemonProcess,
    command,
    environment,
    folder_of_root,
    sign_request,
)
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


# In a process under the same filter: what each call answers.
TRY = """
import ctypes, mmap, os, subprocess, sys
from offload import _dataplane
_dataplane.drop_privileges()
_dataplane.filter_calls(sys.argv[1] == "programs")
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
here, parent = os.open(sys.argv[2], os.O_RDONLY), os.getppid()
empty, path, buffer = b"", os.fsencode(sys.argv[2]), ctypes.create_string_buffer(64)
def call(name, *arguments):
    ctypes.set_errno(0)
    getattr(libc, name)(*arguments)
    return ctypes.get_errno()
print("ptrace", call("ptrace", 16, parent, 0, 0))
print("process_vm_readv", call("process_vm_readv", parent, None, 0, None, 0, 0))
print("process_vm_writev", call("process_vm_writev", parent, None, 0, None, 0, 0))
print("unshare", call("unshare", 0x10000000))
print("setuid", call("setuid", 0))
print("mount", call("mount", b"none", b"/", b"tmpfs", 0, None))
print("bpf", call("syscall", 321, 0, 0, 0))
print("keyctl", call("syscall", 250, 0, 0, 0))
print("io_uring_setup", call("syscall", 425, 1, 0))
print("pidfd_getfd", call("syscall", 438, 0, 0, 0))
print("prctl", call("prctl", 4, 1, 0, 0, 0))
print("clone", call("syscall", 56, 0x10000000 | 17, 0, 0, 0, 0))
print("chmod", call("chmod", path, 0o644))
print("fchmodat", call("fchmodat", -100, path, 0o644, 0))
print("chown", call("chown", path, -1, -1))
print("lchown", call("lchown", path, -1, -1))
print("fchown", call("fchown", here, -1, -1))
print("fchownat by path", call("fchownat", -100, path, -1, -1, 0))
print("fchownat to an owner by path", call("fchownat", -100, path, 0, -1, 0x1100))
print("fchownat to a group of others", call("fchownat", here, empty, -1, 54321, 0x1100))
print("fchownat to a group of others by path", call("fchownat", -100, path, -1, 54321, 0x1100))
print("fchownat to an owner", call("fchownat", here, empty, 0, -1, 0x1100))
print("setuid bit", call("fchmod", here, 0o4755))
print("setuid file", call("open", path + b".new", os.O_CREAT | os.O_WRONLY, 0o4755))
print("prlimit of another", call("prlimit", parent, 7, None, buffer))
print("TIOCSTI", call("ioctl", 0, 0x5412, buffer))
print("own prlimit is fine", call("prlimit", 0, 7, None, buffer) + 1)
print("a group of a file is fine", call("fchownat", here, empty, -1, os.getgid(), 0x1100) + 1)
print("a group of ours by path is not seen by a filter", call("fchownat", -100, path, -1, os.getgid(), 0x1100) + 1)
print("plain files are fine", call("open", path + b".new", os.O_CREAT | os.O_WRONLY, 0o600) + 1)
print("plain memory is fine", call("mmap", None, 4096, 3, 0x22, -1, 0) + 1)
print("fchmod", call("fchmod", here, 0o640), file=sys.stderr)
print("mmap", call("mmap", None, 4096, 7, 0x22, -1, 0), file=sys.stderr)
page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
print("mprotect", call("mprotect", ctypes.c_void_p(page), 4096, 5), file=sys.stderr)
try:
    subprocess.run(["/bin/true"], check=True)
    print("exec", 0, file=sys.stderr)
except OSError as error:
    print("exec", error.errno, file=sys.stderr)
sys.stdout.flush()
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are those of x86_64")
@pytest.mark.parametrize("programs", ["programs", "none"])
def test_what_is_forbidden_fails(programs: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o640)
    tried = subprocess.run(
        [sys.executable, "-c", TRY, programs, str(tmp_path / "file")],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    results = dict(line.rsplit(maxsplit=1) for line in tried.stdout.splitlines())
    assert len(results) == 31, tried.stderr
    assert set(results.values()) == {"1"}, results
    only_with_programs = dict(line.split() for line in tried.stderr.splitlines())
    expected = "0" if programs == "programs" else "1"
    assert only_with_programs == dict.fromkeys(("fchmod", "mmap", "mprotect", "exec"), expected)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o640


# Under Landlock alone: what it can do with files, and with a process of the same user.
CONFINED = """
import os, signal, socket, sys
from offload import _dataplane
folder, other = sys.argv[1], int(sys.argv[2])
_dataplane.drop_privileges()  # CAP_PERFMON reads much of /proc
_dataplane.confine([folder + "/sockets"], [folder + "/audit"], [])
def attempt(what, action):
    try:
        action()
        print(what, 0)
    except OSError as error:
        print(what, error.errno)
def make_and_remove():
    made = socket.socket(socket.AF_UNIX)
    made.bind(folder + "/sockets/.new")
    os.rename(folder + "/sockets/.new", folder + "/sockets/it")
    os.unlink(folder + "/sockets/it")
write = os.O_WRONLY
attempt("sockets", make_and_remove)
attempt("audit", lambda: os.open(folder + "/audit/log", write | os.O_APPEND | os.O_CREAT, 0o600))
attempt("read", lambda: open(folder + "/keys/key").read())
attempt("memory", lambda: os.open(f"/proc/{other}/mem", os.O_RDWR))
attempt("environ", lambda: open(f"/proc/{other}/environ").read())
attempt("maps", lambda: open(f"/proc/{other}/maps").read())
attempt("program", lambda: os.readlink(f"/proc/{other}/exe"))
attempt("signal", lambda: os.kill(other, signal.SIGTERM))
attempt("key", lambda: os.open(folder + "/keys/key", write))
attempt("file-with-sockets", lambda: os.open(folder + "/sockets/file", write | os.O_CREAT, 0o600))
attempt("symlink", lambda: os.symlink("/", folder + "/sockets/link"))
attempt("removal", lambda: os.unlink(folder + "/audit/log"))
attempt("folder", lambda: os.mkdir(folder + "/new"))
"""


def landlocked() -> bool:
    return _dataplane.landlock_version() >= 6  # signals are of version 6


@pytest.mark.skipif(not landlocked(), reason="needs Landlock of Linux 6.12")
def test_landlock_bounds_files_and_closes_other_processes(tmp_path: Path) -> None:
    for name in ("sockets", "audit", "keys"):
        (tmp_path / name).mkdir()
    (tmp_path / "keys" / "key").write_text("a key")
    with subprocess.Popen(["sleep", "60"]) as other:
        tried = subprocess.run(
            [sys.executable, "-c", CONFINED, str(tmp_path), str(other.pid)],
            env=environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert other.poll() is None
        other.kill()
    results = dict(line.split() for line in tried.stdout.splitlines())
    assert {name for name, error in results.items() if error == "0"} == {"sockets", "audit", "read"}, tried.stderr
    assert len(results) == 13
    assert set(results.values()) == {"0", "1", "13"}, "EPERM or EACCES"


# As a daemon enters it: whether it can write its own code in spite of the protection of the memory.
OWN_CODE = """
import ctypes, os, sys, threading
from offload.host import sandbox
from offload.config.settings import Config
audit, main = sys.argv[1] + "/audit.jsonl", {"path": sys.argv[1] + "/main.sock"}
config = {"sockets": {"main": main}, "audit": {"path": audit}, "security": {"sandbox": True}}
sandbox.enter(Config.model_validate(config))
own = os.getpid()
def attempt(of):
    for name in ("mem", "comm"):
        for path in (f"/proc/{of}/{name}", f"/proc/self/task/{threading.get_native_id()}/{name}"):
            try:
                os.close(os.open(path, os.O_RDWR if name == "mem" else os.O_WRONLY))
                print("opened", path)
            except OSError as error:
                print("refused", error.errno)
attempt("self")
other = threading.Thread(target=attempt, args=(own,))
other.start()
other.join()
os.close(os.open(audit, os.O_WRONLY | os.O_CREAT, 0o600))
print("audit")
"""


@pytest.mark.skipif(not landlocked(), reason="needs Landlock of Linux 6.12")
def test_its_own_code_is_closed_to_it(tmp_path: Path) -> None:
    """As root too: /proc/self/mem and /proc/self/task/TID/mem write whatever protection a page has."""
    tried = subprocess.run(
        [sys.executable, "-c", OWN_CODE, str(tmp_path)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in tried.stdout.splitlines() if line.startswith(("opened", "refused", "audit"))]
    assert lines == ["refused 13"] * 8 + ["audit"], tried.stdout + tried.stderr


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
    assert "certify is not run: " in daemon.wait_log("no certificate")["reason"]
    assert daemon.identity("cart").credentials[0].dns_names == ["cart.test"]


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
