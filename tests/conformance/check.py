"""What a check is: something that a client does, and what the standards let a server make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.conformance.judge import Outcome
from tests.conformance.rig import Target

Run = Callable[[Target], str]


@dataclass(frozen=True)
class Check:
    """`run` gives an outcome as client.py words them: "TLS 1.3" (answered), "alert <name>", "closed", ..."""

    group: str
    name: str
    standard: str  # where it says so
    expected: tuple[str, ...]  # any of these is right
    run: Run

    @property
    def id(self) -> str:
        return f"{self.group}: {self.name}"

    def outcome(self, target: Target) -> Outcome:
        text = self.run(target)
        return Outcome(text, text in self.expected)


Row = tuple[str, str, str | tuple[str, ...], Run]


def checks(group: str, *rows: Row) -> list[Check]:
    """Rows are name, standard, expected (one or several) and run."""
    return [
        Check(group, name, standard, (expected,) if isinstance(expected, str) else expected, run)
        for name, standard, expected, run in rows
    ]
