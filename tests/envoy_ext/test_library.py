"""The shared object itself: what it needs, what it shows, and whether its ABI is the tested Envoy's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from envoy_ext import location

SOURCES = Path(__file__).resolve().parents[2] / "envoy_ext" / "module"
# Of the C library; everything else must come from Envoy or be inside.
NEEDED = {"libnghttp2.so.14", "libc.so.6", "ld-linux-x86-64.so.2", "libm.so.6", "libgcc_s.so.1"}
OPTIONAL = {"__gmon_start__", "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__cxa_finalize"}


def tool(*line: str | Path) -> str:
    return subprocess.run([*map(str, line)], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def library() -> Path:
    return location.module_library()


def test_it_needs_nothing_that_envoys_image_lacks(library: Path) -> None:
    dynamic = tool("readelf", "-d", library)
    assert set(re.findall(r"NEEDED.*\[(.+)\]", dynamic)) <= NEEDED
    assert re.findall(r"RUNPATH.*\[(.+)\]", dynamic) == ["$ORIGIN"]


def test_only_hooks_are_visible(library: Path) -> None:
    symbols = [line.split()[-1] for line in tool("nm", "-D", "--defined-only", library).splitlines()]
    assert symbols
    assert all(symbol.startswith("envoy_dynamic_module_on_") for symbol in symbols)


@pytest.mark.envoy
def test_every_callback_is_exported_by_envoy(library: Path, envoy_binary: Path) -> None:
    undefined = {line.split()[-1] for line in tool("nm", "-D", "--undefined-only", library).splitlines()}
    callbacks = {symbol for symbol in undefined if symbol.startswith("envoy_dynamic_module_callback_")}
    exported = {line.split()[-1] for line in tool("nm", "-D", "--defined-only", envoy_binary).splitlines()}
    assert callbacks
    assert callbacks <= exported


@pytest.mark.envoy
def test_the_recorded_abi_is_the_tested_envoys(envoy_binary: Path) -> None:
    """The count and digest in envoy_abi.cc, computed again from the binary."""
    symbols = (line.split()[-1] for line in tool("nm", "-D", "--defined-only", envoy_binary).splitlines())
    callbacks = [symbol for symbol in symbols if symbol.startswith("envoy_dynamic_module_callback_")]
    digest = sum(fnv1a(symbol) for symbol in callbacks) % 2**64
    recorded = re.search(r"kTested\{(\d+), (\d+)u\}", (SOURCES / "envoy" / "envoy_abi.cc").read_text())
    assert recorded is not None
    assert (int(recorded[1]), int(recorded[2])) == (len(callbacks), digest)


def fnv1a(text: str) -> int:
    value = 14695981039346656037
    for byte in text.encode():
        value = ((value ^ byte) * 1099511628211) % 2**64
    return value
