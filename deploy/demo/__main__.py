"""python -m deploy.demo [--keep]: runs the demo; exit status 0 if everything was as expected."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from control.cli.client import ApiError, Unreachable
from deploy import output_paths
from deploy.demo import clients, report, scene, sidecars
from deploy.demo.mesh import parts, show
from deploy.demo.progress import console, step
from deploy.load.tools import LoadToolError
from deploy.node import memory_search
from deploy.node.daemon import Daemon
from deploy.node.envoy import Envoy
from deploy.node.processes import NodeError, Processes, interruptible

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS = 1500  # to each listener

PARTS = ("node", "mesh")

DEFAULT_OUTPUT = ROOT / "build" / "demo"
MARK = ".offload-demo"  # marks a folder that the demo created, and so may empty


def output_folder(text: str) -> Path:
    """A folder for the demo alone: a new one, an empty one, or an earlier demo's."""
    path = Path(text)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"{path} is not a folder; choose another, or remove it")
    is_ours = path.absolute() == DEFAULT_OUTPUT or (path / MARK).is_file()
    if path.is_dir() and not is_ours and any(path.iterdir()):
        raise argparse.ArgumentTypeError(
            f"{path} contains files that are not from a demo, and the demo empties its folder; "
            "choose one that does not exist yet"
        )
    return output_paths.folder(text)


def empty(folder: Path) -> None:
    """Removes what an earlier demo left in its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running and print the URLs; Ctrl-C ends it")
    parser.add_argument("--part", action="append", choices=PARTS, help="run only this part; default: both")
    parser.add_argument("--quick", action="store_true", help="fewer requests in the mesh, for tests")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="new connections to each listener")
    parser.add_argument(
        "--output",
        type=output_folder,
        default=DEFAULT_OUTPUT,
        help="folder for report and logs; that of an earlier demo is emptied",
    )
    parsed = parser.parse_args()
    parsed.part = parsed.part or PARTS
    parsed.keep = parsed.keep or os.environ.get("KEEP", "") not in ("", "0")
    return parsed


def drive_clients(findings: report.Findings, certificates: scene.Certificates, envoy: Envoy, connections: int) -> None:
    ca_file = certificates.authority.ca_file
    with step("real clients: curl (HTTP/1.1, HTTP/2) and openssl s_client (TLS 1.3, 1.2), both listeners") as notes:
        for leaf in certificates.leaves:
            findings.visits += clients.visits(leaf.name, envoy.ports[leaf.name], ca_file)
        good = sum(1 for visit in findings.visits if visit.problem is None)
        notes.append(f"{good} of {len(findings.visits)} as expected")
    for leaf in certificates.leaves:
        with step(f"load: {connections:,} new connections, 50 at a time, {leaf.key_type}") as notes:
            findings.loads[leaf.name] = clients.load(envoy.ports[leaf.name], ca_file, connections)
            load = findings.loads[leaf.name]
            notes.append(f"{load['handshakes']:,} handshakes, {load['failures']} failures")


def search_memory(findings: report.Findings, envoy: Envoy, control: Envoy, ca_file: Path) -> None:
    with step("search of Envoy's memory for the keys") as notes:
        for leaf in findings.leaves:
            findings.searches[leaf.name] = memory_search.search(envoy.pid, memory_search.patterns(leaf.key))
        found = sum(1 for search in findings.searches.values() if search.findings)
        notes.append(f"{found} of {len(findings.leaves)} keys found")
    with step("control: the same search in an Envoy that has the keys") as notes:
        for leaf in findings.leaves:
            visit = clients.curl(leaf.name, control.ports[leaf.name], ca_file, http2=False)
            if visit.problem:
                raise NodeError(f"the control Envoy does not serve: {visit.problem}\n{control.process.tail()}")
            findings.control[leaf.name] = memory_search.search(control.pid, memory_search.patterns(leaf.key))
        found = sum(1 for search in findings.control.values() if search.findings)
        notes.append(f"{found} of {len(findings.leaves)} keys found")


def drive_sidecars(findings: sidecars.SidecarFindings, pair: sidecars.Sidecars) -> None:
    first = dict(pair.leaves)
    for caller, expected in ((sidecars.CALLER, "allowed"), (sidecars.INTRUDER, "denied")):
        with step(
            f"'{caller}' calls '{sidecars.SERVER}' {sidecars.CALLS} times, each through a new mTLS connection"
        ) as notes:
            findings.answers[caller] = pair.call(caller, sidecars.CALLS)
            notes.append(
                f"{expected}: " + ", ".join(f"{n} x {status}" for status, n in findings.answers[caller].items())
            )
    with step(f"{sidecars.ROTATIONS} rotations of keys and certificates while requests go on") as notes:
        sidecars.rotate_under_traffic(pair, findings)
        requests = sum(findings.during_rotation.values())
        notes.append(f"{requests:,} requests, {findings.failed_during_rotation} failed")
    findings.mtls_handshakes, findings.rbac_denied = pair.handshakes(), pair.denied()
    with step("search of both Envoys' memory for the keys of both ends, first and last") as notes:
        last = {f"{name}, renewed": leaf for name, leaf in pair.leaves.items() if leaf is not first[name]}
        findings.keys_in_envoys = pair.search(first | last)
        notes.append(f"{len(findings.keys_in_envoys)} findings")


@dataclass
class NodePart:
    """What keeps running after the first part."""

    envoy: Envoy
    control: Envoy
    daemon: Daemon
    certificates: scene.Certificates
    pair: sidecars.Sidecars

    def print_hints(self) -> None:
        ca_file, leaves = self.certificates.authority.ca_file, self.certificates.leaves
        for leaf in leaves:
            console.print(f"  {leaf.key_type:8} https://localhost:{self.envoy.ports[leaf.name]}/   key at the daemon")
            console.print(f"  {'':8} https://localhost:{self.control.ports[leaf.name]}/   control: key in Envoy")
        for caller in (sidecars.CALLER, sidecars.INTRUDER):
            url = f"http://127.0.0.1:{self.pair.client.ports[caller]}/"
            console.print(f"  mTLS     {url}   as '{caller}', through both sidecars")
        admin = self.daemon.admin_socket
        console.print(f"  Envoy's admin page: http://{self.envoy.admin}/   daemon's admin socket: {admin}")
        first = self.envoy.ports[leaves[0].name]
        console.print(f"  try: curl --cacert {ca_file} https://localhost:{first}/", soft_wrap=True)
        console.print(f"       offload status --admin-socket {admin}", soft_wrap=True)


@dataclass
class Found:
    """The findings of the parts that were run."""

    node: report.Findings | None = None
    mesh: show.Findings | None = None


def conclude(found: Found, output: Path) -> bool:
    """Writes the report, prints the tables, and returns whether all was well."""
    data: dict[str, Any] = report.as_data(found.node) if found.node else {"problems": []}
    if found.mesh:
        problems = data.pop("problems") + found.mesh.problems()
        data |= found.mesh.as_data() | {"problems": problems}
    (output / "report.json").write_text(json.dumps(data, indent=2) + "\n")
    console.print()
    if found.node:
        for table in (report.table, report.batch_table, report.key_table, report.sidecar_table):
            console.print(table(found.node))
    if found.mesh:
        show.print_tables(found.mesh)
    for problem in data["problems"]:
        console.print(f"[bold red]problem:[/] {escape(problem)}", markup=True)
    if not data["problems"]:
        print_verdict(found)
    console.print(f"report: {output / 'report.json'}")
    return not data["problems"]


def print_verdict(found: Found) -> None:
    if found.node:
        console.print(
            "[bold green]Every handshake was signed by the daemon. The private keys are not in Envoy's memory[/]; "
            "the same search finds them in an Envoy that has them."
        )
    if found.mesh:
        console.print(
            "[bold green]The mesh: no request of any step failed.[/] In mode Offload no private key is in its Envoys' "
            "memory; in mode EnvoyTLS the same search finds one in each."
        )


def run_node(processes: Processes, options: argparse.Namespace, folder: Path) -> tuple[report.Findings, NodePart]:
    """One Envoy with the module against one with the keys; then two sidecars."""
    with step("certificates: a CA, an RSA-2048 and a P-256 leaf"):
        certificates = scene.make_certificates(folder)
    findings = report.Findings(leaves=certificates.leaves)
    with step("backend: a small HTTP service") as notes:
        backend = scene.start_backend(processes)
        notes.append(f"127.0.0.1:{backend.port}")
    with step("daemon: offload serve") as notes:
        daemon = scene.start_daemon(processes, certificates, folder / "run")
        statistics = daemon.statistics()
        notes.append(f"backend {statistics.backend}, keys in memory of kind {statistics.secret_memory_kind}")
        before = daemon.counters()
    with step("stock Envoy with the module, two listeners"):
        envoy = scene.start_offloaded_envoy(processes, certificates, backend, daemon.socket)
    drive_clients(findings, certificates, envoy, options.connections)
    findings.counters = daemon.counters().since(before)
    with step("stock Envoy with the keys in its own TLS contexts, as the control"):
        control = scene.start_control_envoy(processes, certificates, backend)
    search_memory(findings, envoy, control, certificates.authority.ca_file)
    with step("two sidecars: Envoy 'cart' and Envoy 'prices', mTLS between them, all keys in one daemon"):
        pair = sidecars.Sidecars(processes, folder / "sidecars", backend)
    drive_sidecars(findings.sidecars, pair)
    return findings, NodePart(envoy, control, daemon, certificates, pair)


def run(options: argparse.Namespace, folder: Path) -> bool:
    found = Found()
    hints: list[Callable[[], None]] = []
    with ExitStack() as stack:
        processes = stack.enter_context(Processes(options.output))
        if "node" in options.part:
            found.node, there = run_node(processes, options, folder)
            hints.append(there.print_hints)
        if "mesh" in options.part:
            with step("the mesh: control plane, daemon of its node, four services, stock Envoys by mesh dataplane run"):
                mesh = stack.enter_context(parts.running(processes, folder / "mesh"))
            found.mesh = show.run(mesh, options.quick)
            hints.append(partial(show.print_hints, mesh))
        processes.check()
        succeeded = conclude(found, options.output)
        if options.keep:
            keep_running(processes, hints)
        console.print("ending daemons, Envoys and backend")
    return succeeded


def keep_running(processes: Processes, hints: Sequence[Callable[[], None]]) -> None:
    """Waits for Ctrl-C, or until a part ends by itself."""
    console.print("\n[bold]It keeps running; Ctrl-C ends it.[/]")
    for print_hints in hints:
        print_hints()
    while True:
        processes.check()
        time.sleep(0.5)


def main() -> int:
    options = arguments()
    empty(options.output)
    # For keys and sockets: a short path (a socket's may have 107 bytes), private to this user, removed at the end.
    folder = Path(tempfile.mkdtemp(prefix="tls-offload-demo-"))
    try:
        with interruptible():
            return 0 if run(options, folder) else 1
    except (NodeError, LoadToolError, ApiError, Unreachable) as error:
        console.print(f"[bold red]the demo failed:[/] {escape(str(error))}", markup=True, soft_wrap=True)
        console.print(f"logs: {options.output}")
        return 1
    except KeyboardInterrupt:
        console.print("ended")
        return 130 if not options.keep else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
