"""Attacks on the data plane by a user without identity, and what they do to a victim that has one, and to the daemon.

The victim is `keyload`: signatures with P-256 at a fixed rate over one connection, as a sidecar with some new
connections a second asks for. The attacker is a process of another uid (tests/faults/attackers.py). What is measured,
before, during and after: the victim's times, and the daemon's resident memory.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hyperframe.frame import SettingsFrame

from deploy.load import tools
from tests.faults.attackers import ATTACKS
from tests.offload.daemon_process import ROOT, DaemonProcess, environment
from tests.offload.dataplane.raw_http2 import PREFACE
from tests.offload.key_files import Authority, make_key, write_pair

STRANGER = 64999  # a uid that nobody has
RATE = 300  # the victim's signatures a second
CONNECT_S = 0.3  # in which the victim's connection is made, before what is measured
NEWCOMERS_EVERY_S = 0.05
RETRY_S = 0.1  # as the Envoy module
MEMORY_GROWTH_MIB = 64  # the goal of an attack's end, and during it


@dataclass(frozen=True)
class Seen:
    """Of the victim, in one phase; of the daemon, the most in it."""

    operations: int
    failed: int
    p50_ms: float
    p99_ms: float
    memory_mib: float
    connect_ms: float  # the longest of new connections of the victim's user, until the daemon's first frame


@dataclass(frozen=True)
class Measured:
    kind: str
    before: Seen
    during: Seen
    after: Seen
    attacker: dict[str, int]
    refusals: dict[str, int]  # by reason, of the attack

    @property
    def what(self) -> str:
        return ATTACKS[self.kind].what

    @property
    def grown_mib(self) -> float:
        return max(self.during.memory_mib, self.after.memory_mib) - self.before.memory_mib


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


@contextmanager
def highest_memory(pid: int) -> Iterator[list[float]]:
    """The list has one number: the most that was seen so far."""
    highest, stop = [resident_mib(pid)], threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            highest[0] = max(highest[0], resident_mib(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield highest
    finally:
        stop.set()
        thread.join()


@contextmanager
def newcomers(path: Path) -> Iterator[list[float]]:
    """New connections of our user all the time, as sidecars that start; the milliseconds that each took."""
    took, stop = list[float](), threading.Event()

    def come() -> None:
        while not stop.wait(NEWCOMERS_EVERY_S):
            began = time.monotonic()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as one:
                while one.connect_ex(str(path)) == errno.EAGAIN and not stop.is_set():
                    time.sleep(RETRY_S)  # the queue of the listener is full
                if stop.is_set():  # it did not get in until the end, and would have taken longer
                    took.append(1000 * (time.monotonic() - began))
                    return
                one.setblocking(True)
                one.settimeout(30)
                one.sendall(PREFACE + SettingsFrame(0).serialize())
                assert one.recv(9)[3] == SettingsFrame.type, "the daemon refused one that has an identity"
            took.append(1000 * (time.monotonic() - began))

    thread = threading.Thread(target=come)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


@contextmanager
def attacker_process(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Once it has begun, which it says in a line; its output is what is left."""
    line = [sys.executable, "-m", module, *map(str, arguments)]
    attacker = subprocess.Popen(line, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "begins\n"
        yield attacker
    finally:
        if attacker.poll() is None:
            attacker.kill()
        attacker.wait()


class Victim:
    """A daemon with one identity, which only our user may use, and somebody who does."""

    def __init__(self, folder: Path) -> None:
        self.daemon = DaemonProcess(folder)
        key = make_key("p256")
        write_pair(folder / "keys", "www", key, Authority.make("attacked").issue(key, "www"))
        self.certificate = folder / "keys" / "www.crt"
        whoever_may_connect = {"path": str(self.daemon.socket), "mode": "0666"}
        self.daemon.configure(
            sockets={"main": whoever_may_connect},
            identities={"www": {"selectors": [{"uid": os.geteuid()}]}},
        )

    def signs(self, seconds: float) -> Seen:
        """Times of signatures are those of a connection that is there; how long one takes is a figure of its own."""
        with highest_memory(self.daemon.pid) as memory, newcomers(self.daemon.socket) as connecting:
            result = tools.keyload(
                socket=self.daemon.socket,
                certificate=self.certificate,
                rate=RATE,
                warmup=int(RATE * CONNECT_S),
                duration=seconds + CONNECT_S,
                connections=1,
            )
        latency = result["latency_ms"]
        figures = latency["p50"], latency["p99"], memory[0], max(connecting)
        return Seen(result["operations"], result["failures"], *figures)

    def refusals(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://{self.daemon.metrics_address()}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        found = {}
        for line in lines:
            if line.startswith("offload_refusals_total{"):
                reason = line.partition('reason="')[2].partition('"')[0]
                found[reason] = int(float(line.rpartition(" ")[2]))
        return found

    def measure(self, kind: str, seconds: float) -> Measured:
        refused = self.refusals()
        before = self.signs(seconds)
        with self.attacked(kind, seconds) as attacker:
            during = self.signs(seconds)
            output = attacker.communicate(timeout=60 + seconds)[0]
        assert attacker.returncode == 0, f"the attacker {kind} ended with {attacker.returncode}"
        after = self.signs(seconds)
        more = {r: n - refused.get(r, 0) for r, n in self.refusals().items() if n > refused.get(r, 0)}
        return Measured(kind, before, during, after, json.loads(output), more)

    @contextmanager
    def attacked(self, kind: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
        """Begins when the attacker begins, which makes its frames first."""
        ends = self.daemon.socket, self.daemon.metrics_address()
        with attacker_process("tests.faults.attackers", kind, *ends, STRANGER, seconds + CONNECT_S + 0.5) as attacker:
            yield attacker


@contextmanager
def victim(folder: Path) -> Iterator[Victim]:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    made = Victim(folder)
    made.daemon.start()
    try:
        made.signs(0.5)  # what is allocated once is allocated
        yield made
        assert made.daemon.stop() == 0, "the daemon ends properly"
    finally:
        made.daemon.stop()


def median(seen: Sequence[Seen]) -> Seen:
    """Of the times; of memory and connecting the most."""
    return Seen(
        sum(one.operations for one in seen),
        sum(one.failed for one in seen),
        statistics.median(one.p50_ms for one in seen),
        statistics.median(one.p99_ms for one in seen),
        max(one.memory_mib for one in seen),
        max(one.connect_ms for one in seen),
    )


def measured_in_turn(folder: Path, rounds: int, seconds: float, kinds: Sequence[str]) -> dict[str, list[Measured]]:
    """Each attack on a daemon of its own, and all of them again: what else the host does falls on all alike."""
    found: dict[str, list[Measured]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind in kinds:
            with victim(folder / f"{kind}-{number}") as attacked:
                found[kind].append(attacked.measure(kind, seconds))
    return found


HEAD = """
## Attacks by a user without identity

Another user of the node can connect, but no selector matches it. It attacks the daemon while a sidecar that has an
identity signs with P-256, {rate} times a second over one connection. Each row shows medians of {rounds} rounds of
{seconds:g} s before, during and after the attack, with a fresh daemon for each round, in turn with the other rows.
*Connect* is the longest time that a new connection of the sidecar's user took, of twenty a second; *memory* is the
largest resident size. The scenarios are in [tests/faults/attackers.py](../../tests/faults/attackers.py). `make test`
runs them briefly, and asserts that the victim is served and that memory stays bounded (by {memory} MiB more), but no
times. The goal is a p99 of at most three times the p99 without the attack.

The first row is no attack: it shows what a process that only computes does to the victim on this host. Attacker,
victim and daemon share its cores, so no row can be better than that one. Without any attack, p99 was between
{low:.1f} and {high:.1f} ms, depending on what else the host did (load average {load:.0f} on {cores} cores): smaller
differences mean nothing.

| attack | p50 before, during, after | p99 before, during, after | of a busy process | connect | memory | refused |
|---|---|---|---|---|---|---|
"""


def times(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values) + " ms"


def table(found: Mapping[str, Sequence[Measured]], seconds: float) -> str:
    """The section for docs/operations/faults.md."""
    rounds = len(next(iter(found.values())))
    quiet = [run.before.p99_ms for runs in found.values() for run in runs]
    text = HEAD.format(
        rate=RATE,
        rounds=rounds,
        seconds=seconds,
        memory=MEMORY_GROWTH_MIB,
        low=min(quiet),
        high=max(quiet),
        load=os.getloadavg()[0],
        cores=os.cpu_count(),
    )
    busy = median([one.during for one in found["busy"]]).p99_ms if "busy" in found else None
    for kind, runs in found.items():
        phases = [median([getattr(run, phase) for run in runs]) for phase in ("before", "during", "after")]
        beside = "" if busy is None or kind == "busy" else f"{phases[1].p99_ms / busy:.1f} x"
        memory = " / ".join(f"{phase.memory_mib:.0f}" for phase in phases) + " MiB"
        reasons = sorted({reason for run in runs for reason in run.refusals})
        refused = ", ".join(f"`{r}` {sum(run.refusals.get(r, 0) for run in runs):,}" for r in reasons)
        cells = (
            ATTACKS[kind].what,
            times([phase.p50_ms for phase in phases]),
            times([phase.p99_ms for phase in phases]),
            beside,
            f"{phases[0].connect_ms:.0f} / {phases[1].connect_ms:.0f} / {phases[2].connect_ms:.0f} ms",
            memory,
            refused,
        )
        text += f"| {' | '.join(cells)} |\n"
    return text
