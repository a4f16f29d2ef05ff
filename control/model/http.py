"""What is allowed in HTTP: names and values of headers, cookies, parameters and paths."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from control.model.base import refuse, shown

# RFC 9110, in lower case, as HTTP/2 has it.
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9!#$%&'*+.^_`|~-]{1,256}$", examples=["x-version"])]
# RFC 6265: a token of RFC 9110, in any case.
CookieName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$", examples=["session"])]

MAX_VALUE_CHARS = 4096
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _on_one_line(text: str) -> str:
    found = _CONTROL.search(text)
    if found is not None:
        raise refuse(f"must not have control characters such as line ends; {found[0]!r} is in {shown(text)}")
    return text


# Text for a header, a tag, or a name: on one line.
HeaderValue = Annotated[str, Field(max_length=MAX_VALUE_CHARS), AfterValidator(_on_one_line)]
Line = Annotated[str, Field(min_length=1, max_length=MAX_VALUE_CHARS), AfterValidator(_on_one_line)]
# The name of a query parameter: Envoy allows 1,024 bytes.
ParameterName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_on_one_line)]


def path_problem(path: str) -> str | None:
    """Why a path cannot be compared with that of requests, or None if it can."""
    if not path.startswith("/"):
        return "must be an absolute path"
    wrong = re.search(r"[?#\s\x00-\x1f\x7f]", path)
    if wrong is not None:
        what = "a query" if wrong[0] == "?" else "a fragment" if wrong[0] == "#" else repr(wrong[0])
        return f"must be a path only, without {what}"
    return None


def file_problem(path: str) -> str | None:
    """Why a proxy could not write to a file of this path, or None if it could."""
    if not path.startswith("/"):
        return "must be an absolute path"
    if path.endswith("/"):
        return "must be the path of a file, not of a folder"
    if _CONTROL.search(path) is not None:
        return "must not have control characters"
    if len(path.encode()) > 4095 or any(len(part.encode()) > 255 for part in path.split("/")):
        return "is longer than a path can be: 4095 bytes, and 255 for each part"
    return None
