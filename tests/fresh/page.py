"""The commands of a page of docs/, to be run as they stand there.

A block marked `sh` is an ordinary user's, one marked `sh root` is root's. All of one section and account are a script.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Block:
    section: str
    account: str  # "" or "root"
    text: str


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    section = ""
    for match in re.finditer(
        r"^## (?P<section>.*)$|^```sh ?(?P<account>.*)\n(?P<text>[\s\S]*?)^```$", page.read_text(), re.M
    ):
        if match["text"] is None:
            section = match["section"]
        else:
            found.append(Block(section, match["account"], match["text"]))
    return found


def script_of(found: list[Block]) -> str:
    return "".join(block.text for block in found)


def broken_links(page: Path) -> list[str]:
    """Targets of links that lead to no file."""
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    return [target for target in targets if "://" not in target and not (page.parent / target).exists()]
