"""python docs/decisions/index.py: writes README.md, the index of the decisions beside it."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
INDEX = FOLDER / "README.md"
_HEAD = re.compile(r"# (?P<title>.+)\n\n- Status: (?P<status>.+)\n- Date: (?P<date>\d{4}-\d\d-\d\d)\n\n\S")
INTRODUCTION = """# Decisions

Choices that a reader would question, each with the measurement behind it. Unless a record says otherwise, the machine
is a virtual one with 2 cores of an AMD EPYC (Zen 5), Debian 12 and gcc 12.2. It is shared, so ratios of interleaved
runs count, not absolute times. `python docs/decisions/index.py` writes this index.

| | decision | status | date |
|---|---|---|---|
"""


def index() -> str:
    """The text of README.md; ValueError for a file that does not begin like the others."""
    rows = []
    for path in sorted(FOLDER.glob("[0-9]*.md")):
        head = _HEAD.match(path.read_text())
        if head is None:
            raise ValueError(f"{path.name} does not begin with '# Title', '- Status: ...' and '- Date: YYYY-MM-DD'")
        title = head["title"].replace("|", "\\|")
        rows.append(f"| {path.name[:4]} | [{title}]({path.name}) | {head['status']} | {head['date']} |\n")
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    INDEX.write_text(index())
