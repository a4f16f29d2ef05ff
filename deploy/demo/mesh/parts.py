"""The running mesh: control plane, the node's daemon, applications, and their proxies."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.model.resource import Resource
from deploy.demo.mesh import calls
from deploy.demo.mesh.calls import Call
from deploy.demo.mesh.example import Example, own_network
from deploy.node import daemon, dataplane
from deploy.node.control_plane import ControlPlane
from deploy.node.daemon import Daemon, Membership
from deploy.node.envoy import Envoy
from deploy.node.processes import Process, Processes
from deploy.node.waiting import wait_for

NODE = "node-1"
WEB, CART, BLUE, GREEN = "web-1", "cart-1", "prices-blue-1", "prices-green-1"
IDENTITY = "identity"
SETTLE_SECONDS = 60


def spiffe_id(workload: str) -> str:
    return f"spiffe://default.default.mesh.local/workload/{workload}"


@dataclass(frozen=True)
class Mesh:
    processes: Processes
    example: Example
    control_plane: ControlPlane
    daemon: Daemon
    applications: Process
    proxies: Mapping[str, Envoy]  # by dataplane

    # ---- who can be called where ----

    @property
    def web_to_prices(self) -> Call:
        """HTTP: the proxies keep connections for the next requests."""
        return self._call("web calls prices", WEB, 3001)

    @property
    def web_to_cart(self) -> Call:
        """TCP: every request needs a new connection, and a handshake, between the proxies."""
        return self._call("web calls cart", WEB, 3002)

    @property
    def cart_to_prices(self) -> Call:
        return self._call("cart calls prices", CART, 3001)

    @property
    def outsider_to_prices(self) -> Call:
        """Somebody without a proxy, in plaintext."""
        return self._call("an outsider calls prices", GREEN, 8080)

    def _call(self, name: str, place: str, port: int) -> Call:
        return Call(name, host_of(self.example, place), port)

    # ---- changes ----

    def apply(self, *names: str, **settings: Any) -> None:
        """`mesh apply -f resources/<name>.yaml`."""
        self.control_plane.apply(self.example.resources(*names, **settings))

    def answers_become(self, call: Call, wanted: str, times: int = 1) -> None:
        """Waits until the configuration has arrived: until this is the answer, `times` in a row."""
        wait_for(
            f"'{wanted}' where {call.name}",
            lambda: all(calls.answer(call) == wanted for _ in range(times)),
            SETTLE_SECONDS,
        )

    def connected(self) -> bool:
        """Whether all proxies and the node are connected to the control plane."""
        there = all(self.control_plane.overview(name)["connections"] for name in self.proxies)
        return bool(there and self.daemon.statistics().mesh.connected)

    def problems(self) -> list[str]:
        """Problems that the control plane reports: configuration that a proxy has rejected, or that cannot be made."""
        found = []
        for name in self.proxies:
            overview = self.control_plane.overview(name)
            found += [f"{name}: {problem}" for problem in overview["problems"]]
            for connection in overview["connections"]:
                found += [f"{name}: {t}: {s['refused']}" for t, s in connection["types"].items() if "refused" in s]
        return found


def host_of(example: Example, place: str) -> str:
    """The address of a dataplane."""
    (found,) = [one for one in example.dataplanes if one.name == place]
    address: str = found.spec.networking.address
    return address


@contextmanager
def running(processes: Processes, folder: Path) -> Iterator[Mesh]:
    """`folder`: for sockets, tokens and the control plane's store; private and with a short path."""
    with own_network() as network:
        control_plane = ControlPlane(processes, folder / "control-plane", f"{network}1")
        example = Example(network, folder / "run" / "offload.sock")
        (folder / "run").mkdir(parents=True)
        control_plane.start()
        control_plane.apply(example.resources("mesh", "services", "offload"))
        applications = _start_applications(processes, example.dataplanes)
        node = _start_daemon(processes, control_plane, folder / "run")
        started = {
            name: dataplane.launch(processes, control_plane, name, port, folder / "run")
            for name, port in example.admin_ports.items()
        }
        proxies = {name: dataplane.wait(one, example.admin_ports[name]) for name, one in started.items()}
        yield Mesh(processes, example, control_plane, node, applications, proxies)


def _start_applications(processes: Processes, dataplanes: Sequence[Resource]) -> Process:
    places = []
    for one in dataplanes:
        (inbound,) = one.spec.networking.inbound
        places.append((one.name.removesuffix("-1"), inbound.service_address, inbound.service_port))
    line = [sys.executable, "-m", "deploy.demo.mesh.applications"]
    process = processes.start("applications", [*line, *(f"{name}={host}:{port}" for name, host, port in places)])
    ready = [Call(name, host, port) for name, host, port in places]
    process.wait_until(lambda: all(calls.answer(call) == f"200 {call.name}" for call in ready), "ready")
    return process


def _start_daemon(processes: Processes, control_plane: ControlPlane, sockets: Path) -> Daemon:
    token = control_plane.token_file("node", name=NODE)
    membership = Membership(control_plane.xds, control_plane.files.ca, token)
    started = daemon.start(processes, "daemon-mesh", [], sockets, daemon.Settings(mesh=membership))
    started.process.wait_until(lambda: started.statistics().mesh.connected, "in the mesh")
    return started
