"""The sockets for callers: opened, served by the data plane, recreated if lost, handed over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from socket import socket

from offload import _dataplane
from offload.config.sockets import Socket, Sockets
from offload.filesystem.trusted_paths import Trust
from offload.host.listeners import Listener, SocketError, make_listener, open_listeners
from offload.host.runtime_folder import make_folder
from offload.reporting import logs


class CallerSockets:
    """For one thread. They are opened before the daemon drops its privileges, and served once there is a data plane."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._log = logs.get_logger()
        self._listeners: dict[str, Listener] = {}
        self._data_plane: _dataplane.DataPlane | None = None
        self._reported: set[str] = set()  # sockets whose file is gone and cannot be recreated

    def open(self, settings: Sockets, from_systemd: dict[str, socket], taken: Mapping[str, Listener]) -> None:
        """Raises SocketError. Sockets taken over are served, but their files are not ours before `adopt`."""
        opened = open_listeners(settings, from_systemd, taken, self._trust)
        self._listeners = {listener.name: listener for listener in opened}

    def adopt(self, taken: Mapping[str, Listener]) -> None:
        """The previous daemon has given these up: from here on their files are ours."""
        self._listeners |= taken

    def serve(self, data_plane: _dataplane.DataPlane) -> None:
        self._data_plane = data_plane
        for listener in self._listeners.values():
            data_plane.add_listener(listener.name, listener.socket.fileno())

    def all(self) -> list[Listener]:
        return list(self._listeners.values())

    def addresses(self) -> dict[str, str]:
        """The addresses, for people."""
        return {name: str(listener.socket.getsockname()) for name, listener in self._listeners.items()}

    def change_dedicated(self, running: Sockets, loaded: Sockets) -> Sockets:
        """Dedicated sockets come and go with their workloads; the main one stays. Returns what is served now."""
        served = {socket.name: socket for socket in running.dedicated}
        new = {socket.name: socket for socket in loaded.dedicated}
        for name in [name for name, settings in served.items() if new.get(name) != settings]:
            self._remove(name)
            del served[name]
        for name, settings in new.items():
            if name in served:
                continue
            try:
                self._add(self._made(name, settings))
            except SocketError as error:
                self._log.error("cannot create a dedicated socket", socket=name, reason=str(error))
                continue
            served[name] = settings
        return running.model_copy(update={"dedicated": tuple(served[name] for name in new if name in served)})

    def remake_lost(self, settings: Sockets) -> None:
        """Recreates files that somebody removed. Established connections continue either way."""
        for name in [name for name, listener in self._listeners.items() if listener.lost]:
            path = str(self._listeners[name].socket.getsockname())
            try:
                made = self._made(name, settings.by_name()[name])
            except SocketError as error:
                if name not in self._reported:
                    self._log.error("a socket's file has been removed and cannot be recreated", reason=str(error))
                self._reported.add(name)
                continue
            self._remove(name)
            self._add(made)
            self._reported.discard(name)
            self._log.warning("recreated a socket whose file had been removed", socket=name, path=path)

    def let_go(self, taken: Collection[str]) -> None:
        """The next daemon owns these by now: their files stay when we close them."""
        for name in self._listeners.keys() & set(taken):
            self._listeners[name].made = None

    def close(self) -> None:
        for listener in self._listeners.values():
            listener.close()

    def _made(self, name: str, settings: Socket) -> Listener:
        make_folder(settings.path.parent, self._trust)
        return make_listener(name, settings, self._trust)

    def _add(self, listener: Listener) -> None:
        if self._data_plane is not None:
            self._data_plane.add_listener(listener.name, listener.socket.fileno())
        self._listeners[listener.name] = listener

    def _remove(self, name: str) -> None:
        if self._data_plane is not None:
            self._data_plane.remove_listener(name)
        self._listeners.pop(name).close()
