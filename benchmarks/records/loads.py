"""The loads, each a fixed amount of work for nghttp2's h2load, and what h2load reports. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1 << 20
UP, DOWN, SMALL = "/up", "/down", "/small"  # paths at the contenders


@dataclass(frozen=True)
class Load:
    """`count` requests on `connections` connections; a load that moves bodies counts megabytes, else requests."""

    name: str
    path: str
    protocol: str  # h1 or h2
    count: int
    connections: int = 1
    streams: int = 1  # concurrent on each connection

    @property
    def unit(self) -> str:
        return "request" if self.path == SMALL else "MB"

    def arguments(self, address: str, body: Path) -> list[str]:
        """Arguments for h2load. Its windows are wide open, so that the client's flow control does not set the pace."""
        line = ["-n", str(self.count), "-c", str(self.connections), "-m", str(self.streams), "-t", "1"]
        line += ["--h1"] if self.protocol == "h1" else ["-w", "24", "-W", "28"]
        line += ["-d", str(body)] if self.path == UP else []
        return [*line, f"https://{address}{self.path}"]


# Bodies are a megabyte each. One connection: a second one would hide what a wake-up costs.
LOADS = (
    Load("download, h1", DOWN, "h1", 100),
    Load("download, h2", DOWN, "h2", 100, streams=4),
    Load("upload, h1", UP, "h1", 100),
    Load("upload, h2", UP, "h2", 100, streams=4),
    Load("requests, h2, 1 at once", SMALL, "h2", 1_500),
    Load("requests, h2, 32 at once", SMALL, "h2", 8_000, streams=32),
)


@dataclass(frozen=True)
class Report:
    """The output of h2load."""

    seconds: float
    succeeded: int
    failed: int


def parse(output: str) -> Report:
    """Raises ValueError unless this is a report of h2load."""
    finished = re.search(r"^finished in ([0-9.]+)(us|ms|s)?,", output, re.MULTILINE)
    requests = re.search(
        r"^requests: (\d+) total, .*?(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", output, re.MULTILINE
    )
    if finished is None or requests is None:
        raise ValueError(f"h2load printed no report: {output.strip()[-500:] or 'nothing'}")
    scale = {"us": 1e-6, "ms": 1e-3, "s": 1.0, None: 1.0}[finished[2]]
    total, _, succeeded, _, _ = map(int, requests.groups())
    return Report(float(finished[1]) * scale, succeeded, total - succeeded)
