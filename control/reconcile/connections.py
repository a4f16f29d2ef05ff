"""Proxies that connect, acknowledge or reject what they are sent, and disconnect."""

from __future__ import annotations

from control.reconcile.proxies import Proxy, Refusal
from control.reconcile.snapshots import Snapshots
from control.reconcile.state import State
from control.reconcile.views import Views


class Connections:
    """Confined to the event loop."""

    def __init__(self, state: State, views: Views, snapshots: Snapshots) -> None:
        self._plans, self._quarantines = state.plans, state.quarantines
        self._proxies, self._pending = state.proxies, state.pending
        self._views, self._snapshots = views, snapshots

    async def connect(
        self, mesh: str, name: str, refusal_of: Refusal = lambda _: None, token_ends_at: int | None = None
    ) -> Proxy:
        """Admits a proxy; it has a snapshot, or is `gone` if there is no such dataplane. Raises Withheld."""
        await self._views.view(mesh)  # so that the proxy is not mistaken for a new one
        proxy = Proxy(mesh, name, refusal_of, token_ends_at, self._plans.connect(mesh, name))
        self._proxies.add(proxy)
        self._pending.mark_moved([mesh])
        try:
            view = await self._views.view(mesh)
            snapshot = await self._snapshots.of(view, name)
            # A push may have been faster, with a newer view.
            if not proxy.has_offer:
                proxy.offer(snapshot, view.get("Dataplane", name))
        except BaseException:
            self.disconnect(proxy)
            raise
        return proxy

    def restarted(self, proxy: Proxy) -> None:
        """The proxy has nothing from an earlier stream."""
        self._quarantines.restarted(proxy.mesh, proxy.name)

    def took(self, proxy: Proxy, type_url: str) -> None:
        """The proxy has acknowledged what was sent last of this type."""
        if self._quarantines.took(proxy.mesh, proxy.name, type_url, proxy.sent.get(type_url, {})):
            self._build_again(proxy)

    async def refused(self, proxy: Proxy, type_url: str, detail: str) -> None:
        """The proxy has rejected what was sent last of this type: the cause is left out."""
        view = await self._views.view(proxy.mesh)
        dataplane, content = view.get("Dataplane", proxy.name), proxy.sent.get(type_url)
        if dataplane is not None and content and self._quarantines.refused(view, dataplane, type_url, content, detail):
            self._build_again(proxy)

    def settled(self, proxy: Proxy) -> None:
        """The proxy has acknowledged all that it was given."""
        self._pending.mark_settled(proxy)

    def _build_again(self, proxy: Proxy) -> None:
        self._pending.mark_due(self._proxies.named(proxy.mesh, proxy.name))

    def disconnect(self, proxy: Proxy) -> None:
        self._proxies.remove(proxy)
        self._plans.disconnect(proxy.mesh, proxy.name, proxy.claims)
        self._pending.mark_moved([proxy.mesh])
