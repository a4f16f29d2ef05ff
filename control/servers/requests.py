"""Reads the messages of a proxy or a node: parsed here, and an unreadable stream ends with the reason.

gRPC itself would leave such a stream open: only its reader ends, and whoever waits for the next message waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Refused(Exception):
    """A call that is unauthorized, or is ended. `reason` is one word, for metrics."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


def parsed(kind: Any, data: bytes) -> Any:
    """Parses a message of the class `kind`. Raises Refused."""
    try:
        return kind.FromString(data)
    except DecodeError:
        message = f"this is not a {kind.DESCRIPTOR.name}"
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "garbage", message) from None


async def read(
    requests: AsyncIterator[bytes],
    parse: Callable[[bytes], T],
    waiting: asyncio.Queue[T | Refused | None],
    wake: asyncio.Event,
) -> None:
    """Queues requests for the conversation; at the end of the stream None, or the reason why it must end."""
    end: Refused | None = None
    try:
        async for request in requests:
            await waiting.put(parse(request))
            wake.set()
    except Refused as refused:
        end = refused
    except Exception:
        log.exception("cannot read a stream")
        end = Refused(grpc.StatusCode.INTERNAL, "internal", "the stream can no longer be read")
    await waiting.put(end)
    wake.set()
