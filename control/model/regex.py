"""Regular expressions as Envoy accepts them: RE2 itself decides whether one is valid, and how large its program is."""

from __future__ import annotations

import re2

# Envoy's own bound (re2.max_program_size.error_level): larger programs cost each request too much. Counted repetitions
# make programs large: [a-z]{0,200} alone is 600.
MAX_PROGRAM_SIZE = 100

# Envoy matches bytes. With UTF-8 the same program would be larger, and other escapes would be known.
_OPTIONS = re2.Options()
_OPTIONS.encoding = re2.Options.Encoding.LATIN1
_OPTIONS.log_errors = False


def problem(pattern: str) -> str | None:
    """Why Envoy would reject the expression, or None."""
    if not pattern:
        return "must not be empty"
    try:
        size = re2.compile(pattern.encode(), _OPTIONS).programsize
    except re2.error as error:
        [reason] = error.args
        return f"RE2 rejects it: {reason.decode(errors='replace') if isinstance(reason, bytes) else reason}"
    if size > MAX_PROGRAM_SIZE:
        return (
            f"its program has size {size}, and Envoy takes {MAX_PROGRAM_SIZE}: "
            "use fewer or smaller counts in braces, or * and + instead of them"
        )
    return None


def prefix(path: str) -> str:
    """An expression for the beginning of a path, with the slashes after it."""
    return f"^{re2.escape(path)}/*"
