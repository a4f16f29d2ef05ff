"""python -m benchmarks.control --json FILE: many proxies at one control plane, real gRPC over TLS, on this machine.

Measured for 100 and for 1,000 proxies over 200 services: the time until all have their first configuration; the time
from one changed endpoint to the last acknowledgement among the affected proxies (all of them); the control plane's
memory per proxy; and the time until all have everything again after they all reconnect at once. Each time comes with
the control plane's CPU time, which depends less on other load: the proxies compete for the same two cores.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.control.mesh import SHARED, Mesh, cluster_name
from deploy import output_paths
from deploy.load.usage import process_cpu_ns
from deploy.node.processes import NodeError, Processes, interruptible

T = TypeVar("T")

SIZES = (100, 1000)
SERVICES = 200
CHANGES = 3
TARGETS = {"change_s": 2.0, "memory_kb_per_proxy": 300.0, "reconnect_s": 30.0}

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


class ControlPlane:
    """`mesh serve` as a process, and its API."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        data = folder / "data"
        line: list[str | Path] = [sys.executable, "-c", "from control.cli import main; main()", "serve", "--data", data]
        line += ["--api", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--nodes", "127.0.0.1:0", "--name", "127.0.0.1"]
        self.process = processes.start("mesh", line)
        self.process.wait_until(lambda: "serving" in self._log(), "serving", 60)
        self.ca = data / "ca.pem"
        self.xds, api = (self._address(name) for name in ("xds", "api"))
        token = (data / "admin.token").read_text().strip()
        self.api = httpx.Client(
            trust_env=False,
            base_url=f"https://{api}",
            verify=str(self.ca),
            headers={"authorization": f"Bearer {token}"},
            timeout=120,
        )

    def _log(self) -> str:
        return self.process.log.read_text(errors="replace")

    def _address(self, name: str) -> str:
        words = next(line for line in self._log().splitlines() if "serving" in line).split()
        return next(word.split("=", 1)[1] for word in words if word.startswith(f"{name}="))

    def memory_kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def timed(self, act: Callable[[], T]) -> tuple[T, float]:
        """Returns the result, and the control plane's CPU time meanwhile."""
        before = process_cpu_ns(self.process.pid)
        return act(), (process_cpu_ns(self.process.pid) - before) / 1e9

    def apply(self, document: dict[str, Any]) -> None:
        kinds = {"MeshIdentity": "meshidentities", "MeshOffload": "meshoffloads", "MeshService": "meshservices"}
        kinds |= {"Dataplane": "dataplanes"}
        name = document["name"]
        path = f"/meshes/{name}" if document["type"] == "Mesh" else f"/meshes/default/{kinds[document['type']]}/{name}"
        answer = self.api.put(path, json=document)
        if answer.is_error:
            raise NodeError(f"PUT {path}: {answer.status_code} {answer.text[:500]}")

    def dataplane_token(self) -> str:
        answer = self.api.post("/tokens/dataplane", json={"mesh": "default", "validFor": "1h"})
        if answer.is_error:
            raise NodeError(f"no dataplane token: {answer.status_code} {answer.text[:500]}")
        return str(answer.json()["token"])


class Simulation:
    """The process that simulates the proxies."""

    def __init__(self, mesh: Mesh, control_plane: ControlPlane, processes: Processes) -> None:
        self._processes = processes
        line = [sys.executable, "-m", "benchmarks.control.proxies", "--target", control_plane.xds]
        line += ["--ca", str(control_plane.ca), "--proxies", str(mesh.proxies), "--services", str(mesh.services)]
        self._child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(control_plane.dataplane_token())

    def _say(self, line: str) -> None:
        if self._child.stdin is None:
            raise NodeError("the simulated proxies have no input")
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def do(self, action: str, **more: Any) -> dict[str, Any]:
        self._say(json.dumps({"do": action} | more))
        output = self._child.stdout
        while output is not None and not select.select([output], [], [], 0.5)[0]:
            self._processes.check()  # the control plane may have ended; nobody would respond then
        answer = output.readline() if output is not None else ""
        if not answer:
            raise NodeError(f"the simulated proxies ended in '{action}' (status {self._child.wait(10)})")
        found: dict[str, Any] = json.loads(answer)
        return found

    def end(self) -> None:
        self._child.kill()
        self._child.wait()


def measure(size: int, services: int, folder: Path) -> dict[str, float]:
    mesh = Mesh(size, min(services, size))
    with Processes(folder) as processes:
        control_plane = ControlPlane(processes, folder)
        for number, document in enumerate(mesh.documents()):
            control_plane.apply(document)
            if number % 200 == 199:
                console.print(f"  {number + 1} resources applied", style="dim")
        before = control_plane.memory_kb()
        simulation = Simulation(mesh, control_plane, processes)
        try:
            first, first_cpu = control_plane.timed(lambda: simulation.do("connect"))
            memory = control_plane.memory_kb() - before
            changes = [
                control_plane.timed(partial(change, mesh, control_plane, simulation, number))
                for number in range(CHANGES)
            ]
            # All at once, by processes without any state: as after a power cut.
            simulation.end()
            simulation = Simulation(mesh, control_plane, processes)
            again, again_cpu = control_plane.timed(lambda: simulation.do("connect"))
        finally:
            simulation.end()
    return {
        "proxies": size,
        "services": mesh.services,
        "connect_s": round(first["seconds"], 2),
        "connect_cpu_s": round(first_cpu, 2),
        "change_s": round(median(seconds for seconds, _ in changes), 2),
        "change_cpu_s": round(median(cpu for _, cpu in changes), 2),
        "memory_kb_per_proxy": round(memory / size, 1),
        "reconnect_s": round(again["seconds"], 2),
        "reconnect_cpu_s": round(again_cpu, 2),
        "broken_connections": again["reconnects"],
    }


def change(mesh: Mesh, control_plane: ControlPlane, simulation: Simulation, number: int) -> float:
    """Seconds from a new address of one member of the shared service to the last acknowledgement."""
    member = next(proxy for proxy in range(mesh.proxies) if mesh.service_of(proxy) == SHARED)
    began = time.time()
    control_plane.apply(mesh.dataplane(member, f"10.255.0.{number + 1}"))
    answer = simulation.do("await", cluster=cluster_name(SHARED), since=began)
    if answer["updated"] != mesh.proxies:
        raise NodeError(f"only {answer['updated']} proxies were concerned")
    return float(answer["last"]) - began


def show(found: Sequence[dict[str, float]]) -> None:
    table = Table(title="The control plane under many proxies (in brackets: its CPU time)", title_justify="left")
    columns = ("proxies", "services", "first connect", "one change", "memory each", "all again at once")
    for column in columns:
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(
            f"{one['proxies']:,.0f}",
            f"{one['services']:,.0f}",
            f"{one['connect_s']:.1f} s ({one['connect_cpu_s']:.1f})",
            f"{one['change_s']:.2f} s ({one['change_cpu_s']:.2f})",
            f"{one['memory_kb_per_proxy']:.0f} kB",
            f"{one['reconnect_s']:.1f} s ({one['reconnect_cpu_s']:.1f})",
        )
    table.add_row(
        "goal",
        "",
        "",
        f"{TARGETS['change_s']:g} s",
        f"{TARGETS['memory_kb_per_proxy']:g} kB",
        f"{TARGETS['reconnect_s']:g} s",
    )
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=output_paths.file, metavar="FILE", help="write the figures here too")
    parser.add_argument("--proxies", type=int, action="append", help=f"how many; may be repeated {list(SIZES)}")
    parser.add_argument("--services", type=int, default=SERVICES, help=f"[{SERVICES}]")
    options = parser.parse_args()
    found = []
    try:
        with interruptible():
            for size in options.proxies or SIZES:
                console.print(f"{size:,} proxies")
                with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
                    found.append(measure(size, options.services, Path(folder)))
    except NodeError as error:
        console.print(f"[bold red]the measurement failed:[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    show(found)
    if options.json:
        data = {"runs": found, "targets": TARGETS, "machine": machine.machine()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
