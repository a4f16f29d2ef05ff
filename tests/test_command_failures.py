"""Every command's failure is a sentence that says what to do, and its exit code is the documented one.

All mistakes are made first, each by a process of its own; each case then looks at what came of its.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer

import control.cli
import offload.cli
from deploy.demo.__main__ import MARK, empty, output_folder
from offload.reporting import exit_codes, failure
from tests.control.mesh_process import ControlPlane
from tests.offload.daemon_process import ROOT, environment, folder_of_root

OFFLOAD = [sys.executable, "-m", "offload"]
MESH = [sys.executable, "-c", "from control.cli import main; main()"]

C = exit_codes
NOBODY = pwd.getpwnam("nobody").pw_uid


@dataclass(frozen=True)
class Case:
    # {folder}: where the files below are; {public}: where others get to; {api}, {xds}: ports of the control plane;
    # {taken}: a taken port.
    line: str
    code: int
    says: str
    variables: Mapping[str, str] = field(default_factory=dict)
    as_nobody: bool = False  # needs root

    @property
    def id(self) -> str:
        return self.line.replace("{folder}/", "").replace("{public}/", "")


NO_CA = {"MESH_DATA": "{folder}/empty", "MESH_CA": ""}
MISTAKES = [
    Case("offload nonsense", C.USAGE, "No such command"),
    Case("offload serve -c {folder}/none.yaml", C.CONFIGURATION, "none.yaml: cannot be read: No such file"),
    Case("offload serve -c {folder}", C.CONFIGURATION, "cannot be read: Is a directory"),
    Case("offload serve -c {folder}/bad.yaml", C.CONFIGURATION, "bad.yaml:2: is not YAML"),
    Case("offload serve -c {folder}/unknown.yaml", C.CONFIGURATION, "unknown.yaml:1: metrik: unknown field"),
    Case("offload serve -c {folder}/taken.yaml", C.CONFIGURATION, "Address already in use"),
    Case("offload serve -c {folder}/nowhere.yaml", C.CONFIGURATION, "cannot create the folder /proc/nowhere"),
    Case("offload serve", C.CONFIGURATION, "OFFLOAD_DATA_PLANE__SHARDS", {"OFFLOAD_DATA_PLANE__SHARDS": "x"}),
    Case("offload check-config -c {folder}/none.yaml", C.CONFIGURATION, "No such file or directory"),
    Case("offload check-config -c {folder}", C.CONFIGURATION, "Is a directory"),
    Case("offload check-config -c {folder}/bad.yaml", C.CONFIGURATION, "bad.yaml:2: is not YAML"),
    Case("offload check-config -c {folder}/unknown.yaml", C.CONFIGURATION, "unknown field"),
    # With a socket of its own: the daemon of the case above may serve the configured one for a moment.
    Case(
        "offload check-config -c {folder}/taken.yaml",
        C.CONFIGURATION,
        "it will not start: metrics.address",
        {"OFFLOAD_SOCKETS__MAIN__PATH": "{folder}/tc.sock"},
    ),
    Case("offload check-config --user no-such-user", C.USAGE, "there is no user 'no-such-user'"),
    Case("offload keys list --admin-socket {folder}/none", C.UNAVAILABLE, "the socket does not exist"),
    Case("offload status --admin-socket {folder}/none", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload status --admin-socket {folder}", C.UNAVAILABLE, "it is not a socket"),
    Case(
        "offload status --admin-socket {folder}/nobody.sock",
        C.UNAVAILABLE,
        "the socket exists, but nothing listens on it",
    ),
    Case(
        "offload status --admin-socket {public}/closed.sock",
        C.UNAVAILABLE,
        "you are not permitted to connect; user 'root' and members of group 'daemon' may do that; become one of them",
        as_nobody=True,
    ),
    Case(
        "offload sign -i www --socket {public}/locked/a.sock --input /dev/null",
        C.UNAVAILABLE,
        "you have no access to the folder {public}/locked; user 'root' may do that; become one of them",
        as_nobody=True,
    ),
    Case("offload status --interval fast", C.USAGE, "'--interval'"),
    Case("offload status --watch --interval 0", C.USAGE, "'--interval'"),
    Case("offload reload --admin-socket {folder}/none", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload drain --admin-socket {folder}/none", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload log-level loud", C.USAGE, "'loud' is not one of"),
    Case("offload log-level info --admin-socket {folder}/none", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload sign -i www --socket {folder}/x --input {folder}/binary", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload sign -i www --input {folder}/none", C.USAGE, "none cannot be read: No such file"),
    Case("offload sign -i www --input {folder}", C.USAGE, "cannot be read: Is a directory"),
    Case("offload sign", C.USAGE, "give either --identity or --key-id"),
    Case("offload envoy-config", C.USAGE, "Missing option '--identity'"),
    Case("offload envoy-config -i www --upstream localhost", C.USAGE, "--upstream must be a host and a port"),
    Case("offload envoy-config -i www --listen here", C.USAGE, "--listen must be an IP address and a port"),
    Case("offload envoy-config -i www --connect-to a:1", C.USAGE, "name the accepted servers"),
    Case("offload bench --rounds 0", C.USAGE, "'--rounds'"),
    Case("offload bench --algorithm md5", C.USAGE, "'md5' is not one of"),
    Case("mesh nonsense", C.USAGE, "No such command"),
    Case("mesh apply -f {folder}/none.yaml", C.FAILED, "none.yaml: no such file or folder"),
    Case("mesh apply -f {folder}", C.FAILED, "it is a folder; a file is expected"),
    Case("mesh apply -f {folder}/bad.yaml", C.FAILED, "bad.yaml"),
    Case("mesh validate -f {folder}/unknown.yaml", C.FAILED, "type"),
    Case("mesh validate -f {folder}/binary", C.FAILED, "binary"),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "copy ca.pem of its data folder here and set MESH_CA", NO_CA),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "contains no certificates", {"MESH_CA": "{folder}/bad.yaml"}),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "does not answer", {"MESH_CA": "{folder}/other-ca.pem"}),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "does not answer", {"MESH_API": "https://127.0.0.1:{closed}"}),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "does not answer", {"MESH_API": "garbage"}),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "cannot be read from", {"MESH_TOKEN_FILE": "{folder}/none"}),
    Case("mesh get meshes", C.FAILED, "token", {"MESH_TOKEN": "nonsense"}),
    Case("mesh get nonsense", C.USAGE, "there are no nonsense; there are"),
    Case("mesh get dp -m nope", C.FAILED, "there is no Mesh 'nope'"),
    Case("mesh get dp nope", C.FAILED, "nope"),
    Case("mesh delete dp nope", C.FAILED, "nope"),
    Case("mesh inspect overview nope", C.FAILED, "there is no Dataplane 'nope'"),
    Case("mesh inspect waiting -m nope", C.FAILED, "there is no Mesh 'nope'"),
    Case("mesh ca rotate identity sideways", C.USAGE, "'sideways' is not one of"),
    Case("mesh ca status nope", C.FAILED, "nope"),
    Case("mesh generate dataplane-token --label x", C.USAGE, "'x' is not key=value"),
    Case("mesh generate dataplane-token -m nope --name a", C.FAILED, "nope"),
    Case("mesh generate node-token --name a --valid-for soon", C.FAILED, "validFor"),
    Case("mesh revoke", C.USAGE, "Missing argument"),
    Case("mesh revoke blah", C.FAILED, "'blah' is neither a token nor the id of one"),
    Case("mesh generate node-token", C.USAGE, "Missing option '--name'"),
    Case("mesh restore {folder}/none --replace --data {folder}/empty", C.FAILED, "there is no backup at"),
    Case("mesh serve --api nowhere:x", C.USAGE, "use host:port"),
    Case("mesh serve --zone BAD", C.USAGE, "--zone"),
    Case("mesh serve --data {folder}/bad.yaml/x", C.CONFIGURATION, "a part of its path is a file"),
    Case(
        "mesh serve --data {folder}/new --api 127.0.0.1:{api} --xds 127.0.0.1:0 --nodes 127.0.0.1:0",
        C.CONFIGURATION,
        "the API cannot be served at 127.0.0.1:{api}: Address already in use",
    ),
    Case(
        "mesh serve --data {folder}/new2 --api 127.0.0.1:0 --xds 127.0.0.1:{xds} --nodes 127.0.0.1:0",
        C.CONFIGURATION,
        "xDS cannot be served at 127.0.0.1:{xds}: Address already in use",
    ),
    Case(
        "mesh serve --data {folder}/new3 --api 127.0.0.1:0 --xds 127.0.0.1:0 --nodes 127.0.0.1:{taken}",
        C.CONFIGURATION,
        "nodes cannot be served at 127.0.0.1:{taken}: Address already in use",
    ),
    Case("mesh backup {folder}/bad.yaml", C.FAILED, "bad.yaml"),
    Case("mesh restore {folder}/none --data {folder}/empty", C.FAILED, "none"),
    Case(
        "mesh dataplane bootstrap --name a --token-file {folder}/none --ca-file {ca}",
        C.FAILED,
        "none: no such file",
    ),
    Case(
        "mesh dataplane run --name a --token-file {folder}/none --ca-file {ca} --envoy true", C.FAILED, "no such file"
    ),
    Case(
        "mesh dataplane run --name a --token-file {folder}/empty-file --ca-file {ca} --envoy true",
        C.USAGE,
        "there is no token in",
    ),
    Case(
        "mesh dataplane run --name a --token-file {token} --ca-file {ca} --envoy /none",
        C.CONFIGURATION,
        "there is no Envoy",
    ),
]

RUN = "mesh dataplane run --name a --envoy true --token-file {token} --runtime-folder {folder}/run "
MISTAKES += [
    Case(
        RUN + "--ca-file {folder}/other-ca.pem --control-plane 127.0.0.1:{xds}",
        C.MESH_UNREACHABLE,
        "not issued by this CA",
    ),
    Case(
        RUN + "--ca-file {folder}/bad.yaml --control-plane 127.0.0.1:{xds}", C.MESH_UNREACHABLE, "holds no certificates"
    ),
    Case(RUN + "--ca-file {ca} --control-plane 127.0.0.1:{api}", C.MESH_UNREACHABLE, "is not an xDS port"),
    Case(RUN + "--ca-file {ca} --control-plane 127.0.0.1:{taken}", C.OK, "nothing answers at"),
    Case(RUN + "--ca-file {ca} --control-plane 127.0.0.1:{closed}", C.OK, "connection refused"),
    Case(
        RUN + "--ca-file {ca} --control-plane nowhere.invalid:{xds}", C.OK, "there is no host named 'nowhere.invalid'"
    ),
    Case(RUN + "--ca-file {ca} --control-plane 127.0.0.2:{xds}", C.MESH_UNREACHABLE, "no certificate for '127.0.0.2'"),
    Case(
        RUN + "--ca-file {ca} --control-plane 127.0.0.1:{xds}", C.FAILED, "there is no Dataplane 'a' in mesh 'default'"
    ),
    Case(RUN + "--ca-file {ca} --control-plane here:x", C.USAGE, "use host:port"),
    Case(
        RUN.replace("{folder}/run", "{folder}/" + "r" * 90) + "--ca-file {ca} --control-plane 127.0.0.1:{closed}",
        C.CONFIGURATION,
        "choose a shorter --runtime-folder",
    ),
    Case(
        "mesh dataplane bootstrap --name a --token-file {token} --ca-file {ca} --admin-port 1 --admin-socket x",
        C.USAGE,
        "are mutually exclusive",
    ),
    Case(RUN + "--ca-file {ca} --admin-port 0", C.USAGE, "'--admin-port'"),
]


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


def commands(app: typer.Typer) -> list[str]:
    """Every command of an app, groups before their members."""
    found = [one.name or one.callback.__name__.replace("_", "-") for one in app.registered_commands if one.callback]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found += [f"{group.name} {one}" for one in commands(group.typer_instance)]
    return found


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("deploy.demo --part nope", "invalid choice: 'nope'"),
        ("deploy.demo --output {folder}", "contains files that are not from a demo"),
        ("deploy.demo --output {folder}/bad.yaml", "is not a folder; choose another"),
        ("benchmarks.handshake --json {folder}", "is a folder; a file is expected"),
        ("benchmarks.handshake --report {folder}/bad.yaml", "is a file; a folder is expected"),
        ("benchmarks.overhead --json {folder}/bad.yaml/x", "is a file; a folder is expected"),
        ("benchmarks.records --json /proc/x/y", "is not writable for you"),
    ],
)
def test_demo_and_benchmarks_say_it_before_they_begin(line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").touch()
    words = line.format(folder=tmp_path).split()
    ran = subprocess.run(
        [sys.executable, "-m", *words],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == C.USAGE, ran.stderr
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "bad.yaml").is_file()


def test_the_demo_empties_only_its_own_folder(tmp_path: Path) -> None:
    made = output_folder(str(tmp_path / "demo"))
    empty(made)
    (made / "report.json").touch()
    assert output_folder(str(made)) == made, "an earlier demo's"
    empty(made)
    assert [path.name for path in made.iterdir()] == [MARK]
    (link := tmp_path / "link").symlink_to(made)
    with pytest.raises(ArgumentTypeError, match="is not a folder"):
        output_folder(str(link))


def test_version_and_help_need_no_native_library(tmp_path: Path) -> None:
    (tmp_path / "libnghttp2.so.14").write_text("")
    for arguments in (["--version"], ["--help"], ["serve", "--help"]):
        ran = subprocess.run(
            [*OFFLOAD, *arguments],
            env=environment(LD_LIBRARY_PATH=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (C.OK, "")
    served = subprocess.run(
        [*OFFLOAD, "serve"], env=environment(LD_LIBRARY_PATH=str(tmp_path)), capture_output=True, text=True, check=False
    )
    assert served.returncode == C.CONFIGURATION
    assert "the library libnghttp2.so.14 cannot be loaded" in served.stderr
    assert "Traceback" not in served.stderr


def test_a_library_that_is_not_there_is_named_with_its_package() -> None:
    missing = ImportError("libnghttp2.so.14: cannot open shared object file: No such file or directory")
    assert failure.of_import(missing) == (
        "the library libnghttp2.so.14 cannot be loaded on this host; install it: apt-get install libnghttp2-14"
    )
    assert "pip install" in failure.of_import(ModuleNotFoundError("No module named 'x'", name="x"))


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    for line in ("check-config --reference", "envoy-config -i www", "--help"):
        script = f'{shlex.join(OFFLOAD)} {line} | head -1 > /dev/null; echo "${{PIPESTATUS[0]}}"'
        ran = subprocess.run(
            ["bash", "-c", script], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.stderr == ""
        assert int(ran.stdout) in (C.OK, C.FAILED)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ([*OFFLOAD, "bench", "--algorithm", "rsa4096", "--rounds", "1000"], C.INTERRUPTED),
        ([*OFFLOAD, "sign", "-i", "www"], C.INTERRUPTED),
        ([*MESH, "validate", "-f", "-"], C.INTERRUPTED),
    ],
    ids=["bench", "sign that waits for its input", "validate that waits for its input"],
)
def test_ctrl_c(line: list[str], code: int) -> None:
    running = subprocess.Popen(
        line, env=environment(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(6)  # it is at work by then, and not still being loaded, also on a busy machine
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == code, stderr
    assert b"Traceback" not in stderr


def test_an_unexpected_error_is_a_fault_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    def faulty() -> None:
        raise ZeroDivisionError

    said: list[str] = []
    with pytest.raises(SystemExit) as end:
        failure.ended(faulty, said.append, {})
    assert end.value.code == C.FAULT
    assert "please report it" in said[0]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_commands_named_anywhere_exist() -> None:
    """`mesh x` and `offload x` in backticks: in docs, comments, messages."""
    known = {"offload": set(commands(offload.cli.app)), "mesh": set(commands(control.cli.app))}
    first_words = {name: {path.split()[0] for path in paths} for name, paths in known.items()}
    wrong = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *source_files()]:
        for match in re.finditer(r"`(mesh|offload) ([a-z][a-z-]+)(?: ([a-z][a-z-]+))?", path.read_text()):
            program, first, second = match.groups()
            is_group = first in first_words[program] - known[program]
            if first not in first_words[program] or (is_group and second and f"{first} {second}" not in known[program]):
                wrong.append(f"{path.relative_to(ROOT)}: {match[0]}")
    assert wrong == []


def source_files() -> Iterator[Path]:
    for folder in ("offload", "control", "deploy", "envoy_ext", "benchmarks"):
        for pattern in ("*.py", "*.yaml", "*.service", "*.conf", "*.proto"):
            yield from (ROOT / folder).rglob(pattern)
