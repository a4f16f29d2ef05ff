"""The machine of a measurement: for reports, so that nobody compares across machines by accident."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy.setup import boringssl

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tls-offload", "cryptography", "grpcio", "numpy")


def machine() -> dict[str, str | int | bool]:
    cpu = _cpu()
    flags = cpu.get("flags", "").split()
    return {
        "cpu": cpu.get("model name", "unknown"),
        "cpu_family_model": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "cores": len(os.sched_getaffinity(0)),
        "avx512_ifma": {"avx512ifma", "avx512_vbmi2"} <= set(flags),  # what our kernels need
        "virtual_machine": "hypervisor" in flags,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def _cpu() -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "commit": _commit(), "boringssl_compiler": boringssl_compiler()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def boringssl_compiler() -> str:
    """What built our BoringSSL; the software backend is as fast as its code."""
    try:
        return boringssl.compiler_version()
    except boringssl.NativeLibraryMissing:
        return "not built here"


def envoy_version(binary: Path) -> str:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix(str(binary)).strip()


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def today() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
