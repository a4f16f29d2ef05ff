"""Bounds for what an administrator may send: size of the body, and time to send it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from control.rest import errors

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# A MeshHTTPRoute in which every list has its maximum length is smaller.
MAX_BODY_BYTES = 4 * 1024 * 1024
BODY_TIMEOUT_S = 30.0
READS = frozenset({"GET", "HEAD", "OPTIONS"})


class TooLarge(Exception):
    pass


class BoundedBody:
    """ASGI middleware: reads the body of a request, up to the limit, and only then calls the application. Requests that
    change nothing have their body ignored: none of them needs one."""

    def __init__(self, app: App, max_bytes: int = MAX_BODY_BYTES, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app, self._max_bytes, self._timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if scope["method"] in READS:
                body: bytes | None = b""
            elif announced.isdigit() and int(announced) > self._max_bytes:
                raise TooLarge
            else:
                body = await asyncio.wait_for(self._read(receive), self._timeout_s)
        except TooLarge:
            answer = errors.body(413, "Request too large", f"a request has at most {self._max_bytes} bytes")
            await answer(scope, receive, send)
            return
        except TimeoutError:
            await errors.body(408, "Too slow", f"the body took longer than {self._timeout_s:g} s")(scope, receive, send)
            return
        if body is None:  # the client has gone
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes:
                raise TooLarge
            more = message.get("more_body", False)
        return b"".join(parts)
