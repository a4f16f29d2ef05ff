"""Open streams and the tokens that they were opened with: a stream ends when its token is void.

They are checked when a token is revoked, or a signing key removed, here; and every second, for what other replicas
did, as long as there is a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import structlog

from control.store.errors import StoreError
from control.tokens.tokens import Claims, Tokens

log = structlog.get_logger(__name__)

LOOK_S = 1.0

End = Callable[[str], None]


class Bearers:
    """Confined to one event loop."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._open: dict[object, tuple[Claims, End]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        tokens.watch(self._changed)

    def _changed(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake.set)

    @contextlib.contextmanager
    def stream(self, claims: Claims, end: End) -> Iterator[None]:
        """Registers a stream while it is open; `end` is called once with the reason why it must end."""
        key = object()
        self._open[key] = (claims, end)
        if self._task is None or self._task.done():
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._run())
        try:
            yield
        finally:
            self._open.pop(key, None)

    async def _run(self) -> None:
        works = True
        while self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_S)
            self._wake.clear()
            try:
                void = await asyncio.to_thread(self._tokens.void, {claims for claims, _ in self._open.values()})
                works = True
            except StoreError as error:
                if works:
                    log.error("cannot tell which tokens are void", error=str(error))
                works = False
                continue
            except Exception:  # one failed look must not be the last
                log.exception("cannot tell which tokens are void")
                continue
            for claims, end in list(self._open.values()):
                if claims in void:
                    end(void[claims])
