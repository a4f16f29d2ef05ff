"""Commands that documents, units and messages name exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import control.cli
import offload.cli
from tests.commands.mistakes import commands
from tests.offload.daemon_process import ROOT


def test_commands_named_anywhere_exist() -> None:
    """`mesh x` and `offload x` in backticks: in docs, comments, messages."""
    known = {"offload": set(commands(offload.cli.app)), "mesh": set(commands(control.cli.app))}
    first_words = {name: {path.split()[0] for path in paths} for name, paths in known.items()}
    wrong = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *source_files()]:
        for match in re.finditer(r"`(mesh|offload) ([a-z][a-z-]+)(?: ([a-z][a-z-]+))?", path.read_text()):
            program, first, second = match.groups()
            is_group = first in first_words[program] - known[program]
            if first not in first_words[program] or (is_group and second and f"{first} {second}" not in known[program]):
                wrong.append(f"{path.relative_to(ROOT)}: {match[0]}")
    assert wrong == []


def source_files() -> Iterator[Path]:
    for folder in ("offload", "control", "deploy", "envoy_ext", "benchmarks"):
        for pattern in ("*.py", "*.yaml", "*.service", "*.conf", "*.proto"):
            yield from (ROOT / folder).rglob(pattern)
