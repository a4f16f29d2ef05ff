"""The input and output of the protocol machine: plain values, without gRPC and protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.xds.encoding.encode import Encoded

WILDCARD = "*"


@dataclass(frozen=True)
class Request:
    """A DiscoveryRequest (state of the world). `error`: the message of error_detail, None without one."""

    type_url: str
    names: tuple[str, ...] = ()
    version: str = ""
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True)
class DeltaRequest:
    """A DeltaDiscoveryRequest."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Respond:
    """Send this. `removed` is for delta streams only."""

    type_url: str
    version: str
    nonce: str
    resources: tuple[Encoded, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Acked:
    type_url: str
    version: str


@dataclass(frozen=True)
class Nacked:
    """The client keeps what it had; `detail` is its error message."""

    type_url: str
    version: str
    detail: str


@dataclass(frozen=True)
class Ignored:
    """A request that changed nothing: a stale nonce, or a type that is not served."""

    type_url: str
    reason: str


@dataclass(frozen=True)
class Abort:
    """End the stream with INVALID_ARGUMENT: the client requests more than any proxy needs."""

    reason: str


Action = Respond | Acked | Nacked | Ignored | Abort
