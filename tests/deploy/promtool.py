"""Prometheus' own promtool: that of the host, else that of Debian's package, unpacked below build/, not installed."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / "build" / "prometheus"


@functools.cache
def promtool() -> Path | str:
    """The program, or why there is none."""
    if found := shutil.which("promtool"):
        return Path(found)
    program = UNPACKED / "usr" / "bin" / "promtool"
    if program.is_file():
        return program
    UNPACKED.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".prometheus-", dir=UNPACKED.parent) as name:
        folder = Path(name)
        try:
            subprocess.run(
                ["apt-get", "download", "prometheus"], cwd=folder, capture_output=True, check=True, timeout=200
            )
            (package,) = folder.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True, timeout=60)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            return f"promtool is missing, and Debian's package prometheus cannot be fetched: {error}"
        shutil.rmtree(UNPACKED, ignore_errors=True)
        (folder / "root").rename(UNPACKED)
    return program
