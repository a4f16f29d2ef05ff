"""Files of JSON lines that another process is writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole; one that begins with something else than `{` is none of ours (a traceback, say)."""
    whole = path.read_text(errors="replace").rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
