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
from dataclasses import dataclass
from enum import Enum, auto

from offload import __version__, _dataplane
from offload.config.changes import differences, taken_over
from offload.config.file import ConfigError
from offload.config.issuers import MESH_ISSUER, Mesh
from offload.config.settings import Config
from offload.config.sockets import Sockets
from offload.daemon.data_plane import DataPlaneError, backend_reason, log_backend, make_data_plane, starting
from offload.daemon.endpoints import Interfaces
from offload.filesystem.accounts import user_id
from offload.host import sandbox
from offload.host.handover import ANSWER_SECONDS, Handover, HandoverError
from offload.host.listeners import Listener, SocketError, make_listener, open_listeners
from offload.host.runtime_folder import make_folder
from offload.host.systemd import ActivationError, Notifier, take_sockets
from offload.identities.in_force import Changes, Plan
from offload.identities.keyring import Keyring
from offload.identities.uses import IdentityUses
from offload.identities.watcher import DirectoryWatcher
from offload.interfaces.audit import AuditLog
from offload.interfaces.daemon_view import ReloadReport
from offload.issuing.generator import GeneratedIdentities, orders_of
from offload.mesh.configuration import Bound, Limits
from offload.mesh.membership import Membership
from offload.reporting import exit_codes, logs
from offload.reporting.folded_log import FoldedLog
from offload.v1 import node_pb2

TICK_SECONDS = 1.0  # refusals are logged, and systemd's watchdog is fed, at least this often
DRAIN_POLL_SECONDS = 0.05
TAKE_OVER_SECONDS = 60.0  # for certificates of generated keys, while the daemon before us serves
DRAIN_MARGIN_SECONDS = 2.0  # for a data plane that does not keep its own timeout


class StartError(Exception):
    """The daemon cannot start; the message names the reason and the way out."""


class Ask(Enum):
    STOP = auto()
    RELOAD = auto()
    LOOK = auto()  # at the keys directory, and at what was generated
    CONFIGURE = auto()  # as the control plane says
    HAND_OVER = auto()  # give the listening sockets to the next daemon
    HANDED_OVER = auto()  # it serves, or it failed


@dataclass(frozen=True)
class Event:
    ask: Ask
    why: str
    answer: Future[ReloadReport] | None = None
    message: node_pb2.Configuration | None = None
    offer: Future[list[Listener] | None] | None = None
    taken: frozenset[str] | None = None


class Daemon:
    """`load` reads the configuration again. `run` is called once, in the main thread."""

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
        self._listeners: dict[str, Listener] = {}
        self._folded = FoldedLog(self._log)  # what callers cause
        self._interfaces = Interfaces(self, self._offer, self._after_handover, self._folded)
        self._watcher: DirectoryWatcher | None = None
        self._generated = GeneratedIdentities(lambda: self._events.put(Event(Ask.LOOK, "issued")))
        self._membership: Membership | None = None
        self._audit: AuditLog | None = None
        self._identity_uses = IdentityUses()
        self._backends: tuple[str, ...] = ()  # as the data plane counts them
        self._configured = False  # by the control plane
        self._before: Handover | None = None  # the daemon whose sockets we take
        self._handing_over = False
        self._lost: set[str] = set()  # sockets whose file is gone, and that it has been said of
        self._taken: dict[str, Listener] = {}
        self._programs = sandbox.programs_are_started(config)
        self._trust = config.security.trust()
        self._sandbox = sandbox.InForce()

    # ---- for the admin server and the metrics, on their threads ----

    @property
    def plan(self) -> Plan:
        return self._keyring.current

    @property
    def audit(self) -> AuditLog | None:
        return self._audit

    def identity_uses(self) -> IdentityUses:
        return self._identity_uses

    @property
    def generated(self) -> GeneratedIdentities:
        return self._generated

    def limits(self) -> tuple[Bound, Bound]:
        """The wait for a batch in microseconds, and the length of the queue, that are in force."""
        own, limits = self.config.data_plane, self._membership.limits if self._membership else Limits()
        return limits.within(own.max_wait_us, own.queue_limit)

    @property
    def membership(self) -> Membership | None:
        """Of a mesh; None without one."""
        return self._membership

    def statistics(self) -> _dataplane.Statistics:
        return self._data_plane.statistics()

    def sandbox(self) -> str:
        """What of it is in force, in words; empty without one."""
        return self._sandbox.words

    def backend_reason(self) -> str:
        return backend_reason(self.config.data_plane.backend, self._data_plane.statistics()["backend"])

    def ask_stop(self, why: str) -> None:
        self._events.put(Event(Ask.STOP, why))

    def ask_reload(self, why: str) -> Future[ReloadReport]:
        answer: Future[ReloadReport] = Future()
        self._events.put(Event(Ask.RELOAD, why, answer))
        return answer

    # ---- life ----

    def run(self) -> int:
        """Serves until told to stop; gives the exit code. StartError when it cannot begin."""
        self._install_signals()  # what comes during the start waits in the queue
        try:
            self._open_sockets()
            self._sandbox = sandbox.enter(self.config)
            self._data_plane = make_data_plane(self.config)
        except (SocketError, HandoverError, sandbox.SandboxError, DataPlaneError) as error:
            self._close_sockets()
            raise StartError(str(error)) from error
        except StartError:
            self._close_sockets()
            raise
        is_closed_off = self._sandbox.landlock > 0
        self._keyring = Keyring(self._data_plane, self.config.keys.directory, self._trust, is_closed_off)
        try:
            self._start()
            return self._serve()
        except (SocketError, HandoverError, DataPlaneError) as error:
            raise StartError(str(error)) from error
        finally:
            self._stop()

    def _open_sockets(self) -> None:
        """Before anything is given up: their owners may need root."""
        try:
            handed_over = take_sockets(self._environment)
        except ActivationError as error:
            raise StartError(str(error)) from error
        self._taken = self._ask_the_daemon_before()
        self._make_folders()
        self._listeners = {
            made.name: made for made in open_listeners(self.config.sockets, handed_over, self._taken, self._trust)
        }

    def _make_folders(self) -> None:
        """Creates missing socket folders, owned by the user that the daemon becomes and makes sockets there as."""
        user = self.config.security.user
        for folder in self.config.socket_folders():
            if make_folder(folder, self._trust, None if user is None else user_id(user)):
                self._log.info("made the folder of a socket", folder=str(folder))

    def _close_sockets(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        if self._before:
            self._before.close()

    def _start(self) -> None:
        self._log.info("starting", version=__version__, pid=os.getpid(), keys=str(self.config.keys.directory))
        self._notifier.send("STATUS=measuring the backends")
        with starting():
            self._data_plane.calibrate()
        self._order()
        self._keyring.refresh(self._merged(), self._generated.current())
        if not self._keyring.current.identities and not self._generated.names() and not self.config.mesh:
            self._log.warning("no identity is in force; waiting for key pairs", keys=str(self.config.keys.directory))
        if (audit := self.config.audit).path is not None:
            self._audit = AuditLog(audit, audit.path, self._keyring.names_of, trust=self._trust)
        self._data_plane.count_key_uses(True)
        with starting():
            self._data_plane.start()
        self._backends = tuple(self._data_plane.statistics()["backends"])
        self._generated.start()
        log_backend(self.config, self._data_plane.statistics())
        if self.config.mesh:
            self._join(self.config.mesh)
        if self._before:
            self._await_certificates()
            self._before.complete(list(self._taken))
            self._listeners |= self._taken  # their files are ours from here on
        for listener in self._listeners.values():
            self._data_plane.add_listener(listener.name, listener.socket.fileno())
        self._interfaces.open(taken_over=self._before is not None)
        keys = self.config.keys
        self._watcher = DirectoryWatcher(
            keys.directory,
            keys.debounce_ms if keys.watch else None,
            keys.rescan_seconds,
            lambda: self._events.put(Event(Ask.LOOK, "watch")),
        )
        self._watcher.start()
        self._notifier.send("READY=1", self._status())
        self._log.info(
            "serving",
            sockets={name: str(listener.socket.getsockname()) for name, listener in self._listeners.items()},
            admin=str(self.config.admin.path) if self.config.admin else None,
            metrics=self._interfaces.metrics_address,
        )

    def _ask_the_daemon_before(self) -> dict[str, Listener]:
        """Its sockets, which are not ours before it has been told that we are ready."""
        if not self._take_over_asked:
            return {}
        if self.config.admin is None:
            raise StartError("--take-over needs the admin socket of the running daemon, and 'admin' is null")
        self._before = Handover.ask(self.config.admin)
        if self._before is None:
            self._log.info("no daemon to take over from", admin=str(self.config.admin.path))
            return {}
        taken = self._before.take(self.config.sockets)
        self._log.info("taking over", sockets=sorted(taken))
        return taken

    def _await_certificates(self) -> None:
        """Until we have what the daemon before us has: keys that are generated, what the control plane says."""
        deadline = time.monotonic() + TAKE_OVER_SECONDS
        while True:
            missing = sorted(set(self._generated.names()) - set(self._generated.current().pairs))
            if self.config.mesh and not self._configured:
                missing.append("the control plane's")
            if not missing:
                break
            if time.monotonic() > deadline:
                raise StartError(
                    f"no certificate after {TAKE_OVER_SECONDS:g} s for: {', '.join(missing)}; "
                    "the running daemon goes on"
                )
            event = self._next_event(0.1)
            if event and event.ask is Ask.STOP:
                raise StartError(f"stopped ({event.why}) before it was ready; the running daemon goes on")
            if event:
                self._handle(event)
        self._refresh()

    def _offer(self) -> list[Listener] | None:
        """On the handover's thread."""
        offer: Future[list[Listener] | None] = Future()
        self._events.put(Event(Ask.HAND_OVER, "handover", offer=offer))
        try:
            return offer.result(ANSWER_SECONDS)
        except TimeoutError:
            offer.cancel()
            return None

    def _after_handover(self, taken: frozenset[str] | None) -> None:
        """On the handover's thread."""
        self._events.put(Event(Ask.HANDED_OVER, "handed over", taken=taken))

    def _join(self, mesh: Mesh) -> None:
        self._membership = Membership(
            mesh,
            self._data_plane.statistics()["backend"],
            lambda message: self._events.put(Event(Ask.CONFIGURE, "control plane", message=message)),
            lambda: self._generated.hurry(MESH_ISSUER),
            self._trust,
        )
        self._membership.start()

    def _configure(self, membership: Membership, message: node_pb2.Configuration) -> None:
        """Puts the control plane's configuration into force, and tells it so."""
        membership.take(message, self.config)
        wait, queue = self.limits()
        self._data_plane.set_limits(wait.value, queue.value)
        self._order()
        self._refresh()
        membership.report()
        membership.tell_serving(self._keyring.current.identities)
        self._configured = True

    def _merged(self) -> Config:
        return self._membership.merged(self.config) if self._membership else self.config

    def _order(self) -> None:
        """Has generated what the configuration file and the control plane want."""
        orders, bundles = self._membership.orders() if self._membership else ({}, {})
        self._generated.configure(orders | orders_of(self.config), bundles)

    def _serve_listener(self, listener: Listener) -> None:
        self._data_plane.add_listener(listener.name, listener.socket.fileno())
        self._listeners[listener.name] = listener

    def _install_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda n, _frame: self.ask_stop(signal.Signals(n).name))
        signal.signal(signal.SIGHUP, lambda _n, _frame: self._events.put(Event(Ask.RELOAD, "SIGHUP")))

    def _serve(self) -> int:
        tick = min(TICK_SECONDS, self._notifier.watchdog_seconds or TICK_SECONDS)
        while True:
            event = self._next_event(tick)
            self._tick()
            if event is None:
                continue
            if event.ask is Ask.STOP:
                return self._drain(event.why)
            if event.ask is Ask.HANDED_OVER and event.taken is not None:
                self._let_go(event.taken)
                return self._drain(event.why)
            self._handle(event)

    def _handle(self, event: Event) -> None:
        if event.ask is Ask.RELOAD:
            report = self._reload(event.why)
            if event.answer:
                event.answer.set_result(report)
        elif event.offer is not None:
            # A thread that no longer waits for it has cancelled it.
            self._handing_over = event.offer.set_running_or_notify_cancel()
            if self._handing_over:
                event.offer.set_result(list(self._listeners.values()))
        elif event.ask is Ask.HANDED_OVER:
            self._handing_over = False
        elif self._membership and event.message is not None:
            self._configure(self._membership, event.message)
        else:
            self._refresh()

    def _let_go(self, taken: frozenset[str]) -> None:
        """What the next daemon has by now: files of sockets, and the places of admin and metrics."""
        for name in taken & self._listeners.keys():
            self._listeners[name].made = None
        self._interfaces.close()

    def _next_event(self, seconds: float) -> Event | None:
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def _tick(self) -> None:
        self.log_events()
        self._interfaces.retry()
        if not self.draining and not self._handing_over:
            self._remake_lost_sockets()
        retirement = self._keyring.current.next_retirement
        if retirement is not None and retirement <= time.time() and not self.draining:
            self._refresh()
        if self._notifier.watchdog_seconds is not None:
            # Only a data plane that still answers keeps the service alive.
            self._data_plane.statistics()
            self._notifier.send("WATCHDOG=1")

    def _remake_lost_sockets(self) -> None:
        """Connections that are there go on either way."""
        for name in [name for name, listener in self._listeners.items() if listener.lost]:
            path = str(self._listeners[name].socket.getsockname())
            try:
                settings = self.config.sockets.by_name()[name]
                make_folder(settings.path.parent, self._trust)
                made = make_listener(name, settings, self._trust)
            except SocketError as error:
                if name not in self._lost:
                    self._log.error("the file of a socket is gone and cannot be made again", reason=str(error))
                self._lost.add(name)
                continue
            self._data_plane.remove_listener(name)
            self._listeners.pop(name).close()
            self._serve_listener(made)
            self._lost.discard(name)
            self._log.warning("the file of a socket was gone; made again", socket=name, path=path)

    def log_events(self) -> None:
        """Refusals into the log, folded; these and the uses of keys into the audit log, which has its own bound."""
        refusals, refusals_unlisted = self._data_plane.take_refusals()
        uses, uses_unlisted = self._data_plane.take_key_uses()
        self._identity_uses.add(uses, uses_unlisted, self._keyring.names, self._backends, time.time())
        self._identity_uses.keep(self._keyring.current.identities.keys())
        if self._audit is not None:
            audited = (uses, uses_unlisted) if self._audit.of_key_use else ((), 0)
            self._audit.write(refusals, audited[0], refusals_unlisted, audited[1])
        if refusals_unlisted:
            text = "refused more kinds of callers and requests than are told apart"
            self._folded.warning("unlisted", text, count=refusals_unlisted)
        for refusal in refusals:
            self._folded.warning(
                (refusal["reason"], refusal["uid"], refusal["listener"]),
                "refused a caller",
                reason=refusal["reason"],
                pid=refusal["pid"],
                uid=refusal["uid"],
                gid=refusal["gid"],
                socket=refusal["listener"],
                key_id=refusal["key_id"].hex() or None,
                identities=self._keyring.names_of(refusal["key_id"]) or None,
                identity_asked=refusal["identity"] or None,
                count=refusal["count"],
            )
        self._folded.flush()

    # ---- reload ----

    def _reload(self, why: str) -> ReloadReport:
        if self._handing_over:
            self._log.warning("no reload while the sockets are handed over", why=why)
            return ReloadReport(configuration_error="the sockets are being handed over to the next daemon")
        self._log.info("reloading", why=why)
        self._notifier.reloading()
        error, restart = "", tuple[str, ...]()
        try:
            loaded = self._load()
        except ConfigError as refused:
            error = str(refused)
            self._log.error("the new configuration is refused; the running one stays in force", reason=error)
        else:
            restart = self._take_over(loaded)
        difference = self._refresh()
        self._notifier.send("READY=1", self._status())
        self._log.info("reloaded", added=difference.added, changed=difference.changed, removed=difference.removed)
        return ReloadReport(error, restart, difference)

    def _take_over(self, loaded: Config) -> tuple[str, ...]:
        """Puts into force what can change while running; names what cannot."""
        self.config = taken_over(self.config, loaded, self._change_dedicated_sockets(loaded))
        logs.set_level(loaded.logging.level)
        self._order()
        restart = tuple(differences(self.config, loaded))
        if loaded.security.sandbox and sandbox.programs_are_started(loaded) and not self._programs:
            self._log.error("the sandbox lets no program start: restart the daemon to use issuers with 'exec'")
        if restart:
            self._log.warning("these settings changed and take effect at the next start", settings=restart)
        return restart

    def _change_dedicated_sockets(self, loaded: Config) -> Sockets:
        """Dedicated sockets come and go with their workloads; the main one stays."""
        running = {s.name: s for s in self.config.sockets.dedicated}
        new = {s.name: s for s in loaded.sockets.dedicated}
        for name in [n for n, settings in running.items() if new.get(n) != settings]:
            self._data_plane.remove_listener(name)
            self._listeners.pop(name).close()
            del running[name]
        for name, settings in new.items():
            if name in running:
                continue
            try:
                make_folder(settings.path.parent, self._trust)
                self._serve_listener(make_listener(name, settings, self._trust))
            except SocketError as error:
                self._log.error("a dedicated socket cannot be made", socket=name, reason=str(error))
                continue
            running[name] = settings
        return self.config.sockets.model_copy(update={"dedicated": tuple(running[n] for n in new if n in running)})

    def _refresh(self) -> Changes:
        try:
            difference = self._keyring.refresh(self._merged(), self._generated.current())
        except (OSError, KeyError, ValueError, RuntimeError, MemoryError) as error:
            # Nothing on disk or in the user database may take down what is in force.
            self._log.exception(
                "the keys directory could not be taken over; what was in force stays", reason=str(error)
            )
            return Changes()
        if difference:
            self._notifier.send(self._status())
        if self._membership:
            self._membership.tell_serving(self._keyring.current.identities)
        return difference

    def _status(self) -> str:
        keys = sum(len(i.pairs) for i in self._keyring.current.identities.values())
        problems = len(self._keyring.current.problems)
        return (
            f"STATUS=serving {len(self._keyring.current.identities)} identities, {keys} keys"
            f"{f', {problems} files refused' if problems else ''}"
        )

    # ---- end ----

    def _drain(self, why: str) -> int:
        """Answers what is in flight and lets clients go; a second signal or the timeout ends it at once."""
        timeout = self.config.shutdown.drain_timeout_seconds
        deadline = time.monotonic() + timeout
        self.draining = True
        self._log.info("draining", why=why, timeout_seconds=timeout)
        self._interfaces.drain()
        self._generated.stop()
        self._notifier.send("STOPPING=1", f"STATUS=draining, at most {timeout:g} s")
        if self._watcher:
            self._watcher.stop()
        for listener in self._listeners.values():
            listener.close()
        self._data_plane.drain()
        while not self._data_plane.wait_drained(DRAIN_POLL_SECONDS):
            event = self._next_event(0.001)
            self._tick()
            if event and event.ask is Ask.STOP:
                self._log.warning("stopped at once", why=event.why, queued=self._data_plane.statistics()["queued"])
                return exit_codes.STOPPED_EARLY
            if event and event.answer:
                event.answer.set_result(ReloadReport(configuration_error="the daemon is draining"))
            if event and event.offer and event.offer.set_running_or_notify_cancel():
                event.offer.set_result(None)
            if time.monotonic() > deadline + DRAIN_MARGIN_SECONDS:
                break
        if time.monotonic() > deadline:
            # The data plane cuts the connections that are still there then.
            self._log.error("the drain timeout passed with clients connected", timeout_seconds=timeout)
            return exit_codes.STOPPED_EARLY
        self._log.info("drained")
        return exit_codes.OK

    def _stop(self) -> None:
        if self._membership:
            self._membership.stop()
        self._generated.stop()
        if self._watcher:
            self._watcher.stop()
        self._close_sockets()
        self.log_events()
        self._data_plane.stop()
        self.log_events()
        if self._audit is not None:
            self._audit.close()
        self._interfaces.close()
        self._folded.close()
        self._log.info("stopped")
