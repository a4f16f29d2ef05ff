"""What the sandbox forbids: system calls, files, other processes, and code of the daemon's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.offload.daemon_process import (
    ROOT,
    environment,
)
from tests.offload.host.landlock import landlocked

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


def test_another_abi_ends_the_process() -> None:
    """x32: the same calls under numbers that a list of numbers would not see."""
    code = (
        "import ctypes; from offload import _dataplane; _dataplane.filter_calls(False); "
        "ctypes.CDLL(None).syscall(0x40000000 + 39)"
    )
    tried = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, timeout=60, check=False)
    assert tried.returncode == -signal.SIGSYS
