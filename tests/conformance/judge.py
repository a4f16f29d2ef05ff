"""What is a finding: an outcome that is not right and that nobody has explained."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("explained.toml")


@dataclass(frozen=True)
class Explanation:
    tool: str
    check: str
    outcome: str
    why: str
    like_stock: bool


@dataclass(frozen=True)
class Outcome:
    """What a tool saw at one target."""

    text: str
    right: bool
    detail: str = ""  # for people


Explained = Mapping[tuple[str, str], Explanation]  # by tool and check


def load(file: Path = FILE) -> Explained:
    entries = [Explanation(**entry) for entry in tomllib.loads(file.read_text())["explained"]]
    found = {(entry.tool, entry.check): entry for entry in entries}
    assert len(found) == len(entries), "explained.toml has two entries for one check"
    return found


def finding(tool: str, check: str, ours: Outcome, stock: Outcome, explained: Explained) -> str | None:
    """None where all is well. `stock` is what the same Envoy's own TLS does."""
    entry = explained.get((tool, check))
    if entry is None:
        return None if ours.right else f"{tool}: {check}: {ours.text}"
    if ours.right:
        return f"{tool}: {check}: {ours.text}, as it should be; its entry in explained.toml has no more reason"
    if ours.text != entry.outcome:
        return f"{tool}: {check}: {ours.text}, and explained is only {entry.outcome}"
    if entry.like_stock and stock.text != ours.text:
        return f"{tool}: {check}: {ours.text}, and stock Envoy: {stock.text}"
    return None
