"""Everything that can be configured, its default, and why the default is what it is.

These models are the only place that knows the fields; `config.file` reads them from YAML and the environment, and the
table in docs/reference/daemon-configuration.md is printed from them (`offload check-config --reference`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from offload.config.fields import (
    AbsolutePath,
    Address,
    Group,
    Id,
    Mode,
    Name,
    Section,
    SocketPath,
    User,
    parse_address,
    shards_setting,
)
from offload.filesystem.accounts import group_id, user_id
from offload.filesystem.trusted_paths import Trust

if TYPE_CHECKING:
    from offload import _dataplane

MAIN_SOCKET = "main"

SPIFFE_SCHEME = "spiffe://"
MESH_ISSUER = "mesh"

KeyType = Literal["p256", "p384", "rsa2048", "rsa3072", "rsa4096", "ed25519"]
Usage = Literal["tls13", "tls12+13", "any"]
Backend = Literal["auto", "software", "ifma8"]


class Socket(Section):
    """A Unix socket the daemon makes; ignored for a socket that systemd hands over."""

    path: SocketPath
    owner: User | None = Field(default=None, description="User by name or number; unset: the daemon's own.")
    group: Group | None = Field(default=None, description="Group by name or number; unset: the daemon's own.")
    mode: Mode = Field(default=0o660, description="Who cannot connect cannot even flood, so others are left out.")

    def owner_uid(self) -> int:
        """The number for chown; -1 leaves it."""
        return -1 if self.owner is None else user_id(self.owner)

    def group_gid(self) -> int:
        return -1 if self.group is None else group_id(self.group)


class MainSocket(Socket):
    path: SocketPath = Field(
        default=Path("/run/offload/offload.sock"), description="One socket for all callers, told apart by SO_PEERCRED."
    )


class DedicatedSocket(Socket):
    """A socket for one workload: what is mounted into it is its permission."""

    path: SocketPath = Field(description="In a folder that only this workload gets to see.")
    name: Name = Field(description="What the selector `socket` and systemd's FileDescriptorName= refer to.")
    mode: Mode = Field(default=0o600, description="A dedicated socket is for one user.")


class Sockets(Section):
    main: MainSocket | None = Field(default=MainSocket(), description="null: dedicated sockets only.")
    dedicated: tuple[DedicatedSocket, ...] = Field(default=(), description="None until a workload needs its own.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [MAIN_SOCKET, *(s.name for s in self.dedicated)]
        paths = [str(s.path) for s in (*self.dedicated, *([self.main] if self.main else []))]
        for what, values in (("name", names), ("path", paths)):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"every socket needs its own {what}; used twice: {', '.join(twice)}")
        if not self.main and not self.dedicated:
            raise ValueError("no socket at all: nobody could reach the daemon; set 'main' or add a dedicated one")
        return self


class TrustBundleFile(Section):
    """CA certificates that a peer's chain may end in."""

    file: AbsolutePath = Field(description="PEM with one or more CA certificates.")
    trust_domain: str = Field(default="", description="Only for this SPIFFE trust domain; empty: not bound to one.")


class Keys(Section):
    directory: AbsolutePath = Field(
        default=Path("/etc/offload/keys"),
        description="Where the system's other daemons keep what an administrator provides.",
    )
    watch: bool = Field(default=True, description="A rotated certificate should serve at once, without a signal.")
    debounce_ms: int = Field(
        default=200, ge=10, le=60_000, description="Chain and key are two files: wait until both have been written."
    )
    rescan_seconds: int = Field(
        default=30,
        ge=1,
        le=86_400,
        description="Finds what inotify cannot see: network file systems, targets of symlinks.",
    )
    warn_before_expiry_days: int = Field(
        default=7, ge=0, le=3650, description="Time for a person to act on a certificate that nobody renews."
    )
    trust_bundles: tuple[TrustBundleFile, ...] = Field(
        default=(), description="For identities that name none of their own; empty: peers are not verified with them."
    )


class Selector(Section):
    """Matches a caller when every field given does."""

    uid: Id | None = Field(default=None, description="The caller's user id.")
    user: User | None = Field(default=None, description="The same by name; a number is taken too.")
    gid: Id | None = Field(default=None, description="The caller's primary or a supplementary group id.")
    group: Group | None = Field(default=None, description="The same by name.")
    executable: AbsolutePath | None = Field(
        default=None, description="Compared with /proc/PID/exe; only beside another field than the main socket."
    )
    cgroup: str | None = Field(default=None, description="Beginning of the cgroup path, up to a '/'; not the root.")
    socket: Name | None = Field(default=None, description="Came through the socket of this name.")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.model_fields_set or all(getattr(self, f) is None for f in type(self).model_fields):
            raise ValueError("a selector needs at least one field, or it would match every caller")
        if self.uid is not None and self.user is not None:
            raise ValueError("give 'uid' or 'user', not both")
        if self.gid is not None and self.group is not None:
            raise ValueError("give 'gid' or 'group', not both")
        if self.cgroup is not None and not self.cgroup.startswith("/"):
            raise ValueError(f"cgroup must begin with '/', as in /proc/PID/cgroup, not '{self.cgroup}'")
        # `socket: main` by itself says openly that everybody fits who may open it.
        if not self.is_proof and (self.cgroup is not None or self.executable is not None):
            if self.cgroup is not None:
                raise ValueError(
                    f"every process of the host is in cgroup '{self.cgroup}': name one below it, or who the caller is "
                    "(uid, user, gid, group, or a dedicated socket)"
                )
            raise ValueError(
                f"'executable' {'alone' if self.socket is None else 'with the socket of everybody'} is no proof: "
                "whoever may run that program can have it load code of his own (LD_PRELOAD) or trace it; name "
                "the caller too: uid, user, gid, group, cgroup, or a dedicated socket"
            )
        return self

    @property
    def is_proof(self) -> bool:
        """Whether a field is given that a caller cannot choose for himself; the main socket is for everybody."""
        named = any(f is not None for f in (self.uid, self.user, self.gid, self.group))
        dedicated = self.socket not in (None, MAIN_SOCKET)
        return named or dedicated or (self.cgroup is not None and self.cgroup.strip("/") != "")

    def rule(self) -> _dataplane.Selector:
        """For the data plane: numbers in place of names."""
        rule: _dataplane.Selector = {}
        if (user := self.user if self.uid is None else self.uid) is not None:
            rule["uid"] = user_id(user)
        if (group := self.group if self.gid is None else self.gid) is not None:
            rule["gid"] = group_id(group)
        if self.executable is not None:
            rule["executable"] = str(self.executable)
        if self.cgroup is not None:
            rule["cgroup"] = self.cgroup
        if self.socket is not None:
            rule["socket"] = self.socket
        return rule

    def words(self) -> str:
        """For people: "user envoy (uid 101), socket cart"."""
        parts = []
        if self.uid is not None:
            parts.append(f"uid {self.uid}")
        if self.user is not None:
            parts.append(f"user {self.user} (uid {user_id(self.user)})")
        if self.gid is not None:
            parts.append(f"gid {self.gid}")
        if self.group is not None:
            parts.append(f"group {self.group} (gid {group_id(self.group)})")
        others = {f: getattr(self, f) for f in ("executable", "cgroup", "socket")}
        parts += [f"{field} {value}" for field, value in others.items() if value is not None]
        return ", ".join(parts)


class LocalCa(Section):
    """A CA on this host, for development and tests."""

    certificate: AbsolutePath = Field(description="PEM: the CA, then what leads to the root.")
    key: AbsolutePath = Field(description="PEM, not encrypted.")
    lifetime_hours: float = Field(
        default=24, ge=0.001, le=8784, description="Short: what is renewed by itself need not be revoked."
    )


class ExecProgram(Section):
    """A program that reads a certificate request and prints a chain."""

    command: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="Program (absolute path) and arguments; no shell reads them."
    )
    timeout_seconds: float = Field(default=30, ge=0.1, le=600, description="A CA over the network takes a while.")

    @model_validator(mode="after")
    def _absolute_program(self) -> Self:
        if not self.command[0].startswith("/"):
            raise ValueError(f"the program must be an absolute path, not '{self.command[0]}'")
        return self


class Mesh(Section):
    """A control plane that says which identities this node has, whom they trust, and certifies their keys."""

    control_plane: Annotated[str, Field(pattern=r"^[^\s/:]+:[0-9]{1,5}$|^\[[0-9a-fA-F:]+\]:[0-9]{1,5}$")] = Field(
        description="host:port of its xDS address; the name has to be in its certificate."
    )
    ca_file: AbsolutePath = Field(description="PEM: the CA of the control plane's certificate (its ca.pem).")
    token_file: AbsolutePath = Field(description="The node token: mesh generate node-token --name NODE.")
    proxy: Annotated[str, Field(pattern=r"^http://[^\s/@]+:[0-9]{1,5}$")] | None = Field(
        default=None, description="http://host:port to CONNECT through; unset: none, whatever http_proxy says."
    )


class Issuer(Section):
    """Who certifies keys that are generated here: exactly one kind."""

    local_ca: LocalCa | None = Field(default=None, description="A CA in files on this host.")
    exec: ExecProgram | None = Field(default=None, description="A program that asks some CA.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.local_ca is None) == (self.exec is None):
            raise ValueError("give exactly one of 'local_ca' and 'exec'")
        return self


class GenerateSource(Section):
    """Generated on this node, in locked memory: a new key for each certificate, none on disk."""

    issuer: Name = Field(description="One of 'issuers'.")
    key_type: KeyType = Field(default="p256", description="The cheapest that every TLS peer takes.")
    dns_names: tuple[Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")], ...] = Field(
        default=(), description="In the certificate, beside the SPIFFE id that the identity's name is."
    )


class Source(Section):
    """Where an identity's keys are from: exactly one kind. Files are <files>/*.{pem,crt,cer,key}, or <files>.crt with
    <files>.key, or <files>.pem in the keys directory."""

    files: Annotated[str, Field(pattern=r"^[^/.\x00][^/\x00]*$")] | None = Field(
        default=None, description="For names that no file can have."
    )
    generate: GenerateSource | None = Field(default=None, description="unset: from files.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.files is None) == (self.generate is None):
            raise ValueError("give exactly one of 'files' and 'generate'")
        return self


class Identity(Section):
    source: Source | None = Field(default=None, description="unset: files named like the identity.")
    selectors: tuple[Selector, ...] = Field(
        default=(), description="Deny by default: without a selector nobody may use it."
    )
    usage: Usage = Field(
        default="tls13", description="The narrowest: a captured sidecar can sign only TLS 1.3 handshakes."
    )
    decrypt: bool = Field(
        default=False, description="RSA key exchange has no forward secrecy; TLS 1.3 does not have it."
    )
    trust_bundles: tuple[TrustBundleFile, ...] | None = Field(
        default=None, description="unset: ca.crt or ca.pem beside the key pair, else keys.trust_bundles."
    )

    @property
    def generate(self) -> GenerateSource | None:
        return self.source.generate if self.source else None

    def files_name(self, name: str) -> str | None:
        """What its files are named like; None when it is generated."""
        if self.generate:
            return None
        return self.source.files if self.source and self.source.files else name

    @model_validator(mode="after")
    def _decrypt_needs_tls12(self) -> Self:
        if self.decrypt and self.usage == "tls13":
            raise ValueError("'decrypt' is TLS 1.2 RSA key exchange: it needs usage 'tls12+13' or 'any'")
        return self


class DataPlane(Section):
    backend: Backend = Field(
        default="auto", description="The vector kernels where the CPU has AVX-512 IFMA, else software."
    )
    shards: Annotated[int | str, BeforeValidator(shards_setting)] = Field(
        default="auto",
        description="Threads that sign: a quarter of the CPUs, 2 to 16; two keep P-256 from waiting behind RSA.",
    )
    max_wait_us: int = Field(
        default=1000,
        ge=0,
        le=100_000,
        description="RSA batches fill while operations come quickly; one that comes alone never waits; 0 turns it off.",
    )
    queue_limit: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="About half a second of RSA-2048 on two cores; more would be too late.",
    )
    connection_queue_limit: int = Field(
        default=1024, ge=1, le=1_000_000, description="A quarter of the queue: one noisy sidecar cannot fill it."
    )
    user_queue_limit: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Of one uid or dedicated socket; unset: three quarters of queue_limit, so one user cannot fill it.",
    )
    max_connections: int = Field(default=4096, ge=1, le=100_000, description="Many times the sidecars of a node.")
    max_connections_per_user: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Of one uid or dedicated socket; unset: half of max_connections, as all sidecars may be one user.",
    )
    max_connections_without_identity: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Of all callers that no selector matches; unset: an eighth of max_connections, for sidecars that "
        "are early. The rest is kept for callers that have an identity.",
    )
    max_streams_per_connection: int = Field(
        default=1024, ge=1, le=1_000_000, description="Unary clients have one stream for each operation in flight."
    )
    user_memory_mib: int = Field(
        default=32,
        ge=1,
        le=4096,
        description="Held for one user, and for all callers without an identity; a thousand sidecars need half.",
    )
    idle_timeout_seconds: float = Field(
        default=300,
        ge=0.1,
        le=86_400,
        description="A connection without a call ends: gRPC clients connect again. Who watches an identity has one.",
    )
    stalled_timeout_seconds: float = Field(
        default=30,
        ge=0.1,
        le=86_400,
        description="A peer that takes nothing of its answers is closed; Envoy has given up after seconds.",
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.connection_queue_limit > self.queue_limit:
            raise ValueError("'connection_queue_limit' is above 'queue_limit': one connection could fill the queue")
        return self

    @property
    def users_queue_limit(self) -> int:
        return min(self.user_queue_limit or max(1, self.queue_limit * 3 // 4), self.queue_limit)

    @property
    def connections_per_user(self) -> int:
        return min(self.max_connections_per_user or max(1, self.max_connections // 2), self.max_connections)

    @property
    def connections_without_identity(self) -> int:
        return min(self.max_connections_without_identity or max(1, self.max_connections // 8), self.max_connections)

    @property
    def idle_timeout_ms(self) -> int:
        return round(self.idle_timeout_seconds * 1000)

    @property
    def stalled_timeout_ms(self) -> int:
        return round(self.stalled_timeout_seconds * 1000)

    def shard_count(self) -> int:
        if isinstance(self.shards, int):
            return self.shards
        return max(2, min(16, len(os.sched_getaffinity(0)) // 4))


class AdminSocket(Socket):
    path: SocketPath = Field(default=Path("/run/offload/admin.sock"), description="Beside the main socket.")
    mode: Mode = Field(default=0o600, description="Whoever opens it can drain the daemon: its own user and root only.")

    @model_validator(mode="after")
    def _not_for_everyone(self) -> Self:
        if self.mode & 0o007:
            raise ValueError(f"mode {self.mode:04o} lets every user drain the daemon; allow owner and group at most")
        return self


class Metrics(Section):
    address: Address | None = Field(
        default="127.0.0.1:9464", description="host:port; loopback, as metrics name identities. null: no metrics."
    )

    def host_and_port(self) -> tuple[str, int] | None:
        return None if self.address is None else parse_address(self.address)


class Audit(Section):
    """Who used which key for what, and who was turned away: JSON lines in a file of its own."""

    path: AbsolutePath | None = Field(
        default=None, description="null: no audit log. It grows, so whoever wants it also rotates it."
    )
    key_use: bool = Field(default=True, description="false: refusals only.")
    lines_per_second: int = Field(
        default=200, ge=1, le=100_000, description="Equal events are one line; what is above this is counted in one."
    )


class Logging(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Starts, stops, reloads and refusals; nothing per operation."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="For people on a terminal, JSON everywhere else."
    )


class Shutdown(Section):
    drain_timeout_seconds: float = Field(
        default=25,
        ge=0,
        le=3600,
        description="Five seconds less than Kubernetes and most units allow before they kill.",
    )


class Security(Section):
    allow_unlocked_memory: bool = Field(
        default=False,
        description="Keys in memory that may be swapped to disk: only for a laptop without RLIMIT_MEMLOCK.",
    )
    sandbox: bool = Field(
        default=False,
        description="No capabilities and a system call filter, by itself; the systemd unit has both already.",
    )
    user: User | None = Field(
        default=None, description="Who to become when started as root; needs sandbox. unset: whoever started it."
    )
    trusted_users: tuple[User, ...] = Field(
        default=(),
        description="Whose folders and key files are taken too: others than root and the daemon could swap them.",
    )

    @model_validator(mode="after")
    def _user_without_sandbox(self) -> Self:
        if self.user is not None and not self.sandbox:
            raise ValueError("'user' without 'sandbox: true' would leave the daemon its other rights; set both")
        return self

    def trust(self) -> Trust:
        """Whose files and folders the daemon accepts. KeyError when a user no longer exists."""
        becomes = None if self.user is None else user_id(self.user)
        return Trust.of(becomes, [user_id(user) for user in self.trusted_users])


class Config(Section):
    sockets: Sockets = Sockets()
    keys: Keys = Keys()
    identities: dict[str, Identity] = Field(
        default={}, description="None: the keys directory says which there are, and nobody may use them."
    )
    issuers: dict[Name, Issuer] = Field(default={}, description="None: all keys are from files.")
    mesh: Mesh | None = Field(default=None, description="null: identities are in this file alone.")
    data_plane: DataPlane = DataPlane()
    admin: AdminSocket | None = Field(default=AdminSocket(), description="null: no admin interface.")
    metrics: Metrics = Metrics()
    audit: Audit = Audit()
    logging: Logging = Logging()
    shutdown: Shutdown = Shutdown()
    security: Security = Security()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        known = {s.name for s in self.sockets.dedicated} | ({MAIN_SOCKET} if self.sockets.main else set())
        sources: dict[str, str] = {}
        for name, identity in self.identities.items():
            if not name or "\x00" in name:
                raise ValueError("an identity's name is empty or has a zero byte")
            if len(name) > 2048:
                raise ValueError(f"the name of identity '{name[:40]}...' is longer than 2048 characters")
            for selector in identity.selectors:
                if selector.socket is not None and selector.socket not in known:
                    raise ValueError(
                        f"identity '{name}' wants socket '{selector.socket}', which is not in 'sockets'; "
                        f"there {'is' if len(known) == 1 else 'are'}: {', '.join(sorted(known))}"
                    )
            self._check_generated(name, identity)
            files = identity.files_name(name)
            if files is None:
                continue
            if files in sources:
                raise ValueError(f"identities '{sources[files]}' and '{name}' both want the files of '{files}'")
            sources[files] = name
        if self.admin and self.admin.path in {s.path for s in self.sockets.dedicated} | (
            {self.sockets.main.path} if self.sockets.main else set()
        ):
            raise ValueError(f"the admin socket needs a path of its own, not {self.admin.path}")
        return self

    def _check_generated(self, name: str, identity: Identity) -> None:
        if identity.generate is None:
            return
        if MESH_ISSUER in self.issuers or identity.generate.issuer == MESH_ISSUER:
            raise ValueError(f"the issuer '{MESH_ISSUER}' is the control plane's, for identities that it names")
        if identity.generate.issuer not in self.issuers:
            raise ValueError(
                f"identity '{name}' wants issuer '{identity.generate.issuer}', which is not in 'issuers'; there "
                f"{'are: ' + ', '.join(sorted(self.issuers)) if self.issuers else 'is none'}"
            )
        if not name.startswith(SPIFFE_SCHEME) and not identity.generate.dns_names:
            raise ValueError(
                f"identity '{name}' is generated, and its certificate would name nobody: make its name a SPIFFE id "
                f"(spiffe://...) or give 'dns_names'"
            )


def wanted_sockets(sockets: Sockets) -> tuple[Socket, ...]:
    """Every socket of the configuration, the main one first."""
    return (*([sockets.main] if sockets.main else []), *sockets.dedicated)


def socket_folders(config: Config) -> tuple[Path, ...]:
    """Where sockets are made, each folder once: the callers' and the admin socket's, beside which handover has its."""
    paths = [one.path for one in wanted_sockets(config.sockets)] + ([config.admin.path] if config.admin else [])
    return tuple(dict.fromkeys(path.parent for path in paths))
