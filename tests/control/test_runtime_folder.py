"""The folder of a running proxy: whose it is, who gets it next, and what stays behind after every kind of end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from control import runtime_folder
from control.runtime_folder import MAX_SOCKET_PATH, UnusableFolder, default_base, remove_leftovers, take
from deploy.node.certificates import Authority
from tests.control.mesh_process import MESH, ROOT, free_port

# An Envoy that says when it runs: on its standard output.
ENVOY = "#!/bin/sh\necho running; exec sleep 600\n"


@pytest.fixture
def base() -> Iterator[Path]:
    """A short path, for the sockets in it; pytest's is longer where tests run in parallel."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        yield Path(folder) / "run"


class Proxies:
    """`mesh dataplane run` with an Envoy that only waits, and no control plane: it is started all the same."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.base, self.temporary = base, folder / "tmp"
        self.temporary.mkdir()
        self._token, self._ca, self._envoy = folder / "token", Authority(folder / "ca").ca_file, folder / "envoy"
        self._token.write_text(jwt.encode({"exp": int(time.time()) + 3600}, "x" * 32))
        self.envoy(ENVOY)
        self.running: list[subprocess.Popen[str]] = []

    def envoy(self, text: str) -> None:
        self._envoy.write_text(text)
        self._envoy.chmod(0o755)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        command = [*MESH, "dataplane", "run", "--name", "web-1", "--token-file", str(self._token), "--ca-file"]
        command += [str(self._ca), "--envoy", str(self._envoy), "--control-plane", f"127.0.0.1:{free_port()}"]
        command += ["--runtime-folder", str(self.base)]
        own = {**os.environ, "TMPDIR": str(self.temporary), **environment}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=ROOT, env=own, stdout=pipe, stderr=pipe, text=True)
        self.running.append(process)
        return process

    def run(self) -> subprocess.Popen[str]:
        process = self.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n", process.communicate()
        return process

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.base.iterdir())


@pytest.fixture
def proxies(tmp_path: Path, base: Path) -> Iterator[Proxies]:
    made = Proxies(tmp_path, base)
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSEGV])
def test_a_proxy_that_ended_leaves_one_folder_which_the_next_takes(proxies: Proxies, end: signal.Signals) -> None:
    for _ in range(2):
        process = proxies.run()
        folder = proxies.base / "default.web-1"
        assert proxies.folders() == ["default.web-1"]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "bootstrap.json").stat().st_mode & 0o777 == 0o600
        process.send_signal(end)
        process.communicate(timeout=30)
    assert list(proxies.temporary.iterdir()) == []


@pytest.mark.slow(seconds=4)
def test_two_at_once_have_folders_of_their_own_and_the_dead_one_goes(proxies: Proxies) -> None:
    first, second = proxies.run(), proxies.run()
    assert proxies.folders() == ["default.web-1", "default.web-1+2"]
    second.kill()
    second.communicate()
    third = proxies.run()
    assert proxies.folders() == ["default.web-1", "default.web-1+2"]
    first.kill()
    first.communicate()
    proxies.run()
    assert proxies.folders() == ["default.web-1", "default.web-1+2"]
    assert third.poll() is None
    third.kill()
    third.communicate()
    take(proxies.base, "default.other").remove()
    assert proxies.folders() == ["default.web-1"], "the one that nobody runs in is gone"


def test_an_envoy_that_cannot_be_executed_leaves_nothing(proxies: Proxies) -> None:
    proxies.envoy("no program of any kind\n")
    process = proxies.start()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "Exec format error" in said or "exec format error" in said
    assert proxies.folders() == []
    assert list(proxies.temporary.iterdir()) == []


@pytest.mark.slow(seconds=4)
def test_an_administrators_secrets_are_not_handed_to_envoy(proxies: Proxies) -> None:
    proxies.envoy("#!/bin/sh\nenv\n")
    process = proxies.start(
        MESH_TOKEN="t0ken", MESH_STORE_PASSPHRASE="pa55", MESH_DATABASE="postgresql://u:p@h/d", X="1"
    )
    environment, said = process.communicate(timeout=60)
    assert "X=1" in environment.splitlines(), said
    assert not any(line.startswith(("MESH_TOKEN", "MESH_STORE", "MESH_DATABASE")) for line in environment.splitlines())


def test_a_socket_that_is_left_there_is_taken_away(base: Path) -> None:
    folder = take(base, "default.web-1")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(folder.admin_socket))
    os.close(folder.descriptor)
    again = take(base, "default.web-1")
    assert again.path == folder.path
    assert not again.admin_socket.exists()
    again.remove()


def test_what_somebody_else_put_there_stays(base: Path) -> None:
    (base / "mine").mkdir(parents=True)
    (base / "mine" / "notes").write_text("x")
    (base / "file").write_text("x")
    (base / "empty").mkdir()
    take(base, "default.web-1").remove()
    assert (base / "mine" / "notes").read_text() == "x"
    assert (base / "file").exists()
    assert (base / "empty").exists()


def test_a_folder_that_is_not_ours_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(UnusableFolder, match=f"chmod go-w {open_to_all}"):
        take(open_to_all, "default.web-1")
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    somebody_else = mine.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    with pytest.raises(UnusableFolder, match="is not a folder of this user"):
        take(mine, "default.web-1")


def test_long_names(base: Path) -> None:
    one, other = (take(base, f"default.{'a' * 250}{last}") for last in "bc")
    assert one.path != other.path
    assert len(os.fsencode(one.admin_socket)) <= MAX_SOCKET_PATH
    one.remove()
    other.remove()
    with pytest.raises(UnusableFolder, match="choose a shorter --runtime-folder"):
        take(base / ("x" * 90), "default.web-1")
    take(base / ("x" * 90), "default.web-1", with_socket=False).remove()


def test_a_name_is_no_path(base: Path) -> None:
    folder = take(base, "default.../../x")
    assert folder.path.parent == base
    folder.remove()


def test_where_it_is_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert default_base({}) == tmp_path / f"mesh-{os.geteuid()}"
    assert default_base({"XDG_RUNTIME_DIR": "/none"}) == tmp_path / f"mesh-{os.geteuid()}"
    session = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert default_base(session) == tmp_path / "mesh"
    assert default_base({**session, "RUNTIME_DIRECTORY": "/run/a:/run/b"}) == Path("/run/a")


def test_folders_of_earlier_versions_go(tmp_path: Path) -> None:
    def folder(name: str, *files: str) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file in files:
            (made / file).write_text("x")
        return made

    old, other = folder("mesh-web-1-abcdefgh", "bootstrap.json"), folder("mesh-web-1-12345678", "bootstrap.json", "x")
    stays = folder("mesh-short", "bootstrap.json")
    now = time.time()
    assert remove_leftovers(tmp_path, now) == 0, "one may be starting now"
    assert remove_leftovers(tmp_path, now + 2 * runtime_folder.LEFTOVER_AGE_S) == 1
    assert (old.exists(), other.exists(), stays.exists()) == (False, True, True)
