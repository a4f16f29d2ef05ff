"""Structured logs on standard error: JSON for machines, colours for people.

structlog, because the same event then reaches both formats with its fields intact, and because what grpcio and
watchfiles write through the standard library takes the same path. Values that are bytes are never written: nothing
that could be a key belongs in a log, and public digests are logged in hexadecimal by their owners.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from offload.reporting.untrusted_text import escaped_all

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str, output: str) -> None:
    """Sends every log of this process to standard error; `output` is "json", "console" or "auto"."""
    as_json = output == "json" or (output == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_bytes,
        _escaped,
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, _event_first, structlog.processors.JSONRenderer()]
        if as_json
        # By default a trace shows the values of all variables: tokens and issuers' responses among them.
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    set_level(level)


def set_level(level: str) -> str:
    """Returns the previous level. KeyError for an unknown one."""
    root = logging.getLogger()
    before = next((name for name, number in LEVELS.items() if number == root.level), "warning")
    root.setLevel(LEVELS[level])
    return before


def get_logger() -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.get_logger("offload")
    return logger


def _event_first(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Puts the event first, for people who read the JSON all the same."""
    head = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return head | dict(event)


def _escaped(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keeps one event on one line, whatever a caller, a file or a peer says. The traceback comes later, with lines."""
    for name, value in event.items():
        event[name] = escaped_all(value)
    return event


def _without_bytes(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, bytes | bytearray | memoryview):
            event[name] = f"<{len(value)} bytes>"
    return event
