"""What every test may need: the machine's abilities, the Envoy binary, and loud skips where one is missing.

It also says which tests are unit tests (`make test-unit`): all that need neither Envoy nor root nor much time.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Generator
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
    """What the vector kernels need (kernels/ifma8/ifma8_cpu.h), as far as processors differ in it."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return "avx512ifma" in flags and "avx512_vbmi2" in flags


MISSING = {
    "ifma": lambda: None if cpu_has_ifma() else "this CPU has no AVX-512 IFMA with VBMI2",
    "envoy": lambda: None if envoy_path() else "the stock Envoy binary is missing: make setup, or set ENVOY_BINARY",
    "root": lambda: None if os.geteuid() == 0 else "needs to be root",
    "valgrind": lambda: None if shutil.which("valgrind") else "valgrind is missing: apt-get install valgrind",
}


# Markers of tests that are no unit tests.
NOT_UNIT = ("envoy", "root", "valgrind", "slow", "long")


def pytest_itemcollected(item: pytest.Item) -> None:
    if "envoy_binary" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.envoy)
    if not any(item.get_closest_marker(marker) for marker in NOT_UNIT):
        item.add_marker(pytest.mark.unit)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hides Envoy from unit tests, so that one that starts it fails until it has the marker `envoy`."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("unit"):
            patch.setenv("ENVOY_BINARY", "/a-unit-test-has-no-envoy")
        return (yield)


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
    """The stock Envoy; a test that uses it gets the marker `envoy`."""
    path = envoy_path()
    if path is None:
        pytest.skip(str(MISSING["envoy"]()))
    return path
