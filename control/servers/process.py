"""The process: store, control plane, ADS over TLS, REST over TLS; stops in order on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
import structlog
import uvicorn

from control.audit import ITSELF, Audit, Who, moment
from control.kinds import KINDS
from control.logs import FoldedLibraries
from control.mesh.evidence import OFFLINE_AFTER_S
from control.metrics import Metrics
from control.own_certificates.administrators import AdminCertificates
from control.own_certificates.nodes import NodeCertificates
from control.own_certificates.serving import ServingCertificate
from control.reconcile.control_plane import ControlPlane
from control.rest.app import make_app
from control.secret_files import exposure
from control.servers.ads import DiscoveryServer
from control.servers.api import Protocol, tls_context, use
from control.servers.descriptors import GRPC, Wanted
from control.servers.fronts import Fronts
from control.servers.listener import Connection, Listener
from control.servers.nodes import NodeServer
from control.servers.ports import GrpcServer, Port
from control.settings import Address, CannotServe, Files, write_private
from control.store.database import StoreKey
from control.store.engine import shown, sqlite_path
from control.store.errors import IncompatibleStore, StoreError, WrongStoreKey
from control.store.lock import share
from control.store.store import Store
from control.tokens.tokens import Tokens
from offload.host.systemd import Notifier
from offload.reporting import failure
from offload.reporting.folded_log import FoldedLog

log = structlog.get_logger(__name__)

# Lifetime of the token that is left for `mesh` on the same host; renewed at every start, and at half of it.
LOCAL_TOKEN_S = 90 * 24 * 3600
# Name of its bearer in the audit log.
LOCAL_NAME = "local"
# How long streams may take to end; proxies reconnect anyway.
STOP_GRACE_S = 2.0
# Interval between checks for what is due: clocks can be set, and machines can sleep.
LOOK_S = 1.0


@dataclass(frozen=True)
class ServeSettings:
    files: Files
    api: Address
    xds: Address
    # Where nodes connect with their certificates, after they have joined at `xds`.
    nodes: Address
    # Names by which the control plane is reached; part of its certificate.
    names: Sequence[str] = field(default=("localhost", "127.0.0.1"))
    zone: str = "default"
    database: str | None = None
    passphrase: str | None = None
    # A separate file for the audit log; None: it is in the server's log.
    audit_log: Path | None = None
    # Seconds after which a disconnected proxy gets no traffic (mesh/evidence.py says why so many).
    offline_after: float = OFFLINE_AFTER_S
    # Limits for proxies and nodes (servers/descriptors.py says why so many).
    connections: Wanted = field(default_factory=Wanted)

    @property
    def store_key(self) -> StoreKey:
        return StoreKey(passphrase=self.passphrase) if self.passphrase else StoreKey(file=self.files.key)

    @property
    def url(self) -> str:
        return self.database or self.files.database


class Service:
    """Started and stopped once. `api` and `xds` have the real ports where 0 was requested."""

    def __init__(self, settings: ServeSettings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """`clock` is what its own certificate is checked against."""
        self._settings = settings
        metrics = Metrics()
        settings.files.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_store(settings)
        self._folded = FoldedLog(log)
        self._libraries = FoldedLibraries(self._folded)
        self.fronts = Fronts(metrics, settings.connections, self._folded)
        # Held until the process ends: see store/lock.py.
        path = sqlite_path(settings.url)
        self._lock = share(path) if path is not None else None
        try:
            self.store = Store(settings.url, settings.store_key, KINDS, metrics.observe_store)
        except BaseException:
            self._release()
            raise
        self.audit = Audit(settings.audit_log, metrics.audit_lost.inc)
        self.control_plane = ControlPlane(self.store, settings.zone, metrics, offline_after=settings.offline_after)
        self.tokens = Tokens(self.store)
        self.certificate = ServingCertificate(self.store, settings.names, clock)
        self._served = self.certificate.chain_pem
        self.node_certificates = NodeCertificates(self.store)
        self.admin_certificates = AdminCertificates(self.store)
        self._renewing, self._token_made_at = asyncio.Lock(), 0.0
        self.api = self.xds = self.nodes = Address("", 0)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Raises OSError if an address is unavailable."""
        settings = self._settings
        discovery = DiscoveryServer(self.control_plane, self.tokens, self._folded, self.fronts.welcome)
        of_nodes = self.node_certificates, self._folded, self.fronts.welcome, self.audit
        nodes = NodeServer(self.control_plane, self.tokens, *of_nodes)

        def add_to(server: grpc.aio.Server) -> None:
            discovery.add_to(server)
            nodes.add_to(server)

        ports = [
            Port("xDS", settings.xds, self.certificate.grpc_credentials),
            Port("nodes", settings.nodes, lambda: self.node_certificates.grpc_credentials(self.certificate)),
        ]
        self._grpc = GrpcServer(add_to, ports, self.fronts.bounds[GRPC].connections)
        self.xds, self.nodes = await self._grpc.start()
        nodes.port = self.nodes.port
        self._tasks = [asyncio.create_task(self.control_plane.run()), asyncio.create_task(self._look())]
        self._tasks.append(asyncio.create_task(self.fronts.run({self.xds.port, self.nodes.port})))
        await self._start_api()
        self._publish_expiry()
        write_private(settings.files.ca, self.certificate.ca_pem)
        await self._log_restore()
        await self.renew_token()
        log.info("serving", api=str(self.api), xds=str(self.xds), nodes=str(self.nodes), database=shown(settings.url))

    async def _start_api(self) -> None:
        address = self._settings.api
        app = make_app(self.control_plane, self.tokens, self.admin_certificates, self._settings.names, self.audit)
        config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", http=Protocol)
        config.load()
        self._libraries.begin()
        self._context = tls_context(self.certificate, self.admin_certificates.authority.certificate_pem)
        self._api = uvicorn.Server(config)
        self._api.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]  # handled here
        listening = _listen(address)
        # Without sockets of its own it serves the connections that it is given.
        self._serving = asyncio.create_task(self._api.serve([]))
        self._tasks.append(self._serving)
        while not self._api.started:
            if self._serving.done():
                raise OSError(f"the API cannot be served at {address}")
            await asyncio.sleep(0.01)

        def protocol(connection: Connection) -> Protocol:
            return Protocol(config, self._api.server_state, {}, connection=connection)

        self._listener = Listener(listening, self.fronts.api, self._context, protocol, self.fronts.told_of_api)
        self.api = Address(address.host, listening.getsockname()[1])

    async def _look(self) -> None:
        told = ""
        while True:
            await asyncio.sleep(LOOK_S)
            self._folded.flush()
            try:
                await self.renew()
                await self.renew_token()
                await self._log_restore()
                told = ""
            except (StoreError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    log.error("cannot renew the control plane's own certificate or token; retrying", error=told)

    async def renew(self) -> None:
        """Renews the own certificate and CAs that are due. New connections get them, without a restart."""
        async with self._renewing:
            nodes = await asyncio.to_thread(self.node_certificates.renew_if_due)
            administrators = await asyncio.to_thread(self.admin_certificates.authority.renew_if_due)
            await asyncio.to_thread(self.certificate.renew_if_due)
            if administrators:
                self._context.load_verify_locations(cadata=self.admin_certificates.authority.certificate_pem)
            if self.certificate.chain_pem == self._served and not nodes:
                return
            use(self.certificate, self._context)
            await self._grpc.renew()
            self._served = self.certificate.chain_pem
            write_private(self._settings.files.ca, self.certificate.ca_pem)
            self._publish_expiry()
            log.info("renewed the control plane's certificate")

    async def renew_token(self) -> None:
        """Renews the token for `mesh` on this host: at half of its life, or if the clock was ahead when it was made."""
        now = time.time()
        if self._token_made_at <= now < self._token_made_at + LOCAL_TOKEN_S / 2:
            return
        made = await asyncio.to_thread(self.tokens.make, "admin", LOCAL_TOKEN_S, "", LOCAL_NAME)
        write_private(self._settings.files.admin_token, made.token + "\n")
        until, file = moment(made.claims.expires_at), str(self._settings.files.admin_token)
        self.audit.write(
            "token_issued", ITSELF, "", kind="admin", name=LOCAL_NAME, id=made.claims.jti, until=until, file=file
        )
        self._token_made_at = now

    async def _log_restore(self) -> None:
        """Logs a restore: `mesh restore` works on files, and leaves a note in the store."""
        note = await asyncio.to_thread(self.store.take_restore)
        if note is not None:
            self.audit.write("store_restored", Who("local", note.partition(" ")[0]), "", what=note.partition(" ")[2])

    def _publish_expiry(self) -> None:
        end = self.certificate.certificate.not_valid_after_utc.timestamp()
        self.control_plane.state.metrics.show_end("server", end)

    async def ended(self) -> None:
        """Returns, or raises the error, when a part has stopped that should run for ever."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise OSError("a part of the control plane has stopped: see the log")

    async def stop(self) -> None:
        if hasattr(self, "_grpc"):
            await self._grpc.stop(STOP_GRACE_S)
        if hasattr(self, "_listener"):
            await self._listener.close()
        if hasattr(self, "_serving"):
            self._api.should_exit = True
            await asyncio.wait([self._serving], timeout=STOP_GRACE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._libraries.end()
        self._folded.close()
        self.store.close()
        self.audit.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Turns what the host or the configuration forbids into CannotServe; an unresponsive database may recover."""
    try:
        yield
    except OSError as error:
        raise CannotServe(failure.of_system(error)) from error
    except (IncompatibleStore, WrongStoreKey) as error:
        raise CannotServe(str(error)) from error


def _listen(address: Address) -> socket.socket:
    """Binds the socket here, since uvicorn would exit if the address is taken. `[::]` includes IPv4, as for gRPC."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    dual = address.host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=2048, dualstack_ipv6=dual)
    except OSError as error:
        raise OSError(f"the API cannot be served at {address}: {error.strerror}") from error


def _check_store(settings: ServeSettings) -> None:
    """A lost store must not become an empty one: a new CA that nobody trusts, and no valid token."""
    path = sqlite_path(settings.url)
    if path is not None and not path.exists() and settings.files.ca.exists():
        raise IncompatibleStore(
            f"there is no store at {path}, but this control plane has served from here before: restore a backup "
            f"(mesh restore), or remove {settings.files.ca} to start over with new CAs and tokens"
        )
    if path is not None and path.exists() and (exposed := exposure(path)):
        log.warning("other users can read the store", why=exposed)


async def serve(settings: ServeSettings) -> None:
    """Runs until SIGTERM or SIGINT."""
    # The process holds CA keys in memory: a crash must not write them to a file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    with _starting():
        service, systemd = Service(settings), Notifier(os.environ)
    try:
        with _starting():
            await service.start()
        systemd.send("READY=1", f"STATUS=API on {service.api}, xDS on {service.xds}, nodes on {service.nodes}")
        asked = asyncio.create_task(ended.wait())
        # Half a control plane would look alive but push nothing, so the process exits and its supervisor restarts it.
        broken = asyncio.create_task(service.ended())
        await asyncio.wait([asked, broken], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not broken.cancel():
            broken.result()
    finally:
        systemd.send("STOPPING=1")
        await service.stop()
