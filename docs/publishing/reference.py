"""python -m docs.publishing.reference: writes the parts of docs/reference/ that the code says.

Each part lies between two markers in a page whose other text is written by hand. tests/test_reference.py says when a
part differs from the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.publishing import api, commands, log_events, metrics, sources

PARTS: Mapping[str, Callable[[], str]] = {
    "daemon configuration": lambda: by_section(sources.daemon_configuration()),
    "offload commands": lambda: commands.page("offload"),
    "mesh commands": lambda: commands.page("mesh"),
    "daemon metrics": lambda: metrics.table("offload_", "offload"),
    "control plane metrics": lambda: metrics.table("mesh_", "control"),
    "daemon log events": lambda: log_events.table("offload"),
    "control plane log events": lambda: log_events.table("control"),
    "exit codes": sources.exit_codes_table,
    "API calls": api.calls,
    "API plurals": api.plurals,
    "resources": api.resources,
}
_PART = re.compile(r"(<!-- generated: (?P<name>[\w ]+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def by_section(table: str) -> str:
    """A table whose rows begin with `section.field`, as one table per section."""
    head, rule, *rows = table.strip().splitlines()
    sections: dict[str, list[str]] = {}
    for row in rows:
        name = re.split(r"[.`]", row.removeprefix("| `"), maxsplit=1)[0]
        sections.setdefault(name, []).append(row)
    return "\n\n".join("\n".join([f"## {name}", "", head, rule, *found]) for name, found in sections.items())


def pages() -> list[Path]:
    return [path for path in sorted(sources.PAGES.glob("*.md")) if _PART.search(path.read_text())]


def renewed(text: str) -> str:
    """The page with every generated part as the code says it now; KeyError for a part that nobody generates."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found['name']]().strip()}\n\n{found[3]}", text)


def names(text: str) -> list[str]:
    return [found["name"] for found in _PART.finditer(text)]


def main() -> None:
    for path in pages():
        old = path.read_text()
        new = renewed(old)
        if new != old:
            path.write_text(new)
            print(path.relative_to(sources.ROOT))


if __name__ == "__main__":
    main()
