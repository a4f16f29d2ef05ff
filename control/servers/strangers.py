"""Nodes that join with an expired certificate and no valid token: few of their requests are read at once."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from control.servers.door import group_of
from control.servers.doorkeeper import peer_of_grpc

# Such nodes are rare, since it means a day without a connection.
STRANGERS = 16
STRANGERS_PER_ADDRESS = 2


class TooManyStrangers(Exception):
    """One more such request is not read now."""


class Strangers:
    """Calls without a token or certificate whose request is read: up to 4 MiB, with a possibly expired certificate."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, peer: str) -> Iterator[None]:
        address = group_of(peer_of_grpc(peer)[0])
        if self._of[address] >= STRANGERS_PER_ADDRESS or self._of.total() >= STRANGERS:
            raise TooManyStrangers("too many nodes are joining without a token: try again")
        self._of[address] += 1
        try:
            yield
        finally:
            self._of[address] -= 1
            if self._of[address] == 0:
                del self._of[address]
