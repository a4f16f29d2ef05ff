"""Runs many commands, each in a process of its own that has `offload` and `mesh` loaded already.

Standard input: a JSON list of {"program", "arguments", "environment", "user"}; a user is a number, or null for ours.
Standard output: a list of {"code", "stdout", "stderr"}.
Loading the programs takes most of the time of a command that fails; here it is done once, and then forked.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import control.cli
import control.cli.probe
import control.servers.process
import offload.cli
import offload.daemon.lifecycle

MAIN = {"offload": offload.cli.main, "mesh": control.cli.main}


def start(number: int, case: dict[str, Any], folder: Path) -> int:
    """The process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    streams: tuple[tuple[str | Path, int], ...] = (
        (os.devnull, os.O_RDONLY),
        (folder / f"{number}.out", os.O_WRONLY),
        (folder / f"{number}.err", os.O_WRONLY),
    )
    for descriptor, (path, flags) in enumerate(streams):
        os.dup2(os.open(path, flags | os.O_CREAT, 0o600), descriptor)
    if case["user"] is not None and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(case["user"], case["user"], case["user"])
        os.setresuid(case["user"], case["user"], case["user"])
    os.environ.clear()
    os.environ.update(case["environment"])
    sys.argv = [case["program"], *case["arguments"]]
    code = 1
    try:
        MAIN[case["program"]]()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(cases: list[dict[str, Any]], at_once: int, patience: float, folder: Path) -> list[dict[str, Any]]:
    codes: dict[int, int] = {}
    running: dict[int, tuple[int, float]] = {}
    waiting = list(enumerate(cases))
    while waiting or running:
        while waiting and len(running) < at_once:
            number, case = waiting.pop(0)
            running[start(number, case, folder)] = (number, time.monotonic())
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            number, _ = running.pop(ended)
            codes[number] = os.waitstatus_to_exitcode(status)
        for child, (_, began) in running.items():
            if time.monotonic() > began + patience:
                os.killpg(child, signal.SIGKILL)
        time.sleep(0 if ended else 0.02)
    texts = [[(folder / f"{n}.{s}").read_text(errors="replace") for s in ("out", "err")] for n in range(len(cases))]
    return [{"code": codes[n], "stdout": out, "stderr": err} for n, (out, err) in enumerate(texts)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(run(json.load(sys.stdin), 3, 60, Path(scratch))))
