"""How commands end: early mistakes, missing libraries, readers that go away, Ctrl-C, faults."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from deploy.demo.__main__ import MARK, empty, output_folder
from offload.reporting import failure
from tests.commands.mistakes import MESH, OFFLOAD, C
from tests.offload.daemon_process import ROOT, environment


@pytest.mark.slow(seconds=2)
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


@pytest.mark.slow(seconds=3)
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


@pytest.mark.slow(seconds=3)
def test_a_reader_that_goes_away_is_no_traceback() -> None:
    for line in ("check-config --reference", "envoy-config -i www", "--help"):
        script = f'{shlex.join(OFFLOAD)} {line} | head -1 > /dev/null; echo "${{PIPESTATUS[0]}}"'
        ran = subprocess.run(
            ["bash", "-c", script], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.stderr == ""
        assert int(ran.stdout) in (C.OK, C.FAILED)


@pytest.mark.slow(seconds=11)
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
