"""Every request that may change something is a line of the audit log, written before its response is sent.

The middleware does that for every route. A route describes by `tell` what happened; one that tells nothing is logged
as `request`, and a test over all routes detects it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from control.audit import Audit, Who
from control.rest.limits import READS, App, Message, Receive, Send

UNTOLD = "request"
_told: ContextVar[dict[str, Any]] = ContextVar("told")


def tell(event: str, **fields: Any) -> None:
    """Says what the request is about, and later adds what came of it. No secrets."""
    told = _told.get(None)
    if told is not None:
        told.update(fields, event=event)


class Audited:
    """ASGI middleware. `authentication` puts the requester into the request's state."""

    def __init__(self, app: App, audit: Audit) -> None:
        self._app, self._audit = app, audit

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READS:
            await self._app(scope, receive, send)
            return
        told: dict[str, Any] = {"event": UNTOLD}
        written = False
        scope.setdefault("state", {})

        def write(status: int) -> None:
            nonlocal written
            if not written:
                written = True
                self._write(scope, told, status)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                write(message["status"])
            await send(message)

        token = _told.set(told)
        try:
            await self._app(scope, receive, watched)
        except BaseException:
            write(500)
            raise
        finally:
            _told.reset(token)

    def _write(self, scope: Message, told: dict[str, Any], status: int) -> None:
        by: Who | None = scope["state"].get("administrator")
        client = scope.get("client")
        source = f"{client[0]}:{client[1]}" if client else "an unknown address"
        fields = {key: value for key, value in told.items() if key != "event"}
        request = f"{scope['method']} {scope['path']}"
        self._audit.write(told["event"], by, source, request=request, status=status, **fields)
