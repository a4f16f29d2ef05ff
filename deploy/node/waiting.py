"""Waits for what another process or thread does. The limit only ends a wait that would hang: nothing is timed by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal, TypeVar

from deploy.node.processes import NodeError

T = TypeVar("T")

# Generous, since a slow and busy machine is no failure.
SECONDS = 60.0
PAUSE_SECONDS = 0.01


# `...`: a lambda in a loop has the loop's variables as its defaults.
def wait_for(what: str, condition: Callable[..., T | Literal[False]], seconds: float = SECONDS) -> T:
    """The first true value of the condition. NodeError after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise NodeError(f"timed out after {seconds:g} s waiting for {what}")
        time.sleep(PAUSE_SECONDS)
    return value


async def eventually(what: str, condition: Callable[..., T | Literal[False]], seconds: float = SECONDS) -> T:
    """As `wait_for`, while the event loop goes on."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise NodeError(f"timed out after {seconds:g} s waiting for {what}")
        await asyncio.sleep(PAUSE_SECONDS)
    return value
