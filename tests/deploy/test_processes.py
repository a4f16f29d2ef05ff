from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.node.processes import NodeError, Process, Processes, interruptible


def alive(pid: int) -> bool:
    """Whether it runs; what has ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_all_are_ended_the_latest_first(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        started = [processes.start(f"sleeper{number}", ["sleep", "60"]) for number in range(3)]
        assert all(process.running() for process in started)
    assert not any(alive(process.pid) for process in started)


def test_all_are_ended_after_an_error(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    process = processes.start("sleeper", ["sleep", "60"])
    with pytest.raises(NodeError, match="brief"), processes:
        processes.start("brief", ["true"]).wait_until(lambda: False, "ready")
    assert not process.running()


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = Process("stubborn", ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"], tmp_path)
    process.wait_until(lambda: "deaf" in process.log.read_text(), "deaf")
    process.stop(seconds=0.3)
    assert not process.running()


def test_an_early_end_is_reported_with_the_log(tmp_path: Path) -> None:
    process = Process("brief", ["sh", "-c", "echo the reason; exit 7"], tmp_path)
    with pytest.raises(NodeError, match="brief ended with status 7") as caught:
        process.wait_until(lambda: False, "ready")
    assert "the reason" in str(caught.value)
    assert str(process.log) in str(caught.value)


def test_waiting_has_a_bound(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        process = processes.start("sleeper", ["sleep", "60"])
        with pytest.raises(NodeError, match=r"sleeper: not ready after 0 s"):
            process.wait_until(lambda: False, "ready", seconds=0.1)


def test_a_program_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="there is no program /nowhere/program"):
        Process("nothing", ["/nowhere/program"], tmp_path)


def test_children_end_when_we_are_killed(tmp_path: Path) -> None:
    child = _child_of_one_that_is_killed(tmp_path, lambda pid: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    assert _ends(child)


def test_children_end_when_we_are_killed_at_once(tmp_path: Path) -> None:
    """Killed before setpriv has asked for a signal at our end, so that none comes."""
    setpriv, killed = tmp_path / "setpriv", tmp_path / "killed"
    setpriv.write_text(
        f'#!/bin/sh\nwhile [ ! -e {killed} ]; do sleep 0.01; done\nexec {shutil.which("setpriv")} "$@"\n'
    )
    setpriv.chmod(0o755)
    child = _child_of_one_that_is_killed(tmp_path, alive, PATH=f"{tmp_path}:{os.environ['PATH']}")
    killed.touch()
    assert _ends(child)


def _child_of_one_that_is_killed(folder: Path, kill_when: Callable[[int], bool], **environment: str) -> int:
    script = (
        "import pathlib, sys, time\n"
        "from deploy.node.processes import Process\n"
        "print(Process('sleeper', ['sleep', '60'], pathlib.Path(sys.argv[1])).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    line, env = [sys.executable, "-c", script, str(folder)], os.environ | environment
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        while not kill_when(child):
            assert alive(child)
            time.sleep(0.01)
        parent.kill()
    return child


def _ends(pid: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_check_names_what_ended(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        process = processes.start("brief", ["true"])
        process._child.wait()
        with pytest.raises(NodeError, match="brief ended by itself"):
            processes.check()


def test_sigterm_ends_the_program_in_order() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
