"""Which capabilities this process has, by capabilities(7)."""

from __future__ import annotations

from pathlib import Path

IPC_LOCK = 14
SYS_PTRACE = 19


def has(capability: int) -> bool:
    """Whether the capability is in effect now. OSError without /proc."""
    status = Path("/proc/self/status").read_text()
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> capability & 1)
