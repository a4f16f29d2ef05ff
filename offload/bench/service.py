"""A separate data plane behind a temporary socket, and keyload in front of it, which simulates sidecars.

keyload is the native load client of benchmarks/native, which is installed beside this package: a client in Python would
measure itself.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from offload._dataplane import DataPlane, Key
from offload.config.data_plane import DataPlane as DataPlaneSettings
from offload.v1 import private_key_pb2

if TYPE_CHECKING:
    from offload._dataplane import Settings

KEYLOAD = Path(__file__).resolve().parents[1] / "keyload"
SCHEMES = {
    "rsa2048": "rsa_pss_rsae_sha256",
    "rsa3072": "rsa_pss_rsae_sha256",
    "rsa4096": "rsa_pss_rsae_sha256",
    "p256": "ecdsa_secp256r1_sha256",
    "p384": "ecdsa_secp384r1_sha384",
    "ed25519": "ed25519",
}
SIDECARS = (1, 8, 32)
SLICE_SECONDS = 0.4
ALONE_OPERATIONS = 300
TURNS = 3
SIGNATURES = 15  # in software, per turn: 75 ms of RSA-4096
# Share of the host's maximum: a node that is busy, with room left.
LOAD_OF_SATURATION = 0.6


# The rate was measured a second ago; on a shared host that may be long ago. It is halved at most this often.
HALVINGS = 3


class ServiceBenchError(RuntimeError):
    """The measurement is not possible; the message says why and what to do."""


class _Overloaded(ServiceBenchError):
    """The queues were full: the rate was more than the host can do now."""


@dataclass(frozen=True)
class Sidecars:
    """A number of connections, which share one total rate of single operations."""

    count: int
    operations_per_s: float
    mean_batch: float
    cpu_us: float  # the service's CPU per operation, kernels included
    p50_us: float
    p99_us: float


@dataclass(frozen=True)
class ServiceResult:
    """The results for one key type."""

    software_us: float  # a signature in software, measured in turns with the saturation
    saturation_per_s: float
    saturation_batch: float
    saturation_cpu_us: float
    alone_p50_us: float  # one operation in flight, from the request to the signature
    sidecars: tuple[Sidecars, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "software_us": round(self.software_us, 1),
            "saturation_per_s": round(self.saturation_per_s),
            "saturation_batch": round(self.saturation_batch, 2),
            "saturation_cpu_us": round(self.saturation_cpu_us, 1),
            "alone_p50_us": round(self.alone_p50_us, 1),
            "sidecars": {
                str(one.count): {
                    "operations_per_s": round(one.operations_per_s),
                    "mean_batch": round(one.mean_batch, 2),
                    "cpu_us": round(one.cpu_us, 1),
                    "p50_us": round(one.p50_us, 1),
                    "p99_us": round(one.p99_us, 1),
                }
                for one in self.sidecars
            },
        }


@dataclass(frozen=True)
class Service:
    """A running data plane with one key of each type, for the current user."""

    path: Path
    keys: dict[str, Key]
    data_plane: DataPlane

    def measure(self, algorithm: str, seconds: float = SLICE_SECONDS) -> ServiceResult:
        """Measures saturation first, then the sidecars at a share of it. ServiceBenchError."""
        software, per_s, batch, cpu = self._saturated(algorithm, seconds)
        alone, _ = self._load(algorithm, connections=1, in_flight=1, batch=1, count=ALONE_OPERATIONS)
        # Sidecars send one operation per message, which costs the service more than four.
        single, _ = self._load(algorithm, connections=8, in_flight=64, batch=1, duration=seconds)
        rate = single["operations_per_s"] * LOAD_OF_SATURATION
        sidecars = []
        for count in SIDECARS:
            result, cpu = self._at_rate(algorithm, count, rate, seconds)
            sidecars.append(
                Sidecars(
                    count,
                    result["operations_per_s"],
                    result["mean_batch"],
                    cpu,
                    result["latency_ms"]["p50"] * 1e3,
                    result["latency_ms"]["p99"] * 1e3,
                )
            )
        return ServiceResult(
            software,
            per_s,
            batch,
            cpu,
            alone["latency_ms"]["p50"] * 1e3,
            tuple(sidecars),
        )

    def _saturated(self, algorithm: str, seconds: float) -> tuple[float, float, float, float]:
        """Microseconds of a signature in software, and the service's operations per second, mean batch and CPU.

        The speed of a host drifts by a third within seconds, so both are measured in turns. The median of their ratios
        is kept: where signatures are slow, a comparison of stock Envoy with the offload is little more than that ratio.
        """
        software, loads = [], []
        for _ in range(TURNS):
            software.append(median(self.data_plane.benchmark(algorithm, 1, "software", SIGNATURES)) * 1e6)
            loads.append(self._load(algorithm, connections=8, in_flight=16, batch=4, duration=seconds))
        usual = median(software)
        ratio = median(cpu / alone for (_, cpu), alone in zip(loads, software, strict=True))
        per_s, batch = (median(load[name] for load, _ in loads) for name in ("operations_per_s", "mean_batch"))
        return usual, per_s, batch, ratio * usual

    def _at_rate(
        self, algorithm: str, count: int, rate: float, seconds: float, halvings: int = HALVINGS
    ) -> tuple[dict[str, Any], float]:
        try:
            return self._load(algorithm, connections=count, in_flight=256, rate=rate, duration=seconds)
        except _Overloaded:
            if halvings == 0:
                raise
        return self._at_rate(algorithm, count, rate / 2, seconds, halvings - 1)

    def _load(self, algorithm: str, **options: float) -> tuple[dict[str, Any], float]:
        """The output of keyload, and CPU time of this process (so of the data plane) per operation, microseconds."""
        line = [str(KEYLOAD), "--socket", str(self.path), "--scheme", SCHEMES[algorithm]]
        line += ["--key-id", self.keys[algorithm].key_id.hex()]
        for option, value in options.items():
            line += ["--" + option.replace("_", "-"), f"{value:g}"]
        before = time.process_time_ns()
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        except OSError as error:
            raise ServiceBenchError(
                f"cannot run {KEYLOAD}: {error.strerror}; it is a part of the build: pip install . or make build"
            ) from error
        except subprocess.TimeoutExpired:
            raise ServiceBenchError(f"the load did not end within 60 s: {' '.join(line)}") from None
        cpu = time.process_time_ns() - before
        if done.returncode != 0:
            if _only_overloaded(done.stdout):
                raise _Overloaded("the service's queues are full at any rate: is the host busy with something else?")
            raise ServiceBenchError(f"keyload failed: {(done.stderr or done.stdout).strip()[:500]}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result, cpu / 1e3 / result["operations"]


def _only_overloaded(output: str) -> bool:
    """Whether keyload got responses, and failures for no other reason than full queues."""
    try:
        reasons = json.loads(output)["failures_by_reason"]
    except (ValueError, KeyError):
        return False
    return bool(reasons) and all(reason.startswith("status 8:") for reason in reasons)


@contextmanager
def running(algorithms: list[str]) -> Iterator[Service]:
    """Starts the data plane with the daemon's default settings; ServiceBenchError."""
    defaults = DataPlaneSettings()
    settings: Settings = {
        "shards": defaults.shard_count(),
        "max_wait_us": defaults.max_wait_us,
        "queue_limit": defaults.queue_limit,
        "connection_queue_limit": defaults.connection_queue_limit,
        # Its one user may use all of the queue.
        "user_queue_limit": defaults.queue_limit,
        "max_connections": defaults.max_connections,
        "max_connections_per_user": defaults.max_connections,
        "max_connections_without_identity": 1,
        "user_memory_mib": defaults.user_memory_mib,
        "idle_timeout_ms": defaults.idle_timeout_ms,
        "stalled_timeout_ms": defaults.stalled_timeout_ms,
        "max_streams_per_connection": defaults.max_streams_per_connection,
        "drain_timeout_ms": 1000,
        "backend": defaults.backend,
    }
    keys = {algorithm: Key.generate(algorithm) for algorithm in algorithms}
    data_plane = DataPlane(settings)
    data_plane.set_identities(
        [
            {
                "name": "bench",
                "selectors": [{"uid": os.getuid()}],
                "keys": [{"key": key, "usage": "tls13", "decrypt": False} for key in keys.values()],
                "message": private_key_pb2.Identity(name="bench", version=1).SerializeToString(),
            }
        ]
    )
    with (
        tempfile.TemporaryDirectory(prefix="offload-bench-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listening,
    ):
        path = Path(folder) / "offload.sock"
        listening.bind(str(path))
        listening.listen(64)
        data_plane.add_listener("main", listening.fileno())
        data_plane.start()
        try:
            yield Service(path, keys, data_plane)
        finally:
            data_plane.stop()
