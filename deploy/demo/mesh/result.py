"""What one step of the mesh demo did: counts, and what was not as expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType
from rich.table import Table


@dataclass
class Step:
    """`key` is its key in report.json. A failure is an answer that the step must not get."""

    key: str
    title: str
    requests: int = 0
    failures: int = 0
    shown: str = ""  # in words, for the table
    counts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def expect(self, who: str, answers: Mapping[str, int], wanted: Iterable[str]) -> None:
        """Counts the answers; those that are not in `wanted` are failures."""
        accepted = frozenset(wanted)
        others = {answer: count for answer, count in answers.items() if answer not in accepted}
        self.requests += sum(answers.values())
        self.failures += sum(others.values())
        if others:
            self.problems.append(f"{who} should get {' or '.join(sorted(accepted))}, and got {others}")
        if not answers:
            self.problems.append(f"{who}: there were no requests")

    def require(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def as_data(self) -> dict[str, Any]:
        return {"requests": self.requests, "failures": self.failures, **self.counts}


def as_data(steps: Iterable[Step]) -> dict[str, Any]:
    """One key per step."""
    return {step.key: step.as_data() for step in steps}


def problems(steps: Iterable[Step]) -> list[str]:
    return [f"{step.title}: {problem}" for step in steps for problem in step.problems]


def table(steps: Iterable[Step]) -> RenderableType:
    shown = Table(title="The mesh: four services, keys of both ends at the daemon, all configuration by xDS")
    shown.title_justify = "left"
    shown.add_column("step")
    shown.add_column("requests", justify="right")
    shown.add_column("failures", justify="right")
    shown.add_column("shown")
    for step in steps:
        mark = "[bold red]✗[/] " if step.problems else ""
        shown.add_row(mark + step.title, f"{step.requests:,}", f"{step.failures:,}", step.shown)
    return shown


def by_version(answers: Mapping[str, int]) -> Counter[str]:
    """ "200 prices-blue": 5 becomes "blue": 5; anything that is not an answer of a version is left out."""
    found: Counter[str] = Counter()
    for answer, count in answers.items():
        if answer.startswith("200 prices-"):
            found[answer.removeprefix("200 prices-")] += count
    return found
