"""The life of the daemon: start, serve, reload, drain, stop.

One thread (the main one) owns all state and takes events from a queue; signals, the directory watcher and the admin
server only put events there. The data plane serves on its own native threads meanwhile.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, MutableMapping
from concurrent.futures import Future

from offload import __version__, _dataplane
from offload.config.changes import differences, taken_over
from offload.config.file import ConfigError
from offload.config.settings import Config
from offload.daemon.accounting import Accounting
from offload.daemon.caller_sockets import CallerSockets
from offload.daemon.data_plane import DataPlaneError, backend_reason, log_backend, make_data_plane, starting
from offload.daemon.endpoints import Endpoints
from offload.daemon.events import Configure, Event, HandedOver, HandOver, Look, Reload, Stop
from offload.daemon.identity_sources import IdentitySources
from offload.daemon.succession import Predecessor, Successor
from offload.filesystem.accounts import user_id
from offload.host import sandbox
from offload.host.handover import HandoverError
from offload.host.listeners import SocketError
from offload.host.runtime_folder import make_folder
from offload.host.systemd import ActivationError, Notifier, take_sockets
from offload.identities.in_force import Plan
from offload.identities.keyring import Keyring
from offload.identities.uses import IdentityUses
from offload.interfaces.audit import AuditLog
from offload.interfaces.daemon_view import ReloadReport
from offload.issuing.generator import GeneratedIdentities
from offload.mesh.configuration import Bound
from offload.mesh.membership import Membership
from offload.reporting import exit_codes, logs
from offload.reporting.folded_log import FoldedLog

TICK_SECONDS = 1.0  # refusals are logged, and systemd's watchdog is fed, at least this often
DRAIN_POLL_SECONDS = 0.05
TAKE_OVER_SECONDS = 60.0  # for certificates of generated keys, while the previous daemon serves
DRAIN_MARGIN_SECONDS = 2.0  # for a data plane that does not meet its own timeout


class StartError(Exception):
    """The daemon cannot start; the message names the reason and the way out."""


class Daemon:
    """`load` rereads the configuration. `run` is called once, in the main thread."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        environment: MutableMapping[str, str],
        take_over: bool = False,
    ) -> None:
        self.config = config
        self.started_at = time.time()
        self.draining = False
        self._load = load
        self._take_over_asked = take_over
        self._environment = environment
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._notifier = Notifier(environment)
        self._log = logs.get_logger()
        self._folded = FoldedLog(self._log)  # what callers cause
        self._programs = sandbox.programs_are_started(config)
        self._trust = config.security.trust()
        self._sandbox = sandbox.InForce()
        self._sockets = CallerSockets(self._trust)
        self._predecessor = Predecessor()
        self._successor = Successor(self._events.put)
        self._endpoints = Endpoints(self, self._successor.begin, self._successor.end, self._folded)

    # ---- for the admin server and the metrics, on their threads ----

    @property
    def plan(self) -> Plan:
        return self._identities.keyring.current

    @property
    def audit(self) -> AuditLog | None:
        return self._accounting.audit

    def identity_uses(self) -> IdentityUses:
        return self._accounting.uses

    @property
    def generated(self) -> GeneratedIdentities:
        return self._identities.generated

    def limits(self) -> tuple[Bound, Bound]:
        """The limits in force: the wait for a batch in microseconds, and the length of the queue."""
        return self._identities.limits(self.config)

    @property
    def membership(self) -> Membership | None:
        """Membership of a mesh; None without one."""
        return self._identities.membership

    def statistics(self) -> _dataplane.Statistics:
        return self._data_plane.statistics()

    def sandbox(self) -> str:
        """The parts of the sandbox in force, in words; empty without one."""
        return self._sandbox.words

    def backend_reason(self) -> str:
        return backend_reason(self.config.data_plane.backend, self._data_plane.statistics()["backend"])

    def ask_stop(self, why: str) -> None:
        self._events.put(Stop(why))

    def ask_reload(self, why: str) -> Future[ReloadReport]:
        answer: Future[ReloadReport] = Future()
        self._events.put(Reload(why, answer))
        return answer

    # ---- start ----

    def run(self) -> int:
        """Serves until told to stop; returns the exit code. StartError if it cannot start."""
        self._install_signals()  # signals during the start wait in the queue
        try:
            self._open_sockets()
            self._sandbox = sandbox.enter(self.config)
            self._data_plane = make_data_plane(self.config)
            self._gather_identities()
        except (ActivationError, SocketError, HandoverError, sandbox.SandboxError, DataPlaneError) as error:
            self._close_sockets()
            raise StartError(str(error)) from error
        try:
            self._start()
            return self._serve()
        except (SocketError, HandoverError, DataPlaneError) as error:
            raise StartError(str(error)) from error
        finally:
            self._stop()

    def _install_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda n, _frame: self.ask_stop(signal.Signals(n).name))
        signal.signal(signal.SIGHUP, lambda _n, _frame: self._events.put(Reload("SIGHUP")))

    def _open_sockets(self) -> None:
        """Opened before privileges are dropped: their owners may need root."""
        from_systemd = take_sockets(self._environment)
        if self._take_over_asked:
            self._predecessor.ask(self.config)
        user = self.config.security.user
        owner = None if user is None else user_id(user)  # the user that the daemon becomes and creates sockets as
        for folder in self.config.socket_folders():
            if make_folder(folder, self._trust, owner):
                self._log.info("created the folder of a socket", folder=str(folder))
        self._sockets.open(self.config.sockets, from_systemd, self._predecessor.taken)

    def _close_sockets(self) -> None:
        self._sockets.close()
        self._predecessor.close()

    def _gather_identities(self) -> None:
        is_closed_off = self._sandbox.landlock > 0
        keyring = Keyring(self._data_plane, self.config.keys.directory, self._trust, is_closed_off)
        self._identities = IdentitySources(
            self._data_plane, keyring, self._trust, self._events.put, lambda: self._notifier.send(self._status())
        )
        audit = self.config.audit
        log = None if audit.path is None else AuditLog(audit, audit.path, keyring.names_of, trust=self._trust)
        self._accounting = Accounting(self._data_plane, keyring, log, self._folded)

    def _start(self) -> None:
        self._log.info("starting", version=__version__, pid=os.getpid(), keys=str(self.config.keys.directory))
        self._notifier.send("STATUS=measuring the backends")
        with starting():
            self._data_plane.calibrate()
        self._identities.start(self.config)
        self._accounting.start()
        with starting():
            self._data_plane.start()
        log_backend(self.config, self._data_plane.statistics())
        self._identities.generate(self.config.mesh)
        if self._predecessor.is_there:
            self._await_certificates()
            self._predecessor.complete()
            self._sockets.adopt(self._predecessor.taken)
        self._sockets.serve(self._data_plane)
        self._endpoints.open(taken_over=self._predecessor.is_there)
        self._identities.watch(self.config.keys)
        self._notifier.send("READY=1", self._status())
        self._log.info(
            "serving",
            sockets=self._sockets.addresses(),
            admin=str(self.config.admin.path) if self.config.admin else None,
            metrics=self._endpoints.metrics_address,
        )

    def _await_certificates(self) -> None:
        """Waits until we have what the previous daemon has: generated keys, and the control plane's configuration."""
        deadline = time.monotonic() + TAKE_OVER_SECONDS
        while missing := self._identities.missing(self.config):
            if time.monotonic() > deadline:
                raise StartError(
                    f"no certificate after {TAKE_OVER_SECONDS:g} s for: {', '.join(missing)}; "
                    "the running daemon continues"
                )
            event = self._next_event(0.1)
            if isinstance(event, Stop):
                raise StartError(f"stopped ({event.why}) before it was ready; the running daemon continues")
            if event:
                self._handle(event)
        self._identities.refresh(self.config)

    def _status(self) -> str:
        return f"STATUS={self._identities.status()}"

    # ---- serve ----

    def _serve(self) -> int:
        tick = min(TICK_SECONDS, self._notifier.watchdog_seconds or TICK_SECONDS)
        while True:
            event = self._next_event(tick)
            self._tick()
            match event:
                case None:
                    continue
                case Stop(why):
                    return self._drain(why)
                case HandedOver(frozenset() as taken):
                    self._sockets.let_go(taken)
                    self._endpoints.close()  # their places belong to the next daemon by now
                    return self._drain("handed the sockets over")
                case _:
                    self._handle(event)

    def _handle(self, event: Event) -> None:
        match event:
            case Reload(why, answer):
                report = self._reload(why)
                if answer:
                    answer.set_result(report)
            case HandOver():
                self._successor.offer(event, self._sockets.all())
            case HandedOver():
                self._successor.failed()
            case Configure(message):
                self._identities.configure(self.config, message)
            case Look():
                self._identities.refresh(self.config)

    def _next_event(self, seconds: float) -> Event | None:
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def _tick(self) -> None:
        self._accounting.collect()
        self._endpoints.retry()
        if not self.draining and not self._successor.is_taking:
            self._sockets.remake_lost(self.config.sockets)
        retirement = self.plan.next_retirement
        if retirement is not None and retirement <= time.time() and not self.draining:
            self._identities.refresh(self.config)
        if self._notifier.watchdog_seconds is not None:
            # Only a data plane that still responds keeps the service alive.
            self._data_plane.statistics()
            self._notifier.send("WATCHDOG=1")

    # ---- reload ----

    def _reload(self, why: str) -> ReloadReport:
        if self._successor.is_taking:
            self._log.warning("reload refused: a handover is in progress", why=why)
            return ReloadReport(configuration_error="a handover to the next daemon is in progress")
        self._log.info("reloading", why=why)
        self._notifier.reloading()
        error, restart = "", tuple[str, ...]()
        try:
            loaded = self._load()
        except ConfigError as refused:
            error = str(refused)
            self._log.error("the new configuration is rejected; the running one stays in force", reason=error)
        else:
            restart = self._take_over(loaded)
        difference = self._identities.refresh(self.config)
        self._notifier.send("READY=1", self._status())
        self._log.info("reloaded", added=difference.added, changed=difference.changed, removed=difference.removed)
        return ReloadReport(error, restart, difference)

    def _take_over(self, loaded: Config) -> tuple[str, ...]:
        """Puts into force what can change while running; returns the names of what cannot."""
        sockets = self._sockets.change_dedicated(self.config.sockets, loaded.sockets)
        self.config = taken_over(self.config, loaded, sockets)
        logs.set_level(loaded.logging.level)
        self._identities.reload(self.config)
        restart = tuple(differences(self.config, loaded))
        if loaded.security.sandbox and sandbox.programs_are_started(loaded) and not self._programs:
            self._log.error("the sandbox allows no new programs: restart the daemon to use issuers with 'exec'")
        if restart:
            self._log.warning("these settings changed and take effect at the next start", settings=restart)
        return restart

    # ---- end ----

    def _drain(self, why: str) -> int:
        """Finishes what is in flight and disconnects clients; a second signal or the timeout ends it at once."""
        timeout = self.config.shutdown.drain_timeout_seconds
        deadline = time.monotonic() + timeout
        self.draining = True
        self._log.info("draining", why=why, timeout_seconds=timeout)
        self._endpoints.drain()
        self._identities.stop_renewing()
        self._notifier.send("STOPPING=1", f"STATUS=draining, at most {timeout:g} s")
        self._sockets.close()
        self._data_plane.drain()
        while not self._data_plane.wait_drained(DRAIN_POLL_SECONDS):
            event = self._next_event(0.001)
            self._tick()
            match event:
                case Stop(why):
                    self._log.warning("stopped immediately", why=why, queued=self._data_plane.statistics()["queued"])
                    return exit_codes.STOPPED_EARLY
                case Reload(_, Future() as answer):
                    answer.set_result(ReloadReport(configuration_error="the daemon is draining"))
                case HandOver():
                    self._successor.refuse(event)
            if time.monotonic() > deadline + DRAIN_MARGIN_SECONDS:
                break
        if time.monotonic() > deadline:
            # The data plane then cuts the remaining connections.
            self._log.error("the drain timeout expired with clients still connected", timeout_seconds=timeout)
            return exit_codes.STOPPED_EARLY
        self._log.info("drained")
        return exit_codes.OK

    def _stop(self) -> None:
        self._identities.stop()
        self._close_sockets()
        self._accounting.collect()
        self._data_plane.stop()
        self._accounting.collect()
        self._accounting.close()
        self._endpoints.close()
        self._folded.close()
        self._log.info("stopped")
