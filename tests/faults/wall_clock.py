"""A wall clock that processes of their own have, and that is set forward and back under them."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "build/native/tests/native/shifted_clock/libshifted_clock.so"


class WallClock:
    """`environment`: what a process needs to have it (tests/native/shifted_clock)."""

    def __init__(self, file: Path) -> None:
        assert LIBRARY.is_file(), f"there is no {LIBRARY}: make build"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(struct.pack("q", 0))
        with file.open("r+b") as opened:
            self._mapped = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(LIBRARY), "SHIFTED_CLOCK": str(file)}

    def is_ahead_by(self, seconds: int) -> None:
        """From now on, of the machine's."""
        struct.pack_into("q", self._mapped, 0, seconds)
