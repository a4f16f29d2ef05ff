"""Background requests while something is changed, and their counts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from deploy.node.waiting import wait_for

Answer = TypeVar("Answer", bound=Hashable)
CALLS_AT_ONCE = 4


@contextmanager
def traffic(call: Callable[[], Mapping[Answer, int]], at_once: int = CALLS_AT_ONCE) -> Iterator[Counter[Answer]]:
    """Calls continuously, from a few threads; the counts are complete when it has ended."""
    counts: Counter[Answer] = Counter()
    lock, stop = threading.Lock(), threading.Event()

    def run() -> None:
        while not stop.is_set():
            answers = call()
            with lock:
                counts.update(answers)

    threads = [threading.Thread(target=run) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def wait_for_requests(counts: Counter[Answer], more: int, seconds: float = 20) -> None:
    """Waits until so many more have been answered, successfully or not."""
    wanted = counts.total() + more
    wait_for(f"{more} more requests", lambda: counts.total() >= wanted, seconds)
