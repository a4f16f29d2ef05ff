"""What `check-config` finds in the way of the daemon, and that the daemon agrees."""

from __future__ import annotations

import errno
import os
import pwd
import re
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offload import _dataplane
from offload.config.settings import Config
from offload.host import preflight
from offload.host.preflight import Account, may
from offload.reporting import exit_codes
from tests.offload.cli.invoke import Ended
from tests.offload.conftest import ME
from tests.offload.daemon_process import ROOT, DaemonProcess, command, environment
from tests.offload.key_files import Authority, shared_key, write_pair

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.root


@pytest.fixture
def checked(authority: Authority) -> Iterator[DaemonProcess]:
    """In a folder that other users get to: into pytest's own only root may."""
    with tempfile.TemporaryDirectory(prefix="offload-preflight-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "keys").mkdir()
        key = shared_key("p256")
        write_pair(folder / "keys", "www", key, authority.issue(key))
        yield DaemonProcess(folder)


def check(daemon: DaemonProcess, *options: str, prefix: tuple[str, ...] = (), **sections: Any) -> Ended:
    daemon.configure(**({"identities": {"www": ME}} | sections))
    line = [*prefix, *command("check-config", "-c", daemon.config_file, *options)]
    ran = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    return Ended(ran.returncode, ran.stdout, ran.stderr)


def test_nothing_is_found_where_nothing_is_in_the_way(checked: DaemonProcess) -> None:
    ended = check(checked)
    assert (ended.exit_code, ended.stderr) == (exit_codes.OK, "")


@pytest.mark.slow(seconds=3)
def test_a_missing_folder_is_made_by_the_daemon(checked: DaemonProcess) -> None:
    """check-config makes nothing, and says nothing of what the daemon does by itself."""
    folder = checked.folder / "run" / "offload"
    checked.socket, checked.admin_socket = folder / "offload.sock", folder / "admin.sock"
    assert check(checked).exit_code == exit_codes.OK
    assert not folder.exists()
    checked.start()
    assert folder.stat().st_mode & 0o777 == 0o755, "callers get through"
    assert checked.stop() == exit_codes.OK


@pytest.mark.slow(seconds=2)
@as_root
def test_a_folder_that_may_not_be_made(checked: DaemonProcess) -> None:
    parent = checked.folder / "run"
    parent.mkdir(mode=0o755)
    checked.socket = parent / "offload" / "offload.sock"
    ended = check(checked, "--user", "nobody")
    assert ended.exit_code == exit_codes.CONFIGURATION
    assert f"it will not start: sockets.main.path: the folder {parent}/offload does not exist" in ended.stderr
    assert f"install -d -o nobody {parent}/offload" in ended.stderr
    become = ["setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups"]
    served = subprocess.run(
        [*become, *command("serve", "-c", checked.config_file)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert served.returncode == exit_codes.CONFIGURATION, served.stderr
    assert f"cannot create the folder {parent}/offload: Permission denied" in served.stderr


def test_something_else_in_the_place_of_a_socket(checked: DaemonProcess) -> None:
    checked.socket.write_text("mine")
    ended = check(checked)
    assert ended.exit_code == exit_codes.CONFIGURATION
    assert "exists and is not a socket" in ended.stderr


def test_a_port_that_is_taken(checked: DaemonProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = check(checked, metrics={"address": address})
    assert ended.exit_code == exit_codes.CONFIGURATION
    assert f"metrics.address: {address} cannot be used" in ended.stderr
    assert "another process listens there" in ended.stderr


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("203.0.113.9:9464", "this host has no such address"),
        ("127.0.0.1:0", None),
        ("[::ffff:203.0.113.9]:9464", "cannot be used"),
    ],
)
def test_addresses_for_metrics(checked: DaemonProcess, address: str, says: str | None) -> None:
    ended = check(checked, metrics={"address": address})
    assert ended.exit_code == (exit_codes.OK if says is None else exit_codes.CONFIGURATION), ended.output
    if says is not None:
        assert f"metrics.address: {address} cannot be used" in ended.stderr
        assert says in ended.stderr


def test_a_host_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", none)
    config = Config.model_validate({"metrics": {"address": "[::1]:9464"}})
    (finding,) = preflight._ports(config)
    assert "this host has no IPv6" in finding.text


def findings_of_memory(
    monkeypatch: pytest.MonkeyPatch, limit: int, kind: str, **security: object
) -> list[preflight.Finding]:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(_dataplane, "secret_memory_kind", lambda: kind)
    return list(preflight._memory(Config.model_validate({"security": security}), []))


def test_edges_of_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    enough = preflight.locked_memory([])
    monkeypatch.setattr(preflight, "_ignores_the_limit", lambda _: False)
    assert findings_of_memory(monkeypatch, resource.RLIM_INFINITY, "mlock") == []
    assert findings_of_memory(monkeypatch, enough, "mlock") == []
    (finding,) = findings_of_memory(monkeypatch, 0, "unlocked")
    assert "0 KiB may be locked in memory, and the daemon with 0 keys may need 1024 KiB" in finding.text
    (finding,) = findings_of_memory(monkeypatch, enough - 1, "mlock")
    assert "raise the limit" in finding.text
    (finding,) = findings_of_memory(monkeypatch, resource.RLIM_INFINITY, "unlocked")
    assert "a system call filter" in finding.text
    assert findings_of_memory(monkeypatch, 0, "unlocked", allow_unlocked_memory=True) == []


@pytest.mark.slow(seconds=4)
@as_root
def test_roots_daemon_ignores_the_limit_unless_it_gives_that_up(checked: DaemonProcess) -> None:
    """As the daemon does that gets as far as that: the sandbox has no CAP_IPC_LOCK."""
    limited = ("prlimit", "--memlock=0:0")
    assert check(checked, prefix=limited).exit_code == exit_codes.OK
    ended = check(checked, prefix=limited, security={"sandbox": True})
    assert ended.exit_code == exit_codes.CONFIGURATION, ended.output
    assert "may be locked in memory" in ended.stderr
    served = subprocess.run(
        [*limited, *command("serve", "-c", checked.config_file)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert served.returncode == exit_codes.CONFIGURATION, served.stderr


@pytest.mark.slow(seconds=4)
def test_keys_take_no_more_locked_memory_than_is_said() -> None:
    """The numbers of check-config, of the page and of the unit are one, and true."""
    code = """
import sys
from offload._dataplane import DataPlane, Key
from tests.offload.dataplane.serving import DEFAULTS
data_plane = DataPlane(DEFAULTS)
keys = [Key.generate(sys.argv[1]) for _ in range(int(sys.argv[2]))]
print(data_plane.statistics()["secret_memory"]["used"])
"""
    for algorithm, count in (("p256", 64), ("p384", 64), ("ed25519", 64), ("rsa2048", 8), ("rsa4096", 2)):
        ran = subprocess.run(
            [sys.executable, "-c", code, algorithm, str(count)],
            env=environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        of_keys = preflight.locked_memory([algorithm] * count) - preflight.locked_memory([])
        assert of_keys / 4 < int(ran.stdout) <= of_keys, algorithm
    small, large = (preflight.locked_memory([one]) - preflight.locked_memory([]) >> 10 for one in ("p256", "rsa4096"))
    said = f"at most 1 MiB, {small} KiB for each P-256, P-384 or Ed25519 key and {large} KiB for each RSA key"
    for page in ("docs/guide/keys.md", "deploy/systemd/offload.service"):
        assert said in (ROOT / page).read_text()


@pytest.mark.slow(seconds=2)
def test_what_a_running_daemon_has_is_not_in_its_way(daemon: DaemonProcess) -> None:
    daemon.start()
    text = daemon.config_file.read_text().replace("127.0.0.1:0", daemon.metrics_address())
    daemon.config_file.write_text(text)
    ran = subprocess.run(
        command("check-config", "-c", daemon.config_file),
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (exit_codes.OK, b"")


@pytest.mark.slow(seconds=3)
@as_root
@pytest.mark.parametrize(("kib", "code"), [(64, exit_codes.CONFIGURATION), (8192, exit_codes.OK)])
def test_locked_memory(checked: DaemonProcess, kib: int, code: int) -> None:
    os.chown(checked.folder, NOBODY.pw_uid, -1)
    limited = ("prlimit", f"--memlock={kib << 10}:{kib << 10}", "setpriv", f"--reuid={NOBODY.pw_uid}", "--clear-groups")
    for key in (checked.folder / "keys").iterdir():
        os.chown(key, NOBODY.pw_uid, -1)
    ended = check(checked, prefix=limited, identities={"www": {"selectors": [{"user": "nobody"}]}})
    assert ended.exit_code == code, ended.output
    assert ("may be locked in memory" in ended.stderr) == (code != exit_codes.OK)
    served = subprocess.Popen(
        [*limited, *command("serve", "-c", checked.config_file)], env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert served.stderr is not None
    said = ""
    for line in served.stderr:
        said += line
        if '"serving"' in line:
            served.terminate()
    assert served.wait(30) == code, said
    assert "Traceback" not in said


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize(
    ("selector", "socket_settings", "reason"),
    [
        ({"user": "nobody"}, {}, "cannot connect: "),
        ({"user": "nobody"}, {"mode": "0666"}, None),
        ({"user": "nobody"}, {"group": NOBODY.pw_gid}, None),
        ({"user": "nobody"}, {"owner": "nobody", "mode": "0600"}, None),
        ({"gid": NOBODY.pw_gid}, {}, "cannot connect: "),
        ({"gid": NOBODY.pw_gid}, {"group": NOBODY.pw_gid}, None),
        ({"uid": 0}, {}, None),
        ({"uid": 4_000_000}, {}, "cannot connect: "),
    ],
)
@as_root
def test_callers_that_the_selectors_name_can_connect(
    checked: DaemonProcess, selector: dict[str, Any], socket_settings: dict[str, Any], reason: str | None
) -> None:
    main = {"path": str(checked.socket)} | socket_settings
    ended = check(checked, sockets={"main": main}, identities={"www": {"selectors": [selector]}})
    if reason is None:
        assert (ended.exit_code, ended.stderr) == (exit_codes.OK, "")
    else:
        assert ended.exit_code == exit_codes.FAILED
        assert "will not work: identity 'www': " in ended.stderr
        assert reason in ended.stderr
        assert "and mode 0660; set its `group`" in ended.stderr
    # The kernel agrees.
    checked.start()
    try:
        uid, gid = selector.get("uid", NOBODY.pw_uid), selector.get("uid", NOBODY.pw_gid)
        line = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "test", "-w", str(checked.socket)]
        assert (subprocess.run(line, check=False).returncode == 0) == (reason is None)
    finally:
        checked.stop()


@pytest.mark.slow(seconds=4)
@as_root
def test_a_folder_on_the_way_that_a_caller_may_not_enter(checked: DaemonProcess) -> None:
    private = checked.folder / "private"
    private.mkdir(mode=0o700)
    main = {"path": str(private / "offload.sock"), "mode": "0666"}
    ended = check(checked, sockets={"main": main}, identities={"www": {"selectors": [{"user": "nobody"}]}})
    assert ended.exit_code == exit_codes.FAILED
    assert f"it has no access to {private} on the way to" in ended.stderr


@pytest.mark.slow(seconds=2)
@as_root
def test_as_the_user_of_the_daemon(checked: DaemonProcess) -> None:
    """A key that only root may read is refused for the user as whom the daemon will run."""
    (checked.folder / "keys" / "www.key").chmod(0o600)
    os.chown(checked.folder, NOBODY.pw_uid, -1)
    ended = check(checked, "--user", "nobody", identities={"www": {"selectors": [{"user": "nobody"}]}})
    assert ended.exit_code == exit_codes.FAILED
    assert re.search(r"Permission\s+denied", ended.stdout)
    missing = check(checked, "--user", "no-such-user")
    assert missing.exit_code == exit_codes.USAGE
    assert "there is no user 'no-such-user' on this host" in missing.stderr


@pytest.mark.slow(seconds=6)
def test_an_audit_log_without_a_folder(checked: DaemonProcess) -> None:
    ended = check(checked, audit={"path": str(checked.folder / "nowhere" / "audit.jsonl")})
    assert ended.exit_code == exit_codes.FAILED
    assert "nothing would be written" in ended.stderr


@pytest.mark.slow(seconds=4)
@as_root
def test_a_folder_that_may_not_be_looked_into_is_a_finding(checked: DaemonProcess) -> None:
    closed = checked.folder / "closed"
    closed.mkdir(mode=0o700)
    as_nobody = ("setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups")
    ended = check(checked, prefix=as_nobody, audit={"path": str(closed / "deep" / "audit.jsonl")})
    assert "no permission to inspect it: nothing would be written" in ended.stderr


# A folder above the socket that its owner has closed to the daemon. What is imported is imported before.
CLOSED_TO_US = """
import os, socket, sys
from pathlib import Path
from offload.host.listeners import Listener, SocketError
from offload.host.runtime_folder import make_folder
from offload.filesystem.trusted_paths import Trust
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
closed = Path(sys.argv[1])
assert not Listener("main", socket.socket(socket.AF_UNIX), (closed / "run" / "offload.sock", 1)).lost
try:
    make_folder(closed / "run", Trust.of())
except SocketError as error:
    print(error)
"""


@as_root
def test_a_folder_that_is_closed_to_the_daemon_ends_nothing(tmp_path: Path) -> None:
    """Whoever owns a folder above a socket can close it any time; the socket is not lost by that."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    line = [sys.executable, "-c", CLOSED_TO_US, str(closed), str(NOBODY.pw_uid)]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f"cannot inspect the folder {closed}/run: Permission denied" in ran.stdout


def test_a_group_counts_before_the_others(tmp_path: Path) -> None:
    """As the kernel has it: who is in the group gets what the group gets, even where others get more."""
    folder = tmp_path / "f"
    folder.mkdir()
    folder.chmod(0o705)
    group = folder.stat().st_gid
    assert may(Account(4_000_000, frozenset()), folder, os.X_OK)
    assert not may(Account(4_000_000, frozenset({group})), folder, os.X_OK)
