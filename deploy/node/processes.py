"""Child processes with a log file each: started, waited for, and always ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

TAIL_LINES = 25


class NodeError(RuntimeError):
    """A part of the node does not start or ended by itself; the message has the end of its log and its path."""


class Process:
    """A running child. `name` is for people; output goes to `<folder>/<name>.log`."""

    def __init__(
        self, name: str, line: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        program = shutil.which(line[0])
        if program is None:
            raise NodeError(f"{name} cannot be started: there is no program {line[0]}")
        with self.log.open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    [*_dies_with_us(), program, *(str(part) for part in line[1:])],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                    # In a separate session: Ctrl-C reaches only us, and we end the children in order.
                    start_new_session=True,
                )
            except OSError as error:
                raise NodeError(f"{name} cannot be started: {program}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._child.poll()

    def running(self) -> bool:
        return self.status is None

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """Polls until `ready`; NodeError if the process ends before or time is up."""
        end = time.monotonic() + seconds
        while not ready():
            if not self.running():
                raise NodeError(f"{self.name} ended with status {self._child.returncode} before {what}.\n{self.tail()}")
            if time.monotonic() > end:
                raise NodeError(f"{self.name}: not {what} after {seconds:.0f} s.\n{self.tail()}")
            time.sleep(0.02)

    def tail(self) -> str:
        """The end of the log, and the path of the whole."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        shown = "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:]) or "  | (nothing was written)"
        return f"{shown}\n  whole log: {self.log}"

    def stop(self, seconds: float = 10) -> None:
        """Sends SIGTERM, then SIGKILL if that does not end it in time."""
        if self.running():
            self._child.terminate()
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                self._child.send_signal(signal.SIGKILL)
        self._child.wait()

    def kill(self) -> None:
        """Sends SIGKILL: it has no time for anything."""
        self._child.kill()
        self._child.wait()


def _dies_with_us() -> list[str]:
    """A prefix that makes the kernel end the child if we are killed and cannot do it ourselves.

    setpriv requests the signal; a parent killed before that sends none, so the child checks who its parent is by then.
    Both exec the next program, so the pid stays.
    """
    setpriv = shutil.which("setpriv")  # of util-linux
    still_ours = f'[ "$PPID" = {os.getpid()} ] && exec "$@"'
    return [setpriv, "--pdeathsig", "TERM", "sh", "-c", still_ours, "sh"] if setpriv else []


class Processes:
    """Ends the processes started in it, the latest first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []

    def start(self, name: str, line: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Process:
        process = Process(name, line, self.folder, environment)
        self.started.append(process)
        return process

    def stop(self, process: Process) -> None:
        process.stop()
        self.started.remove(process)

    def kill(self, process: Process) -> None:
        process.kill()
        self.started.remove(process)

    def check(self) -> None:
        """NodeError if one of them ended by itself."""
        for process in self.started:
            if not process.running():
                raise NodeError(f"{process.name} ended by itself.\n{process.tail()}")

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.started):
            process.stop()
        self.started.clear()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets SIGTERM end the program as Ctrl-C does, so that the children are ended too."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
