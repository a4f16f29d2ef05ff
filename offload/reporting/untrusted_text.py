"""Text that somebody else wrote (a caller, a file, a certificate, the control plane), made fit for logs and terminals.

docs/design/untrusted-text.md lists every place where this is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def escaped(text: str) -> str:
    r"""Keeps printable characters, and escapes all others as Python does (\n, \x1b, \u202e): so no text makes a second
    line, moves a terminal's cursor, or changes the direction of writing. Idempotent."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def escaped_all(value: Any) -> Any:
    """Escapes every text in a structure of mappings, lists and tuples; anything else stays as it is."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, Mapping):
        return {escaped_all(key): escaped_all(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [escaped_all(item) for item in value]
    return value
