"""The metrics of the daemon and of the control plane, read from the calls that define them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from docs.publishing.sources import python_files

_TYPES = {
    "Counter": "counter",
    "CounterMetricFamily": "counter",
    "Gauge": "gauge",
    "GaugeMetricFamily": "gauge",
    "Histogram": "histogram",
    "HistogramMetricFamily": "histogram",
    "InfoMetricFamily": "info",
}
_ENDINGS = {"counter": "_total", "info": "_info"}


@dataclass(frozen=True, order=True)
class Metric:
    name: str  # as it is queried
    type: str
    labels: tuple[str, ...]
    help: str


def table(prefix: str, *folders: str) -> str:
    """Of the metrics whose names begin with the prefix, defined anywhere below the folders."""
    found = sorted(
        metric for path in python_files(*folders) for metric in _defined(ast.parse(path.read_text()), prefix)
    )
    lines = ["| metric | type | labels | what |", "|---|---|---|---|"]
    for one in found:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.type} | {labels} | {one.help.rstrip('.')}. |")
    return "\n".join(lines) + "\n"


def _defined(tree: ast.AST, prefix: str) -> Iterator[Metric]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TYPES:
            texts = _constants(node.args)
            if len(texts) >= 2 and texts[0].startswith(prefix):
                kind = _TYPES[node.func.id]
                labels = ("version",) if kind == "info" else _labels(node)
                yield Metric(texts[0] + _ENDINGS.get(kind, ""), kind, labels, texts[1])
        # Gauges without labels that a loop defines: ("name", "what", value).
        elif isinstance(node, ast.Tuple) and len(node.elts) == 3 and len(_constants(node.elts)) == 2:
            name, text = _constants(node.elts)
            if name.startswith(prefix):
                yield Metric(name, "gauge", (), text)


def _constants(nodes: Sequence[ast.expr]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _labels(call: ast.Call) -> tuple[str, ...]:
    lists = [*call.args[2:], *(keyword.value for keyword in call.keywords if keyword.arg in ("labels", "labelnames"))]
    for node in lists:
        if isinstance(node, ast.List):
            return tuple(_constants(node.elts))
    return ()
