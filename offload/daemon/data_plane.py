"""Creates the native data plane from the configuration, and explains its choice of backends."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from offload import _dataplane
from offload.backends import LANES
from offload.config.data_plane import DataPlane
from offload.config.settings import Config
from offload.reporting import logs

# Descriptors for listeners, key files while they are read, logs, admin and metrics, threads.
DESCRIPTORS_FOR_OTHERS = 128


# The first allocations are far smaller: if they fail below this limit, something else is the cause.
MAY_BE_THE_LIMIT = 1 << 20


class DataPlaneError(Exception):
    """There can be no data plane; the message names the reason and the way out."""


def make_data_plane(config: Config) -> _dataplane.DataPlane:
    """Raises DataPlaneError, also if keys would be in memory that may be swapped to disk, unless that is allowed."""
    kind = _dataplane.secret_memory_kind()
    if kind == "unlocked" and not config.security.allow_unlocked_memory:
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        why = (
            "Raise it (LimitMEMLOCK= in the unit, `ulimit -l`)"
            if 0 <= limit < MAY_BE_THE_LIMIT
            else "The limit suffices, so a system call filter, such as a container's, blocks mlock: allow it"
        )
        raise DataPlaneError(
            f"keys would be in memory that may be swapped to disk: the limit of locked memory is {limit} bytes. "
            f"{why}, or set security.allow_unlocked_memory: true"
        )
    if kind == "unlocked":
        logs.get_logger().warning("keys are in unlocked memory, as security.allow_unlocked_memory says")
    settings = within_descriptors(config.data_plane, _raise_descriptor_limit())
    with starting():
        return _dataplane.DataPlane(
            {
                "shards": settings.shard_count(),
                "max_wait_us": settings.max_wait_us,
                "queue_limit": settings.queue_limit,
                "connection_queue_limit": settings.connection_queue_limit,
                "user_queue_limit": settings.users_queue_limit,
                "max_connections": settings.max_connections,
                "max_connections_per_user": settings.connections_per_user,
                "max_connections_without_identity": settings.connections_without_identity,
                "user_memory_mib": settings.user_memory_mib,
                "idle_timeout_ms": settings.idle_timeout_ms,
                "stalled_timeout_ms": settings.stalled_timeout_ms,
                "max_streams_per_connection": settings.max_streams_per_connection,
                "drain_timeout_ms": int(config.shutdown.drain_timeout_seconds * 1000),
                "backend": settings.backend,
            }
        )


@contextmanager
def starting() -> Iterator[None]:
    """Turns errors in creating, calibrating and starting it into DataPlaneError, with the way out."""
    try:
        yield
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        way_out = ""
        if "RLIMIT_MEMLOCK" in str(error):
            limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
            way_out = f"; it is {limit >> 10} KiB: raise it (LimitMEMLOCK= in the unit, `ulimit -l`)"
        raise DataPlaneError(f"the data plane cannot start: {error}{way_out}") from error


def backend_reason(setting: str, backend: str) -> str:
    """Why this backend is used, in words."""
    if setting != "auto":
        return f"data_plane.backend is '{setting}'"
    return "the CPU has AVX-512 IFMA" if backend == "ifma8" else "the CPU has no AVX-512 IFMA"


def log_backend(config: Config, statistics: _dataplane.Statistics) -> None:
    logs.get_logger().info(
        "backend",
        backend=statistics["backend"],
        reason=backend_reason(config.data_plane.backend, statistics["backend"]),
        shards=config.data_plane.shard_count(),
        vector_from_batch_size={c["algorithm"]: _crossover(c["crossover"]) for c in statistics["classes"]},
        secret_memory=statistics["secret_memory"],
    )


def _crossover(batch: int) -> str:
    return "never" if batch > LANES else f"from {batch}"


def within_descriptors(settings: DataPlane, limit: int) -> DataPlane:
    """Limits connections to the available descriptors: callers without an identity must not take the last ones."""
    room = max(1, limit - DESCRIPTORS_FOR_OTHERS)
    if settings.max_connections <= room:
        return settings
    logs.get_logger().warning(
        "fewer descriptors than data_plane.max_connections: raise LimitNOFILE= or `ulimit -n`, or lower it",
        max_connections=settings.max_connections,
        descriptors=limit,
        served=room,
    )
    return settings.model_copy(update={"max_connections": room})


def _raise_descriptor_limit() -> int:
    """Each connection needs a descriptor: raises the limit as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard
