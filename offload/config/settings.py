"""Everything that can be configured, its default, and why the default is what it is.

The models of this package are the only place that knows the fields. `config.file` reads them from YAML and the
environment; the table in docs/reference/daemon-configuration.md is generated from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from offload.config.data_plane import DataPlane
from offload.config.fields import AbsolutePath, Address, Name, Section, User, parse_address
from offload.config.identities import SPIFFE_SCHEME, Identity, Keys
from offload.config.issuers import MESH_ISSUER, Issuer, Mesh
from offload.config.sockets import AdminSocket, Socket, Sockets
from offload.filesystem.accounts import user_id
from offload.filesystem.trusted_paths import Trust


class Metrics(Section):
    address: Address | None = Field(
        default="127.0.0.1:9464", description="host:port; loopback, as metrics name identities. null: no metrics."
    )

    def host_and_port(self) -> tuple[str, int] | None:
        return None if self.address is None else parse_address(self.address)


class Audit(Section):
    """Who used which key for what, and who was rejected: JSON lines in a separate file."""

    path: AbsolutePath | None = Field(
        default=None, description="null: no audit log. It grows, so enable log rotation with it."
    )
    key_use: bool = Field(default=True, description="false: refusals only.")
    lines_per_second: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Equal events share a line; those above the limit are counted in one line.",
    )


class Logging(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Starts, stops, reloads and rejections; nothing per operation."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="For people on a terminal, JSON everywhere else."
    )


class Shutdown(Section):
    drain_timeout_seconds: float = Field(
        default=25,
        ge=0,
        le=3600,
        description="Five seconds less than the kill timeout of Kubernetes and most units.",
    )


class Security(Section):
    allow_unlocked_memory: bool = Field(
        default=False,
        description="Allows keys in memory that may be swapped to disk: only for a laptop without RLIMIT_MEMLOCK.",
    )
    sandbox: bool = Field(
        default=False,
        description="The daemon drops capabilities and filters system calls itself; the systemd unit does both "
        "already.",
    )
    user: User | None = Field(
        default=None, description="The user to switch to when started as root; needs sandbox. unset: no switch."
    )
    trusted_users: tuple[User, ...] = Field(
        default=(),
        description="Owners of folders and key files to accept beside root and the daemon: they could replace keys.",
    )

    @model_validator(mode="after")
    def _user_without_sandbox(self) -> Self:
        if self.user is not None and not self.sandbox:
            raise ValueError("'user' without 'sandbox: true' would leave the daemon its capabilities; set both")
        return self

    def trust(self) -> Trust:
        """Whose files and folders the daemon accepts. KeyError if a user no longer exists."""
        becomes = None if self.user is None else user_id(self.user)
        return Trust.of(becomes, [user_id(user) for user in self.trusted_users])


class Config(Section):
    sockets: Sockets = Sockets()
    keys: Keys = Keys()
    identities: dict[str, Identity] = Field(
        default={}, description="None: the keys directory determines them, and nobody may use them."
    )
    issuers: dict[Name, Issuer] = Field(default={}, description="None: all keys are from files.")
    mesh: Mesh | None = Field(default=None, description="null: no control plane; identities come from this file alone.")
    data_plane: DataPlane = DataPlane()
    admin: AdminSocket | None = Field(default=AdminSocket(), description="null: no admin interface.")
    metrics: Metrics = Metrics()
    audit: Audit = Audit()
    logging: Logging = Logging()
    shutdown: Shutdown = Shutdown()
    security: Security = Security()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        known = self.sockets.by_name()
        sources: dict[str, str] = {}
        for name, identity in self.identities.items():
            if not name or "\x00" in name:
                raise ValueError("an identity's name is empty or has a zero byte")
            if len(name) > 2048:
                raise ValueError(f"the name of identity '{name[:40]}...' is longer than 2048 characters")
            for selector in identity.selectors:
                if selector.socket is not None and selector.socket not in known:
                    raise ValueError(
                        f"identity '{name}' selects socket '{selector.socket}', which is not in 'sockets'; "
                        f"defined: {', '.join(sorted(known))}"
                    )
            self._check_generated(name, identity)
            files = identity.files_name(name)
            if files is None:
                continue
            if files in sources:
                raise ValueError(f"identities '{sources[files]}' and '{name}' both use the files of '{files}'")
            sources[files] = name
        if self.admin and self.admin.path in {socket.path for socket in known.values()}:
            raise ValueError(
                f"the admin socket has the path of another socket, {self.admin.path}; choose a separate one"
            )
        return self

    def _check_generated(self, name: str, identity: Identity) -> None:
        if identity.generate is None:
            return
        if MESH_ISSUER in self.issuers or identity.generate.issuer == MESH_ISSUER:
            raise ValueError(f"the issuer '{MESH_ISSUER}' is reserved for identities from the control plane")
        if identity.generate.issuer not in self.issuers:
            raise ValueError(
                f"identity '{name}' uses issuer '{identity.generate.issuer}', which is not in 'issuers'; defined: "
                f"{', '.join(sorted(self.issuers)) or 'none'}"
            )
        if not name.startswith(SPIFFE_SCHEME) and not identity.generate.dns_names:
            raise ValueError(
                f"identity '{name}' is generated, and its certificate would name nobody: make its name a SPIFFE id "
                f"(spiffe://...) or give 'dns_names'"
            )

    def bundle_files(self) -> tuple[Path, ...]:
        """The trust bundle files that it names, each once."""
        lists = [self.keys.trust_bundles, *(identity.trust_bundles or () for identity in self.identities.values())]
        return tuple(dict.fromkeys(bundle.file for bundles in lists for bundle in bundles))

    def all_sockets(self) -> tuple[Socket, ...]:
        """The sockets for callers, and the admin socket."""
        return (*self.sockets.by_name().values(), *([self.admin] if self.admin else []))

    def socket_folders(self) -> tuple[Path, ...]:
        """The folders of sockets, each once; the handover's socket is beside the admin socket."""
        return tuple(dict.fromkeys(socket.path.parent for socket in self.all_sockets()))
