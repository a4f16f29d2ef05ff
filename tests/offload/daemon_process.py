"""The real daemon as a process of its own, and real clients for it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import yaml

from deploy.node.waiting import wait_for
from offload.v1 import admin_pb2_grpc, private_key_pb2, private_key_pb2_grpc
from tests.json_lines import read_json_lines

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120  # a debugged daemon on a machine with a load of 12 took more than 60
CERTIFICATE_VERIFY = b" " * 64 + b"TLS 1.3, server CertificateVerify\x00" + bytes(32)


def command(*arguments: str | Path, module: str = "offload") -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would change the daemon's settings."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("OFFLOAD_", "LISTEN_", "NOTIFY_", "WATCHDOG_"))}
    return mine | {"PYTHONPATH": str(ROOT)} | more


def _states(pid: int) -> Iterator[str]:
    """Of the threads of a process, as in /proc: R, S, T, ..."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it has ended
            yield (task / "stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def folder_of_root() -> Iterator[Path]:
    """Outside pytest's own, which is closed to others."""
    with tempfile.TemporaryDirectory(prefix="offload-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


class DaemonProcess:
    """`offload serve` with its files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "offload.sock"
        self.admin_socket = folder / "admin.sock"
        self.config_file = folder / "offload.yaml"
        self.log_file = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.module = "offload"  # what `python -m` runs
        self.working_directory: Path | None = None  # ours

    def configure(self, **sections: Any) -> None:
        config = {
            "sockets": {"main": {"path": str(self.socket)}},
            "admin": {"path": str(self.admin_socket)},
            "keys": {"directory": str(self.folder / "keys"), "debounce_ms": 10, "rescan_seconds": 1},
            "metrics": {"address": "127.0.0.1:0"},
            "logging": {"format": "json"},
        } | sections
        self.config_file.write_text(yaml.safe_dump(config))

    def start(self, wait: bool = True, prefix: Sequence[str] = (), **more: str) -> DaemonProcess:
        log = self.log_file.open("ab")
        self.process = subprocess.Popen(
            [*prefix, *command("serve", "--config", self.config_file, module=self.module)],
            env=environment(**more),
            stdout=log,
            stderr=log,
            cwd=self.working_directory,
        )
        log.close()
        if wait:
            self.wait_log("serving")
        return self

    def upgrade(self, number: int) -> DaemonProcess:
        """The next daemon of the same configuration, with a log of its own; it is not waited for."""
        made = DaemonProcess(self.folder)
        made.log_file = self.folder / f"log{number}"
        with made.log_file.open("ab") as log:
            line = command("serve", "--config", self.config_file, "--take-over")
            made.process = subprocess.Popen(line, env=environment(), stdout=log, stderr=log)
        return made

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @contextmanager
    def without_descriptors(self) -> Iterator[None]:
        """The running daemon can open nothing more, until the end."""
        limits = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            yield
        finally:
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, limits)

    def log(self) -> list[dict[str, Any]]:
        return read_json_lines(self.log_file)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log() if entry["event"] == name]

    def wait_log(self, event: str, count: int = 1, seconds: float = START_SECONDS) -> dict[str, Any]:
        def there() -> list[dict[str, Any]]:
            found = self.events(event)
            if len(found) < count and self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.log_file.read_text()}")
            return found if len(found) >= count else []

        found: list[dict[str, Any]] = wait_for(f"'{event}' in the log", there, seconds)
        return found[count - 1]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number is signal.SIGSTOP:  # its threads stop one by one, and one that still runs may answer
            wait_for("every thread to stop", lambda: set(_states(self.pid)) == {"T"})

    def wait(self, seconds: float = 30) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> int:
        """Drains it, if it still runs; gives its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    # ---- clients ----

    @contextmanager
    def admin(self) -> Iterator[Any]:
        with grpc.insecure_channel(f"unix:{self.admin_socket}") as channel:
            yield admin_pb2_grpc.AdminServiceStub(channel)

    @contextmanager
    def client(self, path: Path | None = None) -> Iterator[Any]:
        with grpc.insecure_channel(f"unix:{path or self.socket}") as channel:
            yield private_key_pb2_grpc.PrivateKeyServiceStub(channel)

    def identity(self, name: str) -> Any:
        """The first message of WatchIdentity."""
        with self.client() as stub:
            watch = stub.WatchIdentity(private_key_pb2.WatchIdentityRequest(identity=name), timeout=10)
            message = next(iter(watch))
            watch.cancel()
            return message

    def metrics_address(self) -> str:
        address: str = self.events("serving")[-1]["metrics"]
        return address


def sign_request(key_id: bytes, scheme: int, data: bytes = CERTIFICATE_VERIFY) -> Any:
    return private_key_pb2.SignRequest(key_id=key_id, signature_scheme=scheme, input=data)


def status_of(call: Callable[[], Any]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def listening_socket(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(64)
    return listening
