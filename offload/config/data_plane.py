"""Settings of the native data plane: its backend, its threads and its bounds."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from offload.config.fields import Section, shards_setting

Backend = Literal["auto", "software", "ifma8"]


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
        description="RSA operations wait for a batch only under dense load; a lone one never waits; 0: no waiting.",
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
        description="Per uid or dedicated socket; unset: three quarters of queue_limit, so one user cannot fill it.",
    )
    max_connections: int = Field(
        default=4096, ge=1, le=100_000, description="Many times the number of sidecars on a node."
    )
    max_connections_per_user: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Per uid or dedicated socket; unset: half of max_connections, as all sidecars may be one user.",
    )
    max_connections_without_identity: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="All callers that no selector matches together; unset: an eighth of max_connections, for "
        "sidecars that start early. The rest is reserved for callers with an identity.",
    )
    max_streams_per_connection: int = Field(
        default=1024, ge=1, le=1_000_000, description="Unary clients have one stream for each operation in flight."
    )
    user_memory_mib: int = Field(
        default=32,
        ge=1,
        le=4096,
        description="Per user, and for all callers without an identity together; a thousand sidecars need half.",
    )
    idle_timeout_seconds: float = Field(
        default=300,
        ge=0.1,
        le=86_400,
        description="Connections without a call are closed; gRPC clients reconnect. A watch is a call.",
    )
    stalled_timeout_seconds: float = Field(
        default=30,
        ge=0.1,
        le=86_400,
        description="A peer that does not read its answers is disconnected; Envoy times out within seconds.",
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
