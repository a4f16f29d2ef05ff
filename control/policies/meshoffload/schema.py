"""MeshOffload: where the private-key operations of a workload's handshakes run. Ours; Kuma has no counterpart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from control.model.base import Model, NonEmpty
from control.model.target_ref import TopLevelTargetRef, check_top_level
from control.model.unreadable import without_unknown
from control.model.violation import Violation
from control.policies.policy import Policy

# The algorithms of the daemon, by its names.
KeyType = Literal["rsa2048", "rsa3072", "rsa4096", "p256", "p384", "ed25519"]

# Size of sockaddr_un.sun_path without its terminating zero.
SOCKET_PATH_MAX = 107


class Batch(Model):
    # Defaults to the node's own setting (data_plane.max_wait_us). 0: nothing waits while a core is idle.
    max_wait_us: Annotated[int, Field(ge=0, le=10_000, examples=[0])] | None = None
    max_queue: Annotated[int, Field(ge=1, le=1_000_000, examples=[4096])] | None = None


class Conf(Model):
    # Offload: keys are in the node's daemon. EnvoyTLS: Envoy's own TLS, with the key in Envoy; for migration, for hosts
    # without the module, and for comparison.
    mode: Literal["Offload", "EnvoyTLS"] | None = None
    key_type: KeyType | None = None
    usage: Literal["tls13", "tls12+13"] | None = None
    batch: Batch | None = None
    # Require: software only. Forbid: the vector kernels only, and a host without them rejects the identity.
    software: Literal["Allow", "Require", "Forbid"] | None = None
    # The daemon's socket as the proxy sees it.
    socket: NonEmpty | None = Field(default=None, examples=["/run/offload/offload.sock"])


class Spec(Model):
    target_ref: TopLevelTargetRef | None = None
    default: Conf = Field(examples=[{"mode": "Offload", "keyType": "p256"}])


def validate(spec: Spec) -> Iterator[Violation]:
    yield from check_top_level(spec.target_ref, configures_inbounds=False)
    conf = spec.default
    if conf.mode == "EnvoyTLS":
        for name, value in (("batch", conf.batch), ("software", conf.software), ("socket", conf.socket)):
            if value is not None:
                yield Violation(
                    f"spec.default.{name}", "must not be set with mode EnvoyTLS, which uses no daemon", "mode: Offload"
                )
    if conf.socket is not None:
        if not conf.socket.startswith("/"):
            yield Violation(
                "spec.default.socket", f"must be an absolute path; got {conf.socket!r}", "/run/offload/offload.sock"
            )
        elif len(conf.socket.encode()) > SOCKET_PATH_MAX:
            yield Violation(
                "spec.default.socket",
                f"a socket's path has at most {SOCKET_PATH_MAX} bytes",
                "/run/offload/offload.sock",
            )


def keep(spec: Mapping[str, Any]) -> Spec | None:
    """What stays in force if this version cannot read it: all known fields, else keys would move into the proxies."""
    return without_unknown(Spec, spec, needed=("targetRef",))


POLICY = Policy("MeshOffload", "meshoffloads", "moff", frozenset({"proxy"}), Spec, validate, keep)
