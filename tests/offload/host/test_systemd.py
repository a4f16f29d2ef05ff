"""systemd's protocols, spoken by real sockets: readiness, reload, stop, watchdog, and sockets handed over."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.node.waiting import wait_for
from offload.host.systemd import Notifier, take_sockets
from offload.reporting import exit_codes
from offload.v1 import admin_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import (
    ROOT,
    DaemonProcess,
    environment,
    listening_socket,
    sign_request,
)
from tests.offload.key_files import key_id, shared_key

UNITS = ROOT / "deploy" / "systemd"


class Manager:
    """Receives what a service manager would."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.settimeout(60)

    def until(self, field: str) -> list[str]:
        """The datagrams up to and with the first that has this field."""
        seen = []
        while True:
            seen.append(self.socket.recv(4096).decode())
            if field in seen[-1].splitlines():
                return seen


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@offload-test-{os.getpid()}")
    yield made
    made.socket.close()


@pytest.mark.slow(seconds=2)
def test_ready_reloading_stopping(daemon: DaemonProcess, manager: Manager) -> None:
    daemon.start(NOTIFY_SOCKET=manager.address)
    ready = manager.until("READY=1")[-1]
    assert "STATUS=serving 2 identities, 2 keys" in ready
    daemon.signal(signal.SIGHUP)
    reloading = manager.until("RELOADING=1")[-1].splitlines()
    assert any(line.startswith("MONOTONIC_USEC=") for line in reloading)
    manager.until("READY=1")
    daemon.signal(signal.SIGTERM)
    assert manager.until("STOPPING=1")
    assert daemon.wait() == exit_codes.OK


@pytest.mark.slow(seconds=2)
def test_watchdog(daemon: DaemonProcess, tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    daemon.start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="400000")
    manager.until("READY=1")
    for _ in range(3):
        manager.until("WATCHDOG=1")
    manager.socket.close()
    wait_for("it to go on without its manager", lambda: daemon.identity("www").name == "www")


def test_a_watchdog_for_somebody_else_is_not_fed() -> None:
    others = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier(others).watchdog_seconds is None
    assert Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000"}).watchdog_seconds == 0.5
    assert Notifier({"WATCHDOG_USEC": "1000000"}).watchdog_seconds is None


# A service manager in four lines: puts the sockets at 3, 4, ... and becomes the daemon, so that LISTEN_PID is right.
ACTIVATE = """
import os, sys
count, *line = sys.argv[1:]
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = count
os.execv(line[0], line)
"""


def activated(daemon: DaemonProcess, names: str, *sockets: socket.socket) -> None:
    """Starts it with these sockets handed over."""
    line = [sys.executable, "-m", "offload", "serve", "--config", str(daemon.config_file)]
    with daemon.log_file.open("ab") as log:
        # The shell gives each its number: 3<&FD.
        redirections = " ".join(f"{3 + i}<&{s.fileno()}" for i, s in enumerate(sockets))
        daemon.process = subprocess.Popen(
            [
                "/bin/bash",
                "-c",
                f'exec "$@" {redirections}',
                "-",
                sys.executable,
                "-c",
                ACTIVATE,
                str(len(sockets)),
                *line,
            ],
            env=environment(LISTEN_FDNAMES=names),
            stdout=log,
            stderr=log,
            pass_fds=[s.fileno() for s in sockets],
        )


@pytest.mark.slow(seconds=4)
def test_sockets_from_systemd_are_served_and_left(daemon: DaemonProcess, tmp_path: Path) -> None:
    cart = tmp_path / "cart.sock"
    daemon.configure(
        sockets={
            "main": {"path": str(daemon.socket)},
            "dedicated": [{"name": "cart", "path": str(tmp_path / "not-made.sock")}],
        },
        identities={"www": ME},
    )
    main, dedicated = listening_socket(daemon.socket), listening_socket(cart)
    daemon.socket.chmod(0o666)
    activated(daemon, "main:cart", main, dedicated)
    daemon.wait_log("serving")
    request = sign_request(key_id(shared_key("p256")), 0x0403)
    for path in (daemon.socket, cart):
        with daemon.client(path) as stub:
            assert stub.Sign(request, timeout=10).signature
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o666, "owner and mode are systemd's"
    assert not (tmp_path / "not-made.sock").exists()
    # A restart: callers that come in between wait in the socket's queue and lose nothing.
    assert daemon.stop() == exit_codes.OK
    assert daemon.socket.exists()
    daemon.log_file.unlink()
    with daemon.client() as stub:
        waiting = stub.Sign.future(request, timeout=60)
        activated(daemon, "main:cart", main, dedicated)
        assert waiting.result().signature
    main.close()
    dedicated.close()


@pytest.mark.slow(seconds=5)
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("other", "systemd handed over a socket named 'other', but the configuration has only: main"),
        ("", "systemd handed over 1 sockets and 0 names: set FileDescriptorName="),
    ],
)
def test_sockets_with_wrong_names(daemon: DaemonProcess, names: str, reason: str) -> None:
    with listening_socket(daemon.socket) as main:
        activated(daemon, names, main)
        assert daemon.wait(60) == exit_codes.CONFIGURATION
    assert reason in daemon.events("cannot start")[0]["reason"]


@pytest.mark.slow(seconds=5)
def test_a_socket_of_the_wrong_kind(daemon: DaemonProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        activated(daemon, "main", tcp)
        assert daemon.wait(60) == exit_codes.CONFIGURATION
    assert "is not a listening Unix stream socket" in daemon.events("cannot start")[0]["reason"]


def test_what_is_for_another_process_is_left_alone() -> None:
    variables = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "main"}
    assert take_sockets(variables) == {}
    assert variables == {}, "and no child takes it for its own"


# ---- the unit files ----


def _unit(name: str) -> configparser.ConfigParser:
    class Unit(configparser.ConfigParser):
        def optionxform(self, optionstr: str) -> str:
            return optionstr

    parser = Unit(strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parser.read(UNITS / name)
    return parser


def test_the_units_fit_the_daemon() -> None:
    service, sockets = _unit("offload.service")["Service"], _unit("offload.socket")["Socket"]
    assert int(service["RestartPreventExitStatus"]) == exit_codes.CONFIGURATION
    assert service["Type"] == "notify"
    assert sockets["FileDescriptorName"] == "main"
    assert sockets["ListenStream"] == "/run/offload/offload.sock"
    assert float(service["TimeoutStopSec"]) > 25, "longer than the drain timeout"
    assert service["CapabilityBoundingSet"] == ""


def test_files_say_where_the_page_installs_them() -> None:
    page = (ROOT / "docs" / "start" / "systemd.md").read_text()
    files = sorted(UNITS.glob("*.conf"))
    assert files
    for file in files:
        said = re.match(r"# To (/\S+\.conf)[.,]", file.read_text())
        assert said, file.name
        assert f"install -D -m 644 deploy/systemd/{file.name} {said[1]}\n" in page


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: apt-get install systemd"
)
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    installed = ("offload.service", "offload.socket", "mesh.service", "mesh-dataplane@.service")
    for name in installed:
        text = re.sub(r"/opt/tls-offload/bin/\w+", "/bin/true", (UNITS / name).read_text())
        (tmp_path / name).write_text(text)
    (tmp_path / "offload.service.d").mkdir()
    shutil.copy(UNITS / "offload-mesh.conf", tmp_path / "offload.service.d" / "mesh.conf")
    checked = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in installed)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in checked.stderr.splitlines() if "offload" in line or "mesh" in line]
    assert ours == []


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: apt-get install systemd"
)
@pytest.mark.parametrize(
    ("name", "threshold"), [("offload.service", 20), ("mesh.service", 20), ("mesh-dataplane@.service", 30)]
)
def test_the_units_are_exposed_to_little(tmp_path: Path, name: str, threshold: int) -> None:
    """systemd's own measure, in tenths: 100 is everything."""
    unit = tmp_path / name.replace("@", "@one")
    unit.write_text(re.sub(r"/opt/tls-offload/bin/\w+", "/bin/true", (UNITS / name).read_text()))
    exposure = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert exposure.returncode == 0, exposure.stdout[-700:]


def _group(name: str) -> set[str]:
    """The system calls of one of systemd's groups."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, timeout=60, check=True
    )
    calls: set[str] = set()
    for line in (text.strip() for text in listed.stdout.splitlines()[1:]):
        if line.startswith("@"):
            calls |= _group(line)
        elif line and not line.startswith("#"):
            calls.add(line)
    return calls


def _allowed_calls() -> set[str]:
    """What is left after all SystemCallFilter= lines: names and groups add up, those after ~ are taken away again."""
    allowed: set[str] = set()
    for line in (UNITS / "offload.service").read_text().splitlines():
        if line.startswith("SystemCallFilter="):
            value = line.partition("=")[2]
            named: set[str] = set()
            for word in value.removeprefix("~").split():
                named |= _group(word) if word.startswith("@") else {word}
            allowed = allowed - named if value.startswith("~") else allowed | named
    return allowed


@pytest.mark.slow(seconds=3)
@pytest.mark.skipif(
    shutil.which("strace") is None or shutil.which("systemd-analyze") is None, reason="strace or systemd is missing"
)
def test_the_seccomp_filter_allows_what_the_daemon_does(daemon: DaemonProcess, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with daemon.log_file.open("ab") as log:
        daemon.process = subprocess.Popen(
            [
                "strace",
                "-f",
                "-qq",
                "-o",
                str(trace),
                sys.executable,
                "-m",
                "offload",
                "serve",
                "-c",
                daemon.config_file,
            ],
            env=environment(NOTIFY_SOCKET="/nobody"),
            stdout=log,
            stderr=log,
        )
    daemon.wait_log("serving")
    with daemon.client() as stub:
        for identity, scheme in (("p256", 0x0403), ("rsa2048", 0x0804)):
            assert stub.Sign(sign_request(key_id(shared_key(identity)), scheme), timeout=20).signature
    with daemon.admin() as admin:
        admin.Reload(admin_pb2.ReloadRequest(), timeout=60)
        admin.Drain(admin_pb2.DrainRequest(), timeout=20)
    assert daemon.wait(60) == exit_codes.OK
    used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(errors="replace"), re.MULTILINE))
    assert "accept4" in used
    assert used - _allowed_calls() == set()
