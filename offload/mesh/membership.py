"""The daemon's membership of a mesh: what the control plane said last, and what the daemon makes of it.

It belongs to the daemon's main thread; only `MeshClient` has a separate thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from offload.config.issuers import Mesh
from offload.config.settings import Config
from offload.filesystem.trusted_paths import Trust
from offload.identities.in_force import TrustBundle
from offload.issuing.orders import Order, order
from offload.mesh.client import ClientStatus, MeshClient, MeshIssuer
from offload.mesh.configuration import Limits, MeshConfiguration, read_configuration
from offload.reporting.logs import get_logger
from offload.v1 import node_pb2


class Membership:
    def __init__(
        self,
        settings: Mesh,
        backend: str,
        configured: Callable[[node_pb2.Configuration], None],
        connected: Callable[[], None],
        trust: Trust | None = None,
    ) -> None:
        """`configured` and `connected` are called on the client's thread."""
        self._vector = backend != "software"
        self._client = MeshClient(settings, ["software", *({backend} - {"software"})], configured, connected, trust)
        self._log = get_logger()
        self._in_force = MeshConfiguration()
        self._told: frozenset[str] | None = None  # the identities that were last reported as served

    @property
    def in_force(self) -> MeshConfiguration:
        return self._in_force

    @property
    def limits(self) -> Limits:
        return self._in_force.limits

    def status(self) -> ClientStatus:
        return self._client.status()

    def start(self) -> None:
        self._client.start()

    def stop(self) -> None:
        self._client.stop()

    def take(self, message: node_pb2.Configuration, config: Config) -> None:
        """Sets the configuration that the other methods refer to from now on."""
        self._in_force = read_configuration(message, config, self._vector)

    def report(self) -> None:
        """Reports to the control plane, and the log, after it was put into force. `tell_serving` reports the rest."""
        version, problems = self._in_force.version, self._in_force.problems
        log = self._log.warning if problems else self._log.info
        identities = sorted(self._in_force.identities)
        log("configured by the control plane", version=version, identities=identities, problems=problems)
        self._client.applied(version, problems)
        self._told = None

    def tell_serving(self, identities: Collection[str]) -> None:
        """Takes the identities that the daemon can use now; reports changes among the control plane's own to it."""
        served = frozenset(identities) & self._in_force.identities.keys()
        if served != self._told:
            self._told = served
            self._client.serving(tuple(sorted(served)))

    def merged(self, config: Config) -> Config:
        """Adds the control plane's identities to those of the configuration file, which take precedence."""
        others = {name: identity.settings for name, identity in self._in_force.identities.items()}
        return config.model_copy(update={"identities": others | config.identities})

    def orders(self) -> tuple[dict[str, Order], dict[str, tuple[TrustBundle, ...]]]:
        """What is to be generated, and the trust that comes with it."""
        orders, bundles = {}, {}
        for name, identity in self._in_force.identities.items():
            if identity.settings.generate is not None:
                issuer = MeshIssuer(self._client, identity.mesh, identity.issuer)
                orders[name] = order(name, identity.settings.generate, issuer)
                bundles[name] = identity.bundles
        return orders, bundles
