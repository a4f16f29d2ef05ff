"""Every room of the house, a folder of the code, has its sentence in docs/design/architecture.md; no other has one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
PAGE = "docs/design/architecture.md"
HOUSES = ("offload", "control", "kernels", "envoy_ext", "deploy", "benchmarks", "tests")
# Rooms that are divided into rooms. What is deeper elsewhere belongs to its room: policies, scenarios, corpora.
DIVIDED = ("offload/dataplane", "envoy_ext/module", "control/xds")


def rooms() -> set[str]:
    """Folders below the houses that hold files under version control, as `offload/config/`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *HOUSES]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    files = [PurePosixPath(name) for name in listed if (ROOT / name).is_file()]
    folders = {folder.as_posix() for file in files for folder in file.parents}
    return {f"{name}/" for name in folders if _is_room(name)}


def _is_room(name: str) -> bool:
    return name.count("/") == 1 or any(name.startswith(f"{room}/") and name.count("/") == 2 for room in DIVIDED)


def sentences() -> dict[str, str]:
    """Folder to sentence, of all tables of the page that list rooms: their rows are a folder and a sentence."""
    return {
        f"{name.rstrip('/')}/": text
        for name, text in re.findall(r"^\| `([\w/]+)` \| ([A-Z`].+\.) \|$", (ROOT / PAGE).read_text(), re.MULTILINE)
        if name.rstrip("/") not in HOUSES
    }


def test_every_room_has_a_sentence() -> None:
    missing = sorted(rooms() - set(sentences()))
    lines = "".join(f"\n| `{name}` | What the files in it are for. |" for name in missing)
    assert missing == [], f"add to the tables of rooms in {PAGE}, each with a sentence of its own:{lines}"


def test_every_sentence_has_a_room() -> None:
    gone = sorted(set(sentences()) - rooms())
    assert gone == [], f"these folders are no rooms (any more); remove their lines from {PAGE}: {gone}"
