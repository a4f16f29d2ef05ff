"""What is wrong with a resource: the place, what is allowed there, and a valid example."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Location = tuple[str | int, ...]


def dotted(location: Location) -> str:
    """("spec", "to", 0, "targetRef") -> "spec.to[0].targetRef"; keys with dots are quoted: labels["kuma.io/zone"]."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif "." in part or "/" in part:
            path += f'["{part}"]'
        else:
            path += f".{part}" if path else part
    return path or "(document)"


@dataclass(frozen=True)
class Violation:
    """One violation. `message` says what is wrong and what is allowed; `example` is text that would be accepted."""

    path: str
    message: str
    example: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}"
        if "\n" in self.example:
            return text + "\n" + "\n".join(f"    {line}" for line in self.example.rstrip().splitlines())
        return f"{text} (example: {self.example})" if self.example else text


class InvalidResource(ValueError):
    """A resource that is rejected; holds every violation found, not only the first."""

    def __init__(self, subject: str, violations: Iterable[Violation]) -> None:
        self.subject = subject
        self.violations: Sequence[Violation] = tuple(violations)
        super().__init__("\n".join([f"{subject} is not valid:", *(f"  {violation}" for violation in self.violations)]))
