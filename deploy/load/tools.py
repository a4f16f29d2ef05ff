"""Runs the native load tools (benchmarks/native) and reads their JSON.

The tools are part of the native build (`make build`); LOAD_TOOLS names another folder that holds them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "build" / "native" / "benchmarks" / "native"

Argument = str | int | float | Path | bool | None


class LoadToolError(RuntimeError):
    """A load tool is missing, or rejected its arguments; the message says which and why."""


def find(name: str) -> Path:
    """The executable of `tlsload` or `keyload`; LoadToolError if it was not built."""
    configured = os.environ.get("LOAD_TOOLS")
    path = (Path(configured) if configured else BUILT) / name
    if not os.access(path, os.X_OK):
        raise LoadToolError(f"{name} is not built: {path} does not exist. Build it with: make build")
    return path


def command(name: str, options: Mapping[str, Argument], targets: Sequence[str] = ()) -> list[str]:
    """The command line. Underscores in option names become dashes; True is a flag; None and False leave it out."""
    line = [str(find(name))]
    for option, value in options.items():
        if value is None or value is False:
            continue
        line.append("--" + option.replace("_", "-"))
        if value is not True:
            line.append(str(value))
    return line + list(targets)


def result_of(name: str, status: int, output: str, errors: str) -> dict[str, Any]:
    """The JSON that a tool printed; failures of single connections are in it, and are not an exception."""
    if status not in (0, 1) or not output.strip():
        raise LoadToolError(f"{name} ended with status {status}: {errors.strip() or 'no output'}")
    parsed: dict[str, Any] = json.loads(output)
    return parsed


def run(
    name: str, options: Mapping[str, Argument], targets: Sequence[str] = (), seconds: float = 300
) -> dict[str, Any]:
    """Runs a tool to its end, `seconds` at most."""
    line = command(name, options, targets)
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as expired:
        raise LoadToolError(f"{' '.join(line)} did not end within {seconds:.0f} s") from expired
    return result_of(name, done.returncode, done.stdout, done.stderr)


def tlsload(*targets: str, **options: Argument) -> dict[str, Any]:
    """TLS handshakes against host:port addresses; `tlsload --help` names the options."""
    return run("tlsload", options, targets)


def keyload(**options: Argument) -> dict[str, Any]:
    """Signatures from a daemon; `keyload --help` names the options."""
    return run("keyload", options)
