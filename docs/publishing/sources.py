"""Where the reference pages come from. Only this module knows where the code keeps what they describe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import typer

import control.cli
import offload.cli
from control.rest.app import make_app
from offload.config.settings_table import settings_table as daemon_configuration
from offload.reporting import exit_codes

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "reference"
PROGRAMS: Mapping[str, typer.Typer] = {"offload": offload.cli.app, "mesh": control.cli.app}

__all__ = [
    "PAGES",
    "PROGRAMS",
    "ROOT",
    "api_description",
    "daemon_configuration",
    "exit_codes_table",
    "module_fields",
    "module_filter_state",
    "module_source",
    "module_statistics",
    "python_files",
    "refusal_reasons",
]


def exit_codes_table() -> str:
    return exit_codes.table()


def api_description() -> dict[str, Any]:
    """The OpenAPI document of the control plane. Handlers are not called, so the parts that they need are empty."""
    nothing: Any = SimpleNamespace()
    return make_app(nothing, nothing, nothing).openapi()


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def module_source() -> str:
    """All C++ of the Envoy module; its folders do not matter."""
    files = sorted((ROOT / "envoy_ext" / "module").rglob("*.[ch]*"))
    return "".join(path.read_text() for path in files if path.suffix in (".cc", ".h"))


def _texts_of(array: str) -> tuple[str, ...]:
    """The string literals of a C++ array with that name."""
    found = re.search(rf"\b{array}(?:\[\])? = \{{(.*?)\}};", module_source(), re.DOTALL)
    if found is None:
        raise ValueError(f"envoy_ext/module has no array {array}")
    return tuple(re.findall(r'"(\w+)"', re.sub(r"//.*", "", found[1])))


def module_statistics() -> dict[str, tuple[str, ...]]:
    return {
        "counter": _texts_of("kCounters"),
        "gauge": _texts_of("kGauges"),
        "histogram": _texts_of("kHistograms"),
    }


def module_filter_state() -> tuple[str, ...]:
    return _texts_of("kPublishable")


def module_fields() -> set[str]:
    """Every field that the module reads from its configuration."""
    read = r'fields\.(?:text|list|number|flag|choice|spiffe_matches)\(\s*"(\w+)"'
    return set(re.findall(read, module_source()))


def refusal_reasons() -> tuple[str, ...]:
    """The reasons for which the data plane refuses callers and operations, as its metrics name them."""
    for path in sorted((ROOT / "offload" / "dataplane").rglob("refusals.c")):
        return tuple(re.findall(r'\[REFUSED_\w+\] = "(\w+)"', path.read_text()))
    raise ValueError("offload/dataplane has no refusals.c")
