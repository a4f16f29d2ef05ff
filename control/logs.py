"""The logs of the control plane: structlog's standard form, one event a line, whatever proxies and nodes say."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import structlog

from control.untrusted_text import escaped_all


def configure() -> None:
    """Escapes every value of every event from now on."""
    defaults = [p for p in structlog.get_config()["processors"] if p is not _escaped]
    structlog.configure(processors=[_escaped, *defaults])


def _escaped(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        event[name] = escaped_all(value)
    return event
