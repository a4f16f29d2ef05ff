"""Settings of identities: where their keys come from, who may use them for what, and whom they trust."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from offload.config.fields import AbsolutePath, Group, Id, Name, Section, User
from offload.config.sockets import MAIN_SOCKET
from offload.filesystem.accounts import group_id, user_id

if TYPE_CHECKING:
    from offload import _dataplane

SPIFFE_SCHEME = "spiffe://"

KeyType = Literal["p256", "p384", "rsa2048", "rsa3072", "rsa4096", "ed25519"]
Usage = Literal["tls13", "tls12+13", "any"]


class TrustBundleFile(Section):
    """CA certificates that a peer's chain may end in."""

    file: AbsolutePath = Field(description="PEM with one or more CA certificates.")
    trust_domain: str = Field(
        default="", description="Limited to this SPIFFE trust domain; empty: to none in particular."
    )


class Keys(Section):
    directory: AbsolutePath = Field(
        default=Path("/etc/offload/keys"),
        description="Under /etc, like other files that an administrator provides.",
    )
    watch: bool = Field(default=True, description="A rotated certificate takes effect without a signal.")
    debounce_ms: int = Field(
        default=200, ge=10, le=60_000, description="Chain and key are two files: waits until both have been written."
    )
    rescan_seconds: int = Field(
        default=30,
        ge=1,
        le=86_400,
        description="Finds what inotify cannot see: network file systems, targets of symlinks.",
    )
    warn_before_expiry_days: int = Field(
        default=7, ge=0, le=3650, description="Leaves time to renew a certificate by hand."
    )
    trust_bundles: tuple[TrustBundleFile, ...] = Field(
        default=(), description="For identities without bundles of their own; empty: no CA is trusted by default."
    )


class Selector(Section):
    """Matches a caller if every given field does."""

    uid: Id | None = Field(default=None, description="The caller's user id.")
    user: User | None = Field(default=None, description="The caller's user name; a number is accepted too.")
    gid: Id | None = Field(default=None, description="The caller's primary or a supplementary group id.")
    group: Group | None = Field(default=None, description="The name of such a group; a number is accepted too.")
    executable: AbsolutePath | None = Field(
        default=None,
        description="Compared with /proc/PID/exe; requires another field, and `socket: main` is not enough.",
    )
    cgroup: str | None = Field(default=None, description="Prefix of the cgroup path that ends at a '/'; not the root.")
    socket: Name | None = Field(default=None, description="The name of the socket that the caller connected to.")

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
        # `socket: main` alone states openly that everybody who may open it matches.
        if not self.is_proof and (self.cgroup is not None or self.executable is not None):
            if self.cgroup is not None:
                raise ValueError(
                    f"every process of the host is in cgroup '{self.cgroup}': name one below it, or identify the "
                    "caller (uid, user, gid, group, or a dedicated socket)"
                )
            raise ValueError(
                f"'executable' {'alone' if self.socket is None else 'with the main socket'} is no proof: "
                "any user who may run that program can preload code into it (LD_PRELOAD) or trace it; identify "
                "the caller too: uid, user, gid, group, cgroup, or a dedicated socket"
            )
        return self

    @property
    def is_proof(self) -> bool:
        """Whether a field is given that callers cannot choose for themselves; the main socket is for everybody."""
        named = any(f is not None for f in (self.uid, self.user, self.gid, self.group))
        dedicated = self.socket not in (None, MAIN_SOCKET)
        return named or dedicated or (self.cgroup is not None and self.cgroup.strip("/") != "")

    def rule(self) -> _dataplane.Selector:
        """The data plane's form: numbers in place of names."""
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


class GenerateSource(Section):
    """Generated on this node, in locked memory: a new key for each certificate, none on disk."""

    issuer: Name = Field(description="One of 'issuers'.")
    key_type: KeyType = Field(default="p256", description="The cheapest that every TLS peer accepts.")
    dns_names: tuple[Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")], ...] = Field(
        default=(), description="DNS names in the certificate, beside the identity's name if that is a SPIFFE id."
    )


class Source(Section):
    """Where an identity's keys come from: exactly one kind. Files are <files>/*.{pem,crt,cer,key}, or <files>.crt with
    <files>.key, or <files>.pem in the keys directory."""

    files: Annotated[str, Field(pattern=r"^[^/.\x00][^/\x00]*$")] | None = Field(
        default=None, description="Base name of the files, if not the identity's name."
    )
    generate: GenerateSource | None = Field(default=None, description="unset: from files.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.files is None) == (self.generate is None):
            raise ValueError("give exactly one of 'files' and 'generate'")
        return self


class Identity(Section):
    source: Source | None = Field(default=None, description="unset: files named after the identity.")
    selectors: tuple[Selector, ...] = Field(
        default=(), description="Deny by default: without selectors nobody may use it."
    )
    usage: Usage = Field(
        default="tls13", description="The narrowest: a captured sidecar can sign only TLS 1.3 handshakes."
    )
    decrypt: bool = Field(default=False, description="TLS 1.2 RSA key exchange has no forward secrecy.")
    trust_bundles: tuple[TrustBundleFile, ...] | None = Field(
        default=None, description="unset: ca.crt or ca.pem beside the key pair, else keys.trust_bundles."
    )

    @property
    def generate(self) -> GenerateSource | None:
        return self.source.generate if self.source else None

    def files_name(self, name: str) -> str | None:
        """The base name of its files; None if it is generated."""
        if self.generate:
            return None
        return self.source.files if self.source and self.source.files else name

    @model_validator(mode="after")
    def _decrypt_needs_tls12(self) -> Self:
        if self.decrypt and self.usage == "tls13":
            raise ValueError("'decrypt' is TLS 1.2 RSA key exchange: it needs usage 'tls12+13' or 'any'")
        return self
