"""Every document that is refused, and every message of the code: a message that no case here brings out fails."""

from __future__ import annotations

import ast
import contextlib
import sys
from pathlib import Path
from types import FrameType

import pytest
import yaml

from control.kinds import KINDS
from control.model import violation
from control.model.resource import parse
from control.model.violation import InvalidResource, Violation

HERE = Path(__file__).parent
CONTROL = Path(violation.__file__).parents[1]
CASES = [
    pytest.param(case["document"], case["says"], id=f"{name}: {case['name']}")
    for name in ("refused", "legacy", "policies")
    for case in yaml.safe_load((HERE / f"{name}.yaml").read_text())
]


def violations_of(document: object) -> list[str]:
    with pytest.raises(InvalidResource) as refused:
        parse(document, KINDS)
    return [str(v) for v in refused.value.violations]


@pytest.mark.parametrize(("document", "says"), CASES)
def test_message(document: object, says: list[str]) -> None:
    given = violations_of(document)
    for text in says:
        assert any(text in line for line in given), f"nothing says {text!r} in:\n" + "\n".join(given)


def made_at() -> dict[tuple[str, int], int]:
    """Where the code makes a Violation or refuses a scalar: (file, first line) to last line."""
    files = [path for folder in ("model", "policies") for path in (CONTROL / folder).rglob("*.py")]
    return {
        (str(path), node.lineno): node.end_lineno or node.lineno
        for path in files
        if path.name != "documents.py"  # which only repeats what was found
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Violation", "refuse")
    }


def test_every_message_is_covered() -> None:
    sites, covered = made_at(), set()

    def trace(frame: FrameType, event: str, _: object) -> None:
        caller = frame.f_back
        if event != "call" or caller is None or frame.f_code.co_name not in ("__init__", "refuse"):
            return
        for (file, first), last in sites.items():
            if caller.f_code.co_filename == file and first <= caller.f_lineno <= last:
                covered.add((file, first))

    sys.settrace(trace)
    try:
        for case in CASES:
            with contextlib.suppress(InvalidResource):
                parse(case.values[0], KINDS)
    finally:
        sys.settrace(None)
    missing = sorted(f"{Path(file).relative_to(CONTROL)}:{line}" for file, line in sites.keys() - covered)
    assert sites
    assert not missing, f"messages that no case brings out: {missing}"


def test_a_violation_prints_its_example_on_the_same_line_or_below() -> None:
    assert str(Violation("a.b", "is required", "b: 1")) == "a.b: is required (example: b: 1)"
    assert str(Violation("a", "is old", "b: 1\nc: 2\n")) == "a: is old\n    b: 1\n    c: 2"
