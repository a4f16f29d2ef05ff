"""Messages to and sockets from systemd; nothing happens if there is no systemd.

Protocols: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START


class ActivationError(ValueError):
    """The sockets handed over cannot be used; the message says why."""


class Notifier:
    """Sends state to the service manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "")
        # Half the time allowed, as sd_watchdog_enabled(3) advises.
        self.watchdog_seconds = int(microseconds) / 2e6 if ours and microseconds.isdigit() and self._address else None

    def send(self, *fields: str) -> None:
        """Sends "READY=1" and the like; a manager that does not listen is no reason to stop."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1)
            try:
                sender.sendto("\n".join(fields).encode(), self._address)
            except OSError:
                return

    def reloading(self) -> None:
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def take_sockets(environment: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """The listening sockets handed over, by name; the variables are removed so that no child takes them too.

    ActivationError for anything but named, listening Unix stream sockets.
    """
    handed_over = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "")
    if environment.pop("LISTEN_PID", "") != str(os.getpid()) or not handed_over.isdigit():
        return {}
    count = int(handed_over)
    name_list = names.split(":") if names else []
    if len(name_list) != count:
        raise ActivationError(
            f"systemd handed over {count} sockets and {len(name_list)} names: set FileDescriptorName="
        )
    sockets: dict[str, socket.socket] = {}
    for descriptor, name in enumerate(name_list, FIRST_DESCRIPTOR):
        os.set_inheritable(descriptor, False)
        try:
            handed = socket.socket(fileno=descriptor)
        except OSError as error:
            raise ActivationError(f"descriptor {descriptor} ('{name}') is not a socket: {error.strerror}") from error
        listening = handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if handed.family != socket.AF_UNIX or handed.type != socket.SOCK_STREAM or not listening:
            raise ActivationError(f"the socket '{name}' from systemd is not a listening Unix stream socket")
        if name in sockets:
            raise ActivationError(f"systemd handed over two sockets named '{name}'; only one can be served")
        sockets[name] = handed
    return sockets
