"""What the demo says while it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

WIDTH = 110  # of the output if there is no terminal to fit

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


@contextmanager
def step(words: str) -> Iterator[list[str]]:
    """Announces a step; what is put into the list is shown behind it at its end."""
    notes: list[str] = []
    start = time.monotonic()
    try:
        with console.status(words):
            yield notes
    except BaseException:
        console.print(f"[red]✗[/] {words}")
        raise
    console.print(f"[green]✓[/] {words} [dim]({time.monotonic() - start:.1f} s)[/]" + "".join(f"  {n}" for n in notes))
