"""Where identities come from: the keys directory, keys that are generated here, and a mesh's control plane.

All of them are merged in the keyring. Belongs to the daemon's one thread; the watcher, the generator and the client of
the control plane have their own threads, which only put events.
"""

from __future__ import annotations

from collections.abc import Callable

from offload import _dataplane
from offload.config.identities import Keys
from offload.config.issuers import MESH_ISSUER, Mesh
from offload.config.settings import Config
from offload.daemon.events import Configure, Look
from offload.filesystem.trusted_paths import Trust
from offload.identities.in_force import Changes
from offload.identities.keyring import Keyring
from offload.identities.watcher import DirectoryWatcher
from offload.issuing.generator import GeneratedIdentities
from offload.issuing.orders import orders_of
from offload.mesh.configuration import Bound, Limits
from offload.mesh.membership import Membership
from offload.reporting import logs
from offload.v1 import node_pb2


class IdentitySources:
    """`put` takes events; `changed` is called when what is in force has changed."""

    def __init__(
        self,
        data_plane: _dataplane.DataPlane,
        keyring: Keyring,
        trust: Trust,
        put: Callable[[Look | Configure], None],
        changed: Callable[[], None],
    ) -> None:
        self._data_plane, self._trust, self._put, self._changed = data_plane, trust, put, changed
        self._log = logs.get_logger()
        self._watcher: DirectoryWatcher | None = None
        self._is_configured = False  # by the control plane
        self.keyring = keyring
        self.generated = GeneratedIdentities(lambda: put(Look()))
        self.membership: Membership | None = None  # of a mesh

    def start(self, config: Config) -> None:
        """Puts into force what exists, before the data plane starts."""
        self._order(config)
        self.keyring.refresh(config, self.generated.current())
        if not self.keyring.current.identities and not self.generated.names() and not config.mesh:
            directory = str(config.keys.directory)
            self._log.warning("no identity is in force; waiting for key pairs", keys=directory)

    def generate(self, mesh: Mesh | None) -> None:
        """Begins to request certificates from issuers, and joins the mesh."""
        self.generated.start()
        if mesh is not None:
            backend = self._data_plane.statistics()["backend"]
            self.membership = Membership(
                mesh,
                backend,
                lambda message: self._put(Configure(message)),
                lambda: self.generated.hurry(MESH_ISSUER),
                self._trust,
            )
            self.membership.start()

    def watch(self, keys: Keys) -> None:
        debounce_ms = keys.debounce_ms if keys.watch else None
        self._watcher = DirectoryWatcher(keys.directory, debounce_ms, keys.rescan_seconds, lambda: self._put(Look()))
        self._watcher.start()

    def stop_renewing(self) -> None:
        """To be called when the daemon drains: what is in force stays."""
        self.generated.stop()
        if self._watcher:
            self._watcher.stop()

    def stop(self) -> None:
        if self.membership:
            self.membership.stop()
        self.stop_renewing()

    def limits(self, config: Config) -> tuple[Bound, Bound]:
        """The limits in force: the wait for a batch in microseconds, and the length of the queue."""
        limits = self.membership.limits if self.membership else Limits()
        return limits.within(config.data_plane.max_wait_us, config.data_plane.queue_limit)

    def missing(self, config: Config) -> list[str]:
        """Identities that wait for their certificates."""
        missing = sorted(set(self.generated.names()) - set(self.generated.current().pairs))
        return [*missing, "the control plane's"] if config.mesh and not self._is_configured else missing

    def configure(self, config: Config, message: node_pb2.Configuration) -> None:
        """Puts the control plane's configuration into force, and reports that to it."""
        if self.membership is None:
            return
        self.membership.take(message, config)
        wait, queue = self.limits(config)
        self._data_plane.set_limits(wait.value, queue.value)
        self._order(config)
        self.refresh(config)
        self.membership.report()
        self.membership.tell_serving(self.keyring.current.identities)
        self._is_configured = True

    def reload(self, config: Config) -> None:
        """Adopts which identities a new configuration wants generated; `refresh` does the rest."""
        self._order(config)

    def refresh(self, config: Config) -> Changes:
        """Puts into force what is on disk now, and what was generated."""
        merged = self.membership.merged(config) if self.membership else config
        try:
            difference = self.keyring.refresh(merged, self.generated.current())
        except (OSError, KeyError, ValueError, RuntimeError, MemoryError) as error:
            # Nothing on disk or in the user database may take down what is in force.
            self._log.exception("cannot apply the keys directory; the previous state stays in force", reason=str(error))
            return Changes()
        if difference:
            self._changed()
        if self.membership:
            self.membership.tell_serving(self.keyring.current.identities)
        return difference

    def status(self) -> str:
        """A line for systemctl status."""
        identities, problems = self.keyring.current.identities, self.keyring.current.problems
        keys = sum(len(identity.pairs) for identity in identities.values())
        refused = f", {len(problems)} files rejected" if problems else ""
        return f"serving {len(identities)} identities, {keys} keys{refused}"

    def _order(self, config: Config) -> None:
        """Requests keys for every identity that the configuration file and the control plane want generated."""
        orders, bundles = self.membership.orders() if self.membership else ({}, {})
        self.generated.configure(orders | orders_of(config), bundles)
