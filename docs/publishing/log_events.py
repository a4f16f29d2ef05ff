"""The events that the daemon and the control plane log, read from the calls that log them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from docs.publishing.sources import python_files

_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
_LOGGERS = ("log", "_log", "logger", "get_logger")
_FOLDED = ("folded", "_folded")  # their first argument tells events apart, the second is the event


def table(*folders: str) -> str:
    """An event, its level and its fields a row, by event; fields that a call computes are not named."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in python_files(*folders):
        for event, level, fields in _logged(ast.parse(path.read_text())):
            found.setdefault((event, level), set()).update(fields)
    lines = ["| event | level | fields |", "|---|---|---|"]
    for (event, level), fields in sorted(found.items()):
        lines.append(f"| `{event}` | {level} | {', '.join(f'`{field}`' for field in sorted(fields))} |")
    return "\n".join(lines) + "\n"


def _logged(tree: ast.Module) -> Iterator[tuple[str, str, set[str]]]:
    constants = {
        target.id: statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in _LEVELS:
            continue
        owner, level = _owner(node.func.value), node.func.attr
        places = {**dict.fromkeys(_LOGGERS, 0), **dict.fromkeys(_FOLDED, 1)}
        if owner not in places or len(node.args) <= places[owner]:
            continue
        event = node.args[places[owner]]
        if isinstance(event, ast.Name):
            event = constants.get(event.id, event)
        if isinstance(event, ast.Constant):
            fields = {keyword.arg for keyword in node.keywords if keyword.arg and not keyword.arg.startswith("exc")}
            yield str(event.value), "error" if level == "exception" else level, fields


def _owner(value: ast.expr) -> str:
    """`log` in `log.info`, in `self.log.info` and in `log().info`."""
    if isinstance(value, ast.Call):
        return _owner(value.func)
    if isinstance(value, ast.Attribute):
        return value.attr
    return value.id if isinstance(value, ast.Name) else ""
