"""Settings of the Unix sockets that the daemon creates."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from offload.config.fields import Group, Mode, Name, Section, SocketPath, User
from offload.filesystem.accounts import group_id, user_id

MAIN_SOCKET = "main"


class Socket(Section):
    """A Unix socket that the daemon creates; ignored for a socket that systemd hands over."""

    path: SocketPath
    owner: User | None = Field(default=None, description="User by name or number; unset: the daemon's own.")
    group: Group | None = Field(default=None, description="Group by name or number; unset: the daemon's own.")
    mode: Mode = Field(default=0o660, description="Other users are excluded: who cannot connect cannot flood.")

    def owner_uid(self) -> int:
        """The number for chown; -1 leaves the owner unchanged."""
        return -1 if self.owner is None else user_id(self.owner)

    def group_gid(self) -> int:
        return -1 if self.group is None else group_id(self.group)


class MainSocket(Socket):
    path: SocketPath = Field(
        default=Path("/run/offload/offload.sock"), description="One socket for all callers, identified by SO_PEERCRED."
    )


class DedicatedSocket(Socket):
    """A socket for one workload: whoever has it mounted has permission."""

    path: SocketPath = Field(description="In a folder that only this workload can see.")
    name: Name = Field(description="What the selector `socket` and systemd's FileDescriptorName= refer to.")
    mode: Mode = Field(default=0o600, description="A dedicated socket is for one user.")


class Sockets(Section):
    main: MainSocket | None = Field(default=MainSocket(), description="null: dedicated sockets only.")
    dedicated: tuple[DedicatedSocket, ...] = Field(default=(), description="None unless a workload needs its own.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [MAIN_SOCKET, *(s.name for s in self.dedicated)]
        paths = [str(s.path) for s in (*self.dedicated, *([self.main] if self.main else []))]
        for what, values in (("name", names), ("path", paths)):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"every socket needs its own {what}; used twice: {', '.join(twice)}")
        if not self.main and not self.dedicated:
            raise ValueError("no socket: nobody could reach the daemon; set 'main' or add a dedicated one")
        return self

    def by_name(self) -> dict[str, Socket]:
        """Every socket, the main one first."""
        main: dict[str, Socket] = {MAIN_SOCKET: self.main} if self.main else {}
        return main | {socket.name: socket for socket in self.dedicated}


class AdminSocket(Socket):
    path: SocketPath = Field(default=Path("/run/offload/admin.sock"), description="Beside the main socket.")
    mode: Mode = Field(
        default=0o600, description="Whoever opens it can drain the daemon, so only the daemon's user and root."
    )

    @model_validator(mode="after")
    def _not_for_everyone(self) -> Self:
        if self.mode & 0o007:
            raise ValueError(f"mode {self.mode:04o} lets every user drain the daemon; allow at most owner and group")
        return self
