"""The offload daemon as a child process, and its counters."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml

from deploy.node.certificates import Leaf
from deploy.node.processes import Process, Processes
from offload.v1 import admin_pb2, admin_pb2_grpc, private_key_pb2_grpc

LOCKED_MEMORY = 64 * 1024 * 1024


@dataclass(frozen=True)
class Membership:
    """Membership of a mesh: the control plane's xDS address, its CA, and the node's token."""

    control_plane: str  # host:port
    ca_file: Path
    token_file: Path


@dataclass(frozen=True)
class Settings:
    """What differs between runs; the rest are the daemon's defaults."""

    backend: str = "auto"
    shards: int | str = "auto"
    usage: str = "tls12+13"
    metrics_port: int | None = None
    trust_bundle: tuple[Path, str] | None = None  # CA file, trust domain
    mesh: Membership | None = None


@dataclass(frozen=True)
class Counters:
    """The daemon's counters at one moment, or, by `since`, of a span."""

    operations: Mapping[tuple[str, str, str], int]  # (algorithm, status, backend)
    batches: Mapping[tuple[str, str, str, int], int]  # (algorithm, backend, reason, size)
    run_seconds: Mapping[str, float]  # by algorithm, sum over batches
    queue_seconds: Mapping[str, float]  # by algorithm, sum over operations
    faults: int

    def since(self, before: Counters) -> Counters:
        return Counters(
            {k: v - before.operations.get(k, 0) for k, v in self.operations.items()},
            {k: v - before.batches.get(k, 0) for k, v in self.batches.items()},
            {k: v - before.run_seconds.get(k, 0.0) for k, v in self.run_seconds.items()},
            {k: v - before.queue_seconds.get(k, 0.0) for k, v in self.queue_seconds.items()},
            self.faults - before.faults,
        )

    def answered(self, algorithm: str | None = None) -> int:
        """Operations answered with OK."""
        return sum(n for (a, status, _), n in self.operations.items() if status == "OK" and algorithm in (None, a))

    def refused(self) -> dict[str, int]:
        """Operations answered with anything else, by status."""
        found: dict[str, int] = {}
        for (_, status, _), count in self.operations.items():
            if status != "OK" and count:
                found[status] = found.get(status, 0) + count
        return found

    def backends(self, algorithm: str | None = None) -> dict[str, int]:
        """Operations answered with OK, by backend."""
        found: dict[str, int] = {}
        for (a, status, backend), count in self.operations.items():
            if status == "OK" and count and algorithm in (None, a):
                found[backend] = found.get(backend, 0) + count
        return found

    def batch_sizes(self, algorithm: str | None = None) -> dict[int, int]:
        """Number of batches by size; sizes 1 to 8 are always included."""
        found = dict.fromkeys(range(1, 9), 0)
        for (a, _, _, size), count in self.batches.items():
            if algorithm in (None, a):
                found[size] = found.get(size, 0) + count
        return found

    def mean_batch(self, algorithm: str | None = None) -> float:
        sizes = self.batch_sizes(algorithm)
        batches = sum(sizes.values())
        return sum(size * count for size, count in sizes.items()) / batches if batches else 0.0


@dataclass(frozen=True)
class Daemon:
    process: Process
    socket: Path
    admin_socket: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @contextmanager
    def admin(self) -> Iterator[Any]:
        with grpc.insecure_channel(f"unix:{self.admin_socket}") as channel:
            yield admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A connection like a sidecar's, but in Python."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            yield private_key_pb2_grpc.PrivateKeyServiceStub(channel)  # type: ignore[no-untyped-call]

    def statistics(self) -> Any:
        """StatisticsResponse."""
        with self.admin() as stub:
            return stub.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=10)

    def identities(self) -> Sequence[Any]:
        """IdentityInForce, each with its keys."""
        with self.admin() as stub:
            found: Sequence[Any] = stub.ListKeys(admin_pb2.ListKeysRequest(), timeout=10).identities
            return found

    def counters(self) -> Counters:
        return counters_of(self.statistics())


def counters_of(statistics: Any) -> Counters:
    classes = statistics.classes
    return Counters(
        {(c.algorithm, o.status, o.backend): o.count for c in classes for o in c.operations},
        {(c.algorithm, b.backend, b.reason, b.size): b.count for c in classes for b in c.batches},
        {c.algorithm: c.run_seconds.sum for c in classes},
        {c.algorithm: c.queue_seconds.sum for c in classes},
        sum(c.faults for c in classes),
    )


def configuration(leaves: Sequence[Leaf], sockets: Path, settings: Settings) -> dict[str, Any]:
    """The YAML file as plain data. The identities are named like the leaves; this user may use them."""
    keys = {leaf.key_file.parent.parent for leaf in leaves} or {sockets / "keys"}  # a mesh's identities need none
    if len(keys) != 1:
        raise ValueError(f"the key pairs must be in one keys directory, not in {sorted(map(str, keys))}")
    identity = {"selectors": [{"uid": os.getuid()}], "usage": settings.usage}
    bundle = settings.trust_bundle
    mesh = settings.mesh
    trusted = [{"file": str(bundle[0]), "trust_domain": bundle[1]}] if bundle else []
    return {
        **({"mesh": {name: str(value) for name, value in asdict(mesh).items()}} if mesh else {}),
        "sockets": {"main": {"path": str(sockets / "offload.sock"), "mode": "0600"}},
        "admin": {"path": str(sockets / "admin.sock")},
        "keys": {"directory": str(keys.pop()), "trust_bundles": trusted},
        "identities": {leaf.name: identity for leaf in leaves},
        "data_plane": {"backend": settings.backend, "shards": settings.shards},
        "metrics": {"address": f"127.0.0.1:{settings.metrics_port}" if settings.metrics_port else None},
        "logging": {"format": "console"},
        "shutdown": {"drain_timeout_seconds": 5},
    }


def start(
    processes: Processes, name: str, leaves: Sequence[Leaf], sockets: Path, settings: Settings | None = None
) -> Daemon:
    """Starts `offload serve` and waits until it serves. NodeError with the end of its log if it does not."""
    sockets.mkdir(parents=True, exist_ok=True)
    config = configuration(leaves, sockets, settings or Settings())
    Path(config["keys"]["directory"]).mkdir(exist_ok=True)
    config_file = processes.folder / f"{name}.yaml"
    config_file.write_text(yaml.safe_dump(config, sort_keys=False))
    _allow_locked_memory()
    line: list[str | Path] = [sys.executable, "-c", "from offload.cli import main; main()"]
    line += ["serve", "--config", config_file]
    process = processes.start(name, line)
    daemon = Daemon(process, sockets / "offload.sock", sockets / "admin.sock")
    process.wait_until(lambda: _serves(daemon), "ready")
    return daemon


def _serves(daemon: Daemon) -> bool:
    if not daemon.socket.exists() or not daemon.admin_socket.exists():
        return False
    try:
        daemon.statistics()
    except grpc.RpcError:
        return False
    return True


def _allow_locked_memory() -> None:
    """Key memory is locked; children inherit as much of the limit as we may set."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    wanted = LOCKED_MEMORY if hard == resource.RLIM_INFINITY else min(LOCKED_MEMORY, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (wanted, hard))
