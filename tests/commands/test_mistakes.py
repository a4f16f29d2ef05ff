"""A mistake at a command ends with a sentence and the documented exit code."""

from __future__ import annotations

import grp
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import control.cli
import offload.cli
from tests.commands.mistakes import MISTAKES, NOBODY, C, commands
from tests.control.mesh_process import ControlPlane
from tests.offload.daemon_process import ROOT, environment, folder_of_root


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A control plane that runs, and files that are wrong; what stands in braces in the cases."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, text in {
        "bad.yaml": "a: [1\n",
        "unknown.yaml": "metrik: {}\n",
        "empty-file": "",
        "nowhere.yaml": "sockets: {main: {path: /proc/nowhere/a.sock}}\nmetrics: {address: null}\n",
        "mesh.yaml": "type: Mesh\nname: default\n",
    }.items():
        (folder / name).write_text(text)
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "empty").mkdir()
    with (
        folder_of_root() as public,
        socket.socket(socket.AF_UNIX) as shut,
        socket.socket() as closed,
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.socket(socket.AF_UNIX) as nobody,
    ):
        closed.bind(("127.0.0.1", 0))  # and never listens
        nobody.bind(str(folder / "nobody.sock"))
        (public / "locked").mkdir(mode=0o700)
        shut.bind(str(public / "closed.sock"))
        (public / "closed.sock").chmod(0o660)
        if os.geteuid() == 0:
            os.chown(public / "closed.sock", 0, grp.getgrnam("daemon").gr_gid)
        port = taken.getsockname()[1]
        (folder / "taken.yaml").write_text(
            f"sockets: {{main: {{path: {folder}/t.sock}}}}\nadmin: {{path: {folder}/ta.sock}}\n"
            f"keys: {{directory: {folder}/empty}}\nmetrics: {{address: '127.0.0.1:{port}'}}\n"
        )
        made = ControlPlane(folder)
        made.hosts["--xds"] = "0.0.0.0"  # noqa: S104 (it also answers under a name without a certificate)
        made.start()
        made.output("apply", "-f", str(folder / "mesh.yaml"))
        (folder / "token").write_text(made.output("generate", "dataplane-token", "--name", "a"))
        other = ControlPlane(folder / "other")
        other.folder.mkdir()
        other.start()
        other.stop()
        (folder / "other-ca.pem").write_bytes((other.data / "ca.pem").read_bytes())
        yield {
            "folder": str(folder),
            "public": str(public),
            "api": str(made.api),
            "xds": str(made.xds),
            "ca": str(made.data / "ca.pem"),
            "data": str(made.data),
            "token": str(folder / "token"),
            "taken": str(port),
            "closed": str(closed.getsockname()[1]),
        }
        made.stop()


@pytest.fixture(scope="module")
def ended(words: dict[str, str]) -> list[Ended]:
    mesh = {"MESH_DATA": words["data"], "MESH_API": f"https://127.0.0.1:{words['api']}"}
    cases = []
    for case in MISTAKES:
        program, *arguments = (word.format(**words) for word in shlex.split(case.line))
        variables = environment(**mesh | {name: value.format(**words) for name, value in case.variables.items()})
        without = {name: value for name, value in variables.items() if value or name not in case.variables}
        user = NOBODY if case.as_nobody else None
        cases.append({"program": program, "arguments": arguments, "environment": without, "user": user})
    ran = subprocess.run(
        [sys.executable, "-m", "tests.forked_commands"],
        input=json.dumps(cases),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=900,
        check=True,
    )
    return [Ended(**one) for one in json.loads(ran.stdout)]


@pytest.mark.slow(seconds=22)
@pytest.mark.timeout(1000)  # of the first, which waits for all
@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[case.id for case in MISTAKES])
def test_a_mistake_ends_with_a_sentence_and_its_exit_code(
    number: int, ended: list[Ended], words: dict[str, str]
) -> None:
    case, found = MISTAKES[number], ended[number]
    if case.as_nobody and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", found.stderr).split())
    assert found.code == case.code, found.stderr
    assert " ".join(case.says.format(**words).split()) in said
    assert found.stdout == "" or found.code == C.CONFIGURATION, "what failed shows nothing as if it were a result"
    for raw in ("Traceback", "[Errno", "body.action", "query.", "Error:", "Exception", "<class"):
        assert raw not in said


# By the same code as another command, which has its case: `mesh get`, `mesh inspect overview`, `mesh generate ...`.
LIKE_ANOTHER = {
    "mesh export",
    "mesh inspect policies",
    "mesh inspect config",
    "mesh inspect stats",
    "mesh inspect access",
    "mesh generate admin-token",
    "mesh generate admin-certificate",
}


def test_every_command_has_a_mistake() -> None:
    """A new command gets a case here."""
    tried = [f"{case.line} " for case in MISTAKES]
    for name, app in (("offload", offload.cli.app), ("mesh", control.cli.app)):
        for path in {f"{name} {path}" for path in commands(app)} - LIKE_ANOTHER:
            assert any(line.startswith(f"{path} ") for line in tried), path
