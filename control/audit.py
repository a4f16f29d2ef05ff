"""The audit log: who changed what in which mesh, from where, and what was issued to whom; one JSON object per line.

Lines go to the server's log (standard output), or to a separate file. A line that cannot be written is counted in a
metric, and the change goes through: the disk that refuses a line most likely refuses the change too. A line holds no
secret: tokens and certificates appear by their ids.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from offload.filesystem.audit_file import AuditFile
from offload.filesystem.trusted_paths import Trust

log = structlog.get_logger(__name__)

# Limit for unauthorized requests: what strangers cause must not fill a disk. Lines beyond it are only counted.
STRANGERS_PER_SECOND = 10
# Limit for a text that somebody else chose.
MAX_CHARS = 512


@dataclass(frozen=True)
class Who:
    """`kind`: token, certificate, node, local (a user of the control plane's host) or control plane."""

    kind: str
    name: str = ""
    id: str = ""

    def to_data(self) -> dict[str, str]:
        return {key: value for key, value in (("kind", self.kind), ("name", self.name), ("id", self.id)) if value}


ITSELF = Who("control plane")


class Audit:
    """`lost` is called for each line that cannot be written. `clock` gives seconds since 1970."""

    def __init__(
        self,
        path: Path | None = None,
        lost: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises OSError if a file is named and cannot be written."""
        self._lost, self._clock = lost, clock
        self._lock = threading.Lock()
        self._file = AuditFile(path, Trust.of()) if path is not None else None
        self._failure = ""
        self._second, self._strangers, self._left_out = 0, 0, 0
        if self._file is not None:
            self._file.open()

    def write(self, event: str, by: Who | None, source: str, **fields: Any) -> None:
        """`by`: None if the request was unauthorized. `source`: an address, or empty for this host."""
        with self._lock:
            now = self._clock()
            if self._is_too_much(by, now):
                return
            if self._left_out:
                self._append("left_out", now, why="unauthenticated requests beyond the limit", count=self._left_out)
                self._left_out = 0
            who = None if by is None else by.to_data()
            self._append(event, now, by=who, **{"from": source or "this host"}, **fields)

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _is_too_much(self, by: Who | None, now: float) -> bool:
        if by is not None:
            return False
        if int(now) != self._second:
            self._second, self._strangers = int(now), 0
        self._strangers += 1
        if self._strangers <= STRANGERS_PER_SECOND:
            return False
        self._left_out += 1
        return True

    def _append(self, event: str, now: float, **fields: Any) -> None:
        moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "event": event} | _bounded(fields), separators=(",", ":"))
        error = _print(line) if self._file is None else self._file.append([line.encode() + b"\n"]).error
        if error is not None:
            self._lost()
        if str(error or "") == self._failure:
            return
        self._failure, file = str(error or ""), str(self._file.path) if self._file is not None else "-"
        if error is not None:
            log.error("cannot write the audit log; changes continue", file=file, error=self._failure)
        else:
            log.info("writing the audit log again", file=file)


def _print(line: str) -> Exception | None:
    """Written under a lock, as the log's own lines are, so that lines never interleave."""
    try:
        structlog.PrintLogger(sys.stdout).msg(line)
    except (OSError, ValueError) as error:  # ValueError: standard output is closed
        return error
    return None


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_CHARS else value[:MAX_CHARS] + "..."
    if isinstance(value, dict):
        return {_bounded(key): _bounded(item) for key, item in value.items()}
    return value


def moment(seconds: float) -> str:
    """Formats seconds since 1970 as the log does."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
