"""Fresh roots: what is in one, who runs in it, and that nothing of it stays. `make test-fresh` uses them in earnest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fresh import root as roots
from tests.fresh.root import FreshRoot, fresh_root

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(roots.missing() is not None, reason=str(roots.missing())),
    pytest.mark.timeout(600),  # the first on a host runs debootstrap
]


@pytest.fixture(scope="module")
def root() -> Iterator[FreshRoot]:
    with fresh_root("test") as made:
        made.run("useradd --create-home alice")
        yield made
    assert not made.path.exists()


def test_is_minimal_and_has_a_system_around_it(root: FreshRoot) -> None:
    root.run("test -r /proc/self/stat; echo ok > /dev/null; test -d /dev/shm")
    assert root.run("command -v python3 gcc openssl curl sudo || echo none").stdout == "none\n"


def test_runs_as_a_user_with_a_clean_environment(root: FreshRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    done = root.run("id -un; pwd; echo ${SECRET_OF_THE_HOST-unset} $GREETING", "alice", environment={"GREETING": "a b"})
    assert done.stdout == "alice\n/home/alice\nunset a b\n"


def test_binds_are_read_only_unless_asked(root: FreshRoot, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    assert root.run("cat /data/file", binds=[(tmp_path, "/data")]).stdout == "from the host\n"
    assert "Read-only" in root.run("touch /data/new", binds=[(tmp_path, "/data")], check=False).stdout
    root.run("touch /data/new", binds=[(tmp_path, "/data", "rw")])
    assert (tmp_path / "new").exists()


def test_processes_and_mounts_end_with_their_command(root: FreshRoot) -> None:
    root.run("mount -t tmpfs tmpfs /mnt; sleep 98765 & echo started")
    everywhere = subprocess.run(["ps", "ax"], capture_output=True, text=True, check=True).stdout
    assert "sleep 98765" not in everywhere
    assert str(root.path) not in Path("/proc/mounts").read_text()
    with pytest.raises(subprocess.TimeoutExpired):
        root.run("sleep 87654", timeout=2)
    everywhere = subprocess.run(["ps", "ax"], capture_output=True, text=True, check=True).stdout
    assert "sleep 87654" not in everywhere


def test_a_failure_carries_the_output(root: FreshRoot) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        root.run("echo what went wrong; false; echo not reached")
    assert failed.value.output == "what went wrong\n"


def test_set_up_without_root_says_which_command_installs_what_a_build_needs(root: FreshRoot) -> None:
    done = root.run(["/project/deploy/setup/debian.sh"], "alice", binds=[(PROJECT, "/project")], check=False)
    assert done.returncode == 1
    assert "apt-get install --no-install-recommends" in done.stdout
    assert {"python3-dev", "g++", "libnghttp2-dev"} <= set(done.stdout.split())
