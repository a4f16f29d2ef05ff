"""Checks of the tokens of strangers, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from control.tokens.tokens import Claims

# Strangers may send thousands at once: they wait for one another, and neither the store nor an administrator waits
# behind them, as they would on shared threads.
CHECKS_AT_ONCE = 2


class TokenChecks:
    """Threads of its own, for one port."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="token")

    async def run(self, check: Callable[..., Claims], *arguments: str) -> Claims:
        """Runs `check`, a method of the tokens."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, check, *arguments)
