"""The admin interface: gRPC on a Unix socket of its own, for `offload status` and the like.

Whoever can open the socket may do everything here. grpcio does not tell a handler the caller's uid, so the kernel does
the check: connecting needs write permission on the socket file, which has mode 0600 (at most owner and group).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from offload import __version__, _dataplane
from offload.config.sockets import AdminSocket
from offload.filesystem.trusted_paths import Trust
from offload.host.listeners import (
    SocketError,
    check_folder,
    clear_the_way,
    remove_socket_file,
    take_possession,
    umask_for,
)
from offload.identities.in_force import IdentityInForce, KeyPair, Problem
from offload.identities.schemes import schemes_for
from offload.identities.uses import IdentityUse, IdentityUses
from offload.interfaces.daemon_view import Steered
from offload.mesh.configuration import Bound
from offload.mesh.membership import Membership
from offload.reporting import logs
from offload.v1 import admin_pb2, admin_pb2_grpc, private_key_pb2

SERVED = private_key_pb2.DESCRIPTOR.services_by_name["PrivateKeyService"].full_name
THREADS = 8  # a watcher occupies one
WATCHERS_MAX = 4
RELOAD_TIMEOUT_SECONDS = 30
IDENTITIES_SHOWN = 100  # in statistics, which some clients request every second
CALLS_MAX = 64  # beyond the running ones, they wait for a thread
CONNECTIONS_MAX = 64
# Callers of this socket are trusted, since they can drain the daemon anyway; the bounds limit the damage of a faulty
# script.
_BOUNDS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
    ("grpc.server_handshake_timeout_ms", 5_000),
)
INTERVAL_DEFAULT_MS, INTERVAL_MIN_MS = 1000, 100


class AdminServer:
    """Serves from construction until `stop`. SocketError if the socket cannot be created."""

    def __init__(self, daemon: Steered, settings: AdminSocket, trust: Trust) -> None:
        check_folder(settings.path, trust)
        clear_the_way(settings.path)
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="admin"),
            options=_BOUNDS,
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        self._health = health.HealthServicer()
        self._service = AdminService(daemon)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self._service, self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [
                admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ],
            self._server,
        )
        # When gRPC stops, it removes whatever is at the path it bound, even another daemon's socket: it gets a path
        # that nobody else uses. The configured path is created and removed here.
        bound = settings.path.with_name(f".admin-{os.getpid()}")
        try:
            with umask_for(settings.mode):
                self._server.add_insecure_port(f"unix:{bound}")
        except RuntimeError as error:
            raise SocketError(f"cannot create the admin socket {settings.path}: {error}") from error
        inode = take_possession(bound, settings)
        try:
            os.rename(bound, settings.path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(bound)
            raise SocketError(f"cannot create the admin socket {settings.path}: {error.strerror}") from error
        self._made = (settings.path, inode)
        self._server.start()
        self.set_serving(True)

    def set_serving(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVED):
            self._health.set(service, status)

    def stop(self) -> None:
        self._service.end_watchers()
        remove_socket_file(*self._made)
        self._server.stop(grace=0.2).wait()


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    def __init__(self, daemon: Steered) -> None:
        self._daemon = daemon
        self._lock = threading.Lock()
        self._watchers: set[threading.Event] = set()  # set when the call is over

    def ListKeys(self, request: Any, context: grpc.ServicerContext) -> admin_pb2.ListKeysResponse:
        del request, context
        plan, uses = self._daemon.plan, self._daemon.identity_uses().current()
        return admin_pb2.ListKeysResponse(
            identities=[identity_message(one, uses.get(one.name)) for one in plan.identities.values()],
            problems=[problem_message(problem) for problem in plan.problems],
        )

    def GetStatistics(self, request: Any, context: grpc.ServicerContext) -> admin_pb2.StatisticsResponse:
        del request, context
        return statistics_message(self._daemon)

    def WatchStatistics(self, request: Any, context: grpc.ServicerContext) -> Iterator[admin_pb2.StatisticsResponse]:
        ended = threading.Event()
        with self._lock:
            full = len(self._watchers) >= WATCHERS_MAX
            if not full:
                self._watchers.add(ended)
        if full:
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{WATCHERS_MAX} watches are already open; use GetStatistics"
            )
        if not context.add_callback(lambda: self._end(ended)):
            self._end(ended)
        interval = max(INTERVAL_MIN_MS, request.interval_ms or INTERVAL_DEFAULT_MS) / 1000
        while not ended.is_set():
            yield statistics_message(self._daemon)
            ended.wait(interval)

    def end_watchers(self) -> None:
        for ended in list(self._watchers):
            self._end(ended)

    def _end(self, ended: threading.Event) -> None:
        ended.set()
        with self._lock:
            self._watchers.discard(ended)

    def SetLogLevel(self, request: Any, context: grpc.ServicerContext) -> admin_pb2.SetLogLevelResponse:
        if request.level not in logs.LEVELS:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"level '{request.level}' is not one of {', '.join(logs.LEVELS)}"
            )
        return admin_pb2.SetLogLevelResponse(previous=logs.set_level(request.level))

    def Drain(self, request: Any, context: grpc.ServicerContext) -> admin_pb2.DrainResponse:
        del request, context
        self._daemon.ask_stop("admin")
        return admin_pb2.DrainResponse(timeout_ms=int(self._daemon.config.shutdown.drain_timeout_seconds * 1000))

    def Reload(self, request: Any, context: grpc.ServicerContext) -> admin_pb2.ReloadResponse:
        del request
        try:
            report = self._daemon.ask_reload("admin").result(RELOAD_TIMEOUT_SECONDS)
        except NotYet:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the reload takes longer than expected; see the log")
            raise
        return admin_pb2.ReloadResponse(
            configuration_error=report.configuration_error,
            needs_restart=report.needs_restart,
            added=report.changes.added,
            changed=report.changes.changed,
            removed=report.changes.removed,
            problems=[problem_message(problem) for problem in self._daemon.plan.problems],
        )


def identity_message(identity: IdentityInForce, use: IdentityUse | None = None) -> admin_pb2.IdentityInForce:
    settings = identity.settings
    return admin_pb2.IdentityInForce(
        name=identity.name,
        version=identity.version,
        usage=settings.usage,
        decrypt=settings.decrypt,
        selectors=[selector.words() for selector in settings.selectors],
        keys=[_key_message(pair, settings.usage) for pair in identity.pairs],
        trust_bundles=[bundle.trust_domain or "any" for bundle in identity.bundles],
        use=None if use is None else _use_message(identity.name, use),
    )


def _use_message(name: str, use: IdentityUse) -> admin_pb2.IdentityUse:
    return admin_pb2.IdentityUse(
        identity=name,
        operations=[
            admin_pb2.OperationCount(status=status, backend=backend, count=count)
            for (status, backend), count in use.operations.items()
        ],
        callers=[
            admin_pb2.CallerUse(uid=one.uid, executable=one.executable, count=one.count, last_seconds=one.last)
            for one in use.callers
        ],
        operations_of_others=use.others,
    )


def _busiest(uses: IdentityUses) -> list[admin_pb2.IdentityUse]:
    found = sorted(uses.current().items(), key=lambda item: -sum(item[1].operations.values()))
    return [_use_message(name, use) for name, use in found[:IDENTITIES_SHOWN]]


def _key_message(pair: KeyPair, usage: str) -> admin_pb2.KeyInForce:
    chain = pair.chain
    return admin_pb2.KeyInForce(
        key_id=pair.key.key_id,
        algorithm=pair.key.algorithm,
        key_file=pair.key_file,
        certificate_file=pair.certificate_file,
        subject=chain.subject,
        dns_names=chain.dns_names,
        uris=chain.uris,
        serial_number=chain.serial_number,
        not_before=chain.not_before,
        not_after=chain.not_after,
        chain_not_after=chain.chain_not_after,
        chain_length=len(chain.der),
        signature_schemes=schemes_for(pair.key.algorithm, usage),
        kept=pair.kept,
        renew_at=int(pair.renew_at or 0),
    )


def problem_message(problem: Problem) -> admin_pb2.Problem:
    return admin_pb2.Problem(
        identity=problem.identity, path=problem.path, reason=problem.reason, previous_kept=problem.previous_kept
    )


def statistics_message(daemon: Steered) -> admin_pb2.StatisticsResponse:
    statistics = daemon.statistics()
    memory = statistics["secret_memory"]
    now = time.time()
    return admin_pb2.StatisticsResponse(
        time_seconds=now,
        uptime_seconds=now - daemon.started_at,
        version=__version__,
        backend=statistics["backend"],
        backend_reason=daemon.backend_reason(),
        draining=statistics["draining"],
        connections=statistics["connections"],
        connections_total=statistics["connections_total"],
        streams=statistics["streams"],
        watchers=statistics["watchers"],
        queued=statistics["queued"],
        refusals=dict(statistics["refusals"]),
        secret_memory_kind=str(memory["kind"]),
        secret_memory_used_bytes=int(memory["used"]),
        secret_memory_reserved_bytes=int(memory["reserved"]),
        classes=[_class_message(c) for c in statistics["classes"]],
        mesh=_mesh_message(daemon.membership),
        sandbox=daemon.sandbox(),
        identities=_busiest(daemon.identity_uses()),
        limits=_limits_message(*daemon.limits()),
    )


def _limits_message(wait: Bound, queue: Bound) -> admin_pb2.Limits:
    return admin_pb2.Limits(
        max_wait_us=wait.value,
        max_wait_set_by=wait.set_by,
        queue_limit=queue.value,
        queue_limit_set_by=queue.set_by,
    )


def _mesh_message(membership: Membership | None) -> admin_pb2.MeshStatus | None:
    if membership is None:
        return None
    status, in_force = membership.status(), membership.in_force
    return admin_pb2.MeshStatus(
        control_plane=status.control_plane,
        connected=status.is_connected,
        reason=status.reason,
        mutual_tls=status.is_connected and status.is_mutual,
        version=in_force.version,
        problems=in_force.problems,
    )


def _class_message(one: _dataplane.ClassStatistics) -> admin_pb2.ClassStatistics:
    return admin_pb2.ClassStatistics(
        algorithm=one["algorithm"],
        operations=[
            admin_pb2.OperationCount(status=status, backend=backend, count=count)
            for (status, backend), count in one["operations"].items()
        ],
        batches=[
            admin_pb2.BatchCount(backend=backend, reason=reason, size=size, count=count)
            for (backend, reason, size), count in one["batches"].items()
        ],
        queue_seconds=admin_pb2.Histogram(
            bounds=_dataplane.QUEUE_SECONDS_BOUNDS, counts=one["queue_seconds"], sum=one["queue_seconds_sum"]
        ),
        run_seconds=admin_pb2.Histogram(
            bounds=_dataplane.RUN_SECONDS_BOUNDS, counts=one["run_seconds"], sum=one["run_seconds_sum"]
        ),
        faults=one["faults"],
        queued=one["queued"],
        crossover=one["crossover"],
        calibration=[admin_pb2.BackendTimes(backend=b, batch_us=t) for b, t in one["backend_us"].items()],
    )
