"""A workload that can write the folder of its socket, against the daemon that makes the socket again and again.

What it tries is real: another user's process that exchanges the socket for a symlink as fast as it can.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deploy.node.waiting import wait_for
from offload.config.settings import Config
from offload.config.sockets import DedicatedSocket
from offload.host.listeners import SocketError, make_listener
from offload.reporting import exit_codes
from tests.offload.conftest import ME
from tests.offload.daemon_process import DaemonProcess, command, environment, folder_of_root
from tests.offload.key_files import Authority, shared_key, write_pair

pytestmark = pytest.mark.root

WORKLOAD, NOBODY = 12345, 65534
SECONDS = 4.0
PATIENCE_SECONDS = 60.0  # for the attacker, on a machine with much else to do

# Whenever a socket stands there: a symlink to the victim in its place, and away with it again.
ATTACK = """
import os, stat, sys, time
folder, victim = sys.argv[1:]
os.setgroups([]); os.setgid(12345); os.setuid(12345)
os.chdir(folder)
print("ready", flush=True)
while True:
    try:
        if stat.S_ISSOCK(os.lstat("offload.sock").st_mode):
            os.symlink(victim, "evil")
            os.rename("evil", "offload.sock")
            time.sleep(0.0005)
            os.unlink("offload.sock")
    except OSError:
        pass
"""


@contextmanager
def attack(folder: Path, victim: Path) -> Iterator[None]:
    attacker = subprocess.Popen([sys.executable, "-c", ATTACK, str(folder), str(victim)], stdout=subprocess.PIPE)
    assert attacker.stdout
    try:
        assert attacker.stdout.readline()
        yield
    finally:
        attacker.kill()
        attacker.wait()
        attacker.stdout.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that others can get to, with one in it that belongs to the workload."""
    with tempfile.TemporaryDirectory(prefix="offload-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "cart").mkdir()
        os.chown(folder / "cart", WORKLOAD, WORKLOAD)
        yield folder


def test_a_socket_made_again_and_again_beside_an_attacker(place: Path) -> None:
    """Also where the operator trusts the folder's owner: nothing but the socket changes hands."""
    victim = place / "secret"
    victim.write_text("root's")
    victim.chmod(0o600)
    settings = DedicatedSocket(name="cart", path=place / "cart" / "offload.sock", owner=WORKLOAD, mode="0666")  # type: ignore[arg-type]  # as in YAML
    trust = Config.model_validate({"security": {"trusted_users": [WORKLOAD]}}).security.trust()
    made = exchanged = 0
    with attack(place / "cart", victim):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or (not exchanged and time.monotonic() < end + PATIENCE_SECONDS):
            try:
                listener = make_listener("cart", settings, trust)
            except SocketError as error:
                exchanged += "is not the socket that was just created" in str(error)
                continue
            made += 1
            listener.close()
    status = victim.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o600)
    assert made > 10
    assert victim.read_text() == "root's"
    assert exchanged, "the attacker was never between bind and chown: this run has tested nothing"


@contextmanager
def daemon_of(place: Path, authority: Authority, **security: object) -> Iterator[DaemonProcess]:
    """Its configuration lies elsewhere: it would not be taken from a folder that another user owns."""
    key = shared_key("p256")
    write_pair(place / "keys", "www", key, authority.issue(key, "www"))
    made = DaemonProcess(place)
    dedicated = {"name": "cart", "path": str(place / "cart" / "offload.sock"), "owner": WORKLOAD, "mode": "0666"}
    with folder_of_root() as etc:
        made.config_file = etc / "offload.yaml"
        made.configure(
            sockets={"main": {"path": str(made.socket)}, "dedicated": [dedicated]},
            identities={"www": ME},
            security=security,
        )
        yield made
        made.stop()


def test_the_folder_of_a_workload_is_refused(place: Path, authority: Authority) -> None:
    with daemon_of(place, authority) as daemon:
        daemon.start(wait=False)
        assert daemon.wait() == exit_codes.CONFIGURATION
        (why,) = daemon.events("cannot start")
    assert "offload.sock: " in why["reason"]
    assert f"{place.resolve()}/cart belongs to uid 12345" in why["reason"]
    way_out = "change its owner to root or to the daemon's user (root (uid 0)), or name its owner in security.trusted"
    assert way_out in why["reason"]


def test_check_config_says_it_beforehand(place: Path, authority: Authority) -> None:
    with daemon_of(place, authority) as daemon:
        line = command("check-config", "-c", daemon.config_file)
        checked = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=60, check=False)
        assert checked.returncode == exit_codes.CONFIGURATION
        assert "belongs to uid 12345" in " ".join(checked.stderr.split())
        os.chown(place / "cart", 0, 0)
        assert subprocess.run(line, env=environment(), capture_output=True, timeout=60, check=False).returncode == 0


def test_root_checks_for_the_daemons_user(place: Path, authority: Authority) -> None:
    """The units run it as a user of its own, to whom /run/offload belongs."""
    with daemon_of(place, authority) as daemon:
        os.chown(place / "cart", 0, 0)
        os.chown(place, NOBODY, NOBODY)
        line = command("check-config", "-c", daemon.config_file)
        checked = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=60, check=False)
        assert checked.returncode == exit_codes.OK, checked.stderr
        assert "checked as for a daemon that runs as uid 65534" in " ".join(checked.stderr.split())


def test_a_folder_that_goes_to_the_workload_later(place: Path, authority: Authority) -> None:
    """The socket that the workload removes is not made again there, and said so; the others serve."""
    os.chown(place / "cart", 0, 0)
    victim = place / "secret"
    victim.write_text("root's")
    victim.chmod(0o600)
    with daemon_of(place, authority) as daemon:
        daemon.start()
        owned = (place / "cart" / "offload.sock").stat()
        assert (owned.st_uid, stat.S_IMODE(owned.st_mode)) == (WORKLOAD, 0o666)
        os.chown(place / "cart", WORKLOAD, WORKLOAD)
        with attack(place / "cart", victim):
            time.sleep(3)
        with suppress(FileNotFoundError):
            (place / "cart" / "offload.sock").unlink()  # what the attacker left
        why = daemon.wait_log("a socket's file has been removed and cannot be recreated")
        assert "belongs to uid 12345" in why["reason"]
        assert victim.stat().st_uid == 0
        os.chown(place / "cart", 0, 0)
        wait_for("the socket in a folder that is root's again", (place / "cart" / "offload.sock").is_socket)
        assert daemon.identity("www").name == "www"


def test_in_the_sandbox_no_other_mode_changes(place: Path, authority: Authority) -> None:
    """The daemon is NOBODY by then: what it could have changed are its own files, the keys. In the sandbox it makes
    sockets without chmod."""
    cart = place / "cart"
    with daemon_of(place, authority) as daemon:
        victim = place / "keys" / "www.key"
        for path in (place, cart, place / "keys", *(place / "keys").iterdir()):
            os.chown(path, NOBODY, NOBODY)
        daemon.configure(
            sockets={
                "main": {"path": str(daemon.socket)},
                "dedicated": [{"name": "cart", "path": str(cart / "offload.sock"), "mode": "0666"}],
            },
            identities={"www": ME},
            security={"sandbox": True, "user": NOBODY},
        )
        daemon.start()
        cart.chmod(0o777)
        with attack(cart, victim):
            time.sleep(3)
        why = daemon.wait_log("a socket's file has been removed and cannot be recreated")
        assert "every user can write in" in why["reason"]
        assert stat.S_IMODE(victim.stat().st_mode) == 0o600
        with suppress(FileNotFoundError):
            (cart / "offload.sock").unlink()
        cart.chmod(0o755)
        wait_for("the socket to be made again in the sandbox", (cart / "offload.sock").is_socket)
        made = (cart / "offload.sock").stat()
        assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (NOBODY, 0o666)
        assert stat.S_IMODE(victim.stat().st_mode) == 0o600
