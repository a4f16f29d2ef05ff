"""The samples of `perf script` as a call tree. Pure.

Functions without a name (stock Envoy has no symbols) are one frame with the name of their file, however many are on top
of each other: what matters is what they call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

_HEAD = re.compile(r"(?P<thread>\S.*?)\s+\d+(/\d+)?\s+(\[\d+\]\s+)?\d+\.\d+:")
_FRAME = re.compile(r"\s+[0-9a-f]+ (?P<name>.+) \((?P<file>[^()]*|\[[^\]]*\])\)$")
_OFFSET = re.compile(r"\+0x[0-9a-f]+$")
# Suffixes that gcc adds to parts of a function, and C++ parameters and templates, which nobody reads in a narrow box.
_SUFFIX = re.compile(r"(\.(isra|part|constprop|cold|lto_priv)(\.\d+)?)+$")
_ARGUMENTS = re.compile(r"\(.*$")
KERNEL = "kernel"


@dataclass(frozen=True)
class Frame:
    name: str
    place: str  # the file it is in, without folder; "kernel"


@dataclass
class Calls:
    """A frame, the number of samples in it or below, and its callees."""

    frame: Frame
    samples: int = 0
    below: dict[Frame, Calls] = field(default_factory=dict)

    def add(self, stack: Sequence[Frame]) -> None:
        """Adds one sample; the outermost frame first."""
        self.samples += 1
        if stack:
            self.below.setdefault(stack[0], Calls(stack[0])).add(stack[1:])

    def depth(self) -> int:
        return 1 + max((one.depth() for one in self.below.values()), default=0)


def read(text: str) -> Calls:
    """All samples, by thread. ValueError if there are none."""
    root = Calls(Frame("all", ""))
    for thread, frames in samples(text):
        root.add([Frame(thread, ""), *frames])
    if not root.samples:
        raise ValueError("perf recorded no samples: was the process idle, or perf not allowed to see it?")
    return root


def samples(text: str) -> Iterator[tuple[str, list[Frame]]]:
    """(thread, stack with the outermost frame first) of each sample."""
    for block in text.split("\n\n"):
        head, *rows = block.strip("\n").split("\n")
        found = _HEAD.match(head)
        if found is not None:
            yield _thread(found["thread"]), _stack(rows)


def _thread(name: str) -> str:
    """Merges the kernel threads of the daemon, and Envoy's workers, into one each."""
    return re.sub(r"[_:]?\d+$", "", name)


def _stack(rows: Sequence[str]) -> list[Frame]:
    stack: list[Frame] = []
    for row in reversed(rows):
        found = _FRAME.match(row)
        if found is None:
            continue
        frame = _frame(found["name"], found["file"])
        if frame is not None and (not stack or stack[-1] != frame):
            stack.append(frame)
    return stack


def _frame(name: str, file: str) -> Frame | None:
    if file == "[kernel.kallsyms]":
        return Frame(_SUFFIX.sub("", _OFFSET.sub("", name)), KERNEL)
    place = PurePath(file).name
    if name == "[unknown]":
        # An address in no file comes from an invalid frame pointer.
        return None if file == "[unknown]" else Frame(place, place)
    name = _OFFSET.sub("", name).replace("(anonymous namespace)::", "")
    return Frame(_SUFFIX.sub("", _ARGUMENTS.sub("", name)), place)
