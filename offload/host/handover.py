"""An upgrade without a gap: the next daemon takes over the listening sockets of the running one.

It uses a Unix socket beside the admin socket (its path and ".handover"), with the same owner and mode; both ends also
check with SO_PEERCRED that the other is root or a process of their own user. One packet per direction and step
(SOCK_SEQPACKET):
    next: {"take": 1}          now: {"listeners": [{name, path, inode}, ...], "more": bool}, with the descriptors
    next, once it is ready: {"taken": [name, ...]}       now: {"draining": true}, and it drains

Whatever fails before "taken" leaves the running daemon as it was: it has kept accepting all the time, and the next one
accepts nothing before it is ready. Callers that arrive in between wait in the queue of the socket.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from offload.config.fields import SOCKET_PATH_MAX
from offload.config.sockets import AdminSocket, Sockets
from offload.filesystem.trusted_paths import Trust
from offload.host.listeners import Listener, SocketError, bind, check_folder, clear_the_way, remove_socket_file
from offload.reporting import logs
from offload.reporting.folded_log import FoldedLog

VERSION = 1
SUFFIX = ".handover"
NO_HANDOVER = "handover failed; this daemon continues"
SECONDS = 120.0  # the next one calibrates and may wait for certificates; then it is assumed dead
ANSWER_SECONDS = 10.0
PACKET_MAX = 64 * 1024
AGAIN_SECONDS = 0.5
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED})
DESCRIPTORS_PER_PACKET = 100  # the kernel allows 253


class HandoverError(Exception):
    """The handover failed; the running daemon stays in force. The message says why."""


def handover_path(admin: AdminSocket) -> Path:
    return Path(f"{admin.path}{SUFFIX}")


def _peer(connection: socket.socket) -> int:
    """The uid of the process at the other end."""
    size = struct.calcsize("3i")
    _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


def _is_ours(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _send(connection: socket.socket, message: dict[str, Any], sockets: Sequence[socket.socket] = ()) -> None:
    packed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno() for s in sockets]))]
    connection.sendmsg([json.dumps(message).encode()], packed if sockets else [])


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[socket.socket]]:
    """Receives one packet with its sockets. HandoverError for anything else."""
    room = socket.CMSG_SPACE(DESCRIPTORS_PER_PACKET * array.array("i").itemsize)
    data, ancillary, flags, _ = connection.recvmsg(PACKET_MAX, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    sockets = [socket.socket(fileno=number) for number in descriptors]
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise HandoverError("a handover packet was truncated")
        message = json.loads(data) if data else None
        if not isinstance(message, dict):
            raise HandoverError("the other daemon aborted the handover")
    except ValueError as error:
        _close(sockets)
        raise HandoverError("a handover packet is not JSON") from error
    except HandoverError:
        _close(sockets)
        raise
    return message, sockets


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


# ---- the running daemon ----


class HandoverServer:
    """Offers the sockets to authorized processes, from construction until `stop`.

    `begin` returns what there is to hand over, or None while no handover is possible; `end` is called once for each
    `begin` that returned something, with the names that were taken, or None if the handover failed.
    """

    def __init__(
        self,
        admin: AdminSocket,
        begin: Callable[[], list[Listener] | None],
        end: Callable[[frozenset[str] | None], None],
        trust: Trust,
        folded: FoldedLog,
    ) -> None:
        self._begin, self._end = begin, end
        self._log, self._folded = logs.get_logger(), folded
        self._asking: socket.socket | None = None
        self._made: tuple[Path, int] | None = None
        self.path = handover_path(admin)
        if len(os.fsencode(self.path)) > SOCKET_PATH_MAX:
            raise SocketError(f"the path of the handover socket, {self.path}, is too long: shorten admin.path")
        check_folder(self.path, trust)
        clear_the_way(self.path, socket.SOCK_SEQPACKET)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._made = bind(self._socket, self.path, admin)
            self._socket.listen(4)
        except OSError as error:
            if self._made is not None:
                remove_socket_file(*self._made)
            self._socket.close()
            raise SocketError(f"cannot create the handover socket {self.path}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._run, name="handover", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """A handover in progress fails: the next daemon must not count on files that we remove."""
        if self._made is not None:
            remove_socket_file(*self._made)
        for each in (self._socket, self._asking):
            if each is not None:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)  # wakes accept and recvmsg
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    time.sleep(AGAIN_SECONDS)  # otherwise the next daemon could never take over
                    continue
                return  # stopped
            with connection:
                self._asking = connection
                try:
                    connection.settimeout(ANSWER_SECONDS)
                    self._answer(connection)
                except (OSError, HandoverError) as error:
                    self._log.warning(NO_HANDOVER, reason=str(error))
                finally:
                    self._asking = None

    def _answer(self, connection: socket.socket) -> None:
        uid = _peer(connection)
        if _is_ours(uid):
            self._hand_over(connection)
        else:  # whoever can connect to the file, if its mode was changed, can do so all the time
            reason = "requested by a user other than root and the daemon's own"
            self._folded.warning(("handover", uid), NO_HANDOVER, uid=uid, reason=reason)

    def _hand_over(self, connection: socket.socket) -> None:
        request, sockets = _receive(connection)
        _close(sockets)
        if request.get("take") != VERSION:
            _send(connection, {"refused": f"this daemon speaks version {VERSION} of the handover protocol"})
            raise HandoverError("the other daemon speaks another version of the handover protocol")
        offered = self._begin()
        if offered is None:
            _send(connection, {"refused": "the running daemon is already draining"})
            raise HandoverError("this daemon is draining")
        taken: frozenset[str] | None = None
        try:
            self._log.info("handing the sockets over", sockets=[o.name for o in offered])
            self._offer(connection, offered)
            connection.settimeout(SECONDS)
            answer, sockets = _receive(connection)
            _close(sockets)
            names = answer.get("taken")
            if not isinstance(names, list):
                raise HandoverError("the other daemon did not become ready")
            # The last message decides: once this is sent, the next daemon serves, and we drain.
            _send(connection, {"draining": True})
            taken = frozenset(str(name) for name in names)
        finally:
            self._end(taken)

    def _offer(self, connection: socket.socket, offered: list[Listener]) -> None:
        for start in range(0, len(offered) or 1, DESCRIPTORS_PER_PACKET):
            part = offered[start : start + DESCRIPTORS_PER_PACKET]
            listeners = [
                {"name": o.name, "path": str(o.made[0]), "inode": o.made[1]} if o.made else {"name": o.name}
                for o in part
            ]
            more = start + DESCRIPTORS_PER_PACKET < len(offered)
            _send(connection, {"listeners": listeners, "more": more}, [o.socket for o in part])


# ---- the next daemon ----


class Handover:
    """The offer of the running daemon. It drains after `complete`, and continues if we close or end before."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.offered: dict[str, Listener] = {}

    @staticmethod
    def ask(admin: AdminSocket) -> Handover | None:
        """None if no daemon runs there. HandoverError if it refuses, or is not ours."""
        path = handover_path(admin)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        it = Handover(connection)
        try:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(path))
            if not _is_ours(_peer(connection)):
                raise HandoverError(f"{path} belongs to a process of another user: refusing its sockets")
            _send(connection, {"take": VERSION})
            it._take()
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except OSError as error:
            it.close()
            raise HandoverError(f"the daemon at {path} hands no sockets over: {error}") from error
        except HandoverError:
            it.close()
            raise
        return it

    def _take(self) -> None:
        more = True
        while more:
            message, sockets = _receive(self._connection)
            listeners = message.get("listeners")
            if not isinstance(listeners, list) or len(listeners) != len(sockets):
                _close(sockets)
                raise HandoverError(str(message.get("refused", "the running daemon offers no sockets")))
            for description, handed in zip(listeners, sockets, strict=True):
                made = (Path(description["path"]), int(description["inode"])) if "path" in description else None
                name = str(description["name"])
                self.offered[name] = Listener(name, handed, made)
            more = bool(message.get("more"))

    def take(self, sockets: Sockets) -> dict[str, Listener]:
        """The sockets that this configuration wants at the same path, and those that systemd made."""
        named = sockets.by_name()
        fitting = [
            name
            for name, listener in self.offered.items()
            if name in named and (listener.made is None or listener.made[0] == named[name].path)
        ]
        return {name: self.offered.pop(name) for name in fitting}

    def complete(self, taken: Sequence[str]) -> None:
        """Reports that we are ready: the other one drains. HandoverError if it does not confirm that."""
        try:
            _send(self._connection, {"taken": list(taken)})
            answer, sockets = _receive(self._connection)
        except OSError as error:
            raise HandoverError(f"the running daemon no longer answers: {error}") from error
        _close(sockets)
        if answer.get("draining") is not True:
            raise HandoverError("the running daemon did not agree to drain")
        self.close()

    def close(self) -> None:
        _close([o.socket for o in self.offered.values()])
        self.offered.clear()
        self._connection.close()
