"""The logs of the control plane: structlog's standard form, one event a line, whatever proxies and nodes say."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any

import structlog

from control.untrusted_text import escaped_all
from offload.reporting.folded_log import INTERVAL_SECONDS, FoldedLog

# uvicorn logs every request that is not HTTP, and asyncio a trace for everything that it cannot do.
_LIBRARIES = ("uvicorn.error", "asyncio")
# Length of a message's start that tells one kind from another; the rest may name an object that occurs only once.
_KIND_CHARS = 40
_KINDS_MAX = 64


def configure() -> None:
    """Escapes every value of every event from now on, and hides the values of variables in traces."""
    renderer = structlog.dev.ConsoleRenderer
    defaults = [p for p in structlog.get_config()["processors"] if p is not _escaped and not isinstance(p, renderer)]
    # By default a trace shows the values of all variables: tokens and keys of CAs among them.
    last = renderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[_escaped, *defaults, last])


def _escaped(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        event[name] = escaped_all(value)
    return event


class FoldedLibraries(logging.Filter):
    """Passes one message of each kind of a library per interval, perhaps with its trace; the others are counted in
    `folded`."""

    def __init__(self, folded: FoldedLog) -> None:
        super().__init__()
        self._folded = folded
        self._written: dict[str, float] = {}

    def begin(self) -> None:
        for name in _LIBRARIES:
            logging.getLogger(name).addFilter(self)

    def end(self) -> None:
        for name in _LIBRARIES:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        kind, now = str(record.msg)[:_KIND_CHARS], time.monotonic()
        if now - self._written.get(kind, -INTERVAL_SECONDS) >= INTERVAL_SECONDS and len(self._written) < _KINDS_MAX:
            self._written[kind] = now
            return True
        if len(self._written) >= _KINDS_MAX:
            self._written = {kind: at for kind, at in self._written.items() if now - at < INTERVAL_SECONDS}
        self._folded.warning((record.name, kind), kind, logger=record.name)
        return False
