"""What every test may need: the machine's abilities, the Envoy binary, and loud skips where one is missing."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]


def envoy_path() -> Path | None:
    """$ENVOY_BINARY, else the stock Envoy that `make setup` installs; None where neither is there."""
    configured = os.environ.get("ENVOY_BINARY")
    candidate = Path(configured) if configured else ROOT / ".cache" / "envoy" / "envoy" / "_bin" / "envoy"
    return candidate if candidate.is_file() else None


def cpu_has_ifma() -> bool:
    return "avx512ifma" in Path("/proc/cpuinfo").read_text()


MISSING = {
    "ifma": lambda: None if cpu_has_ifma() else "this CPU has no AVX-512 IFMA",
    "envoy": lambda: None if envoy_path() else "the stock Envoy binary is missing: make setup, or set ENVOY_BINARY",
    "root": lambda: None if os.geteuid() == 0 else "needs to be root",
    "valgrind": lambda: None if shutil.which("valgrind") else "valgrind is missing: apt-get install valgrind",
}


def pytest_configure() -> None:
    # How long one example takes says more about the machine than about what is tested.
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")
    # A script's background job ignores SIGINT, and so would all that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in MISSING.items():
        if item.get_closest_marker(marker) is not None and (reason := missing()) is not None:
            pytest.skip(reason)


@pytest.fixture(scope="session")
def envoy_binary() -> Path:
    """The stock Envoy; use together with the marker `envoy`."""
    path = envoy_path()
    if path is None:
        pytest.skip(str(MISSING["envoy"]()))
    return path
