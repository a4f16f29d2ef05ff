"""Every document that is refused, and every message of the code: a message that no case here brings out fails."""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml

from control.kinds import KINDS
from control.model import violation
from control.model.resource import parse
from control.model.violation import InvalidResource, Violation
from tests.control.model.test_mesh_identity import certificate, trust

HERE = Path(__file__).parent
CONTROL = Path(violation.__file__).parents[1]


def service_of(spiffe_id: str) -> dict[str, Any]:
    spec = {
        "selector": {"dataplaneLabels": {"matchLabels": {"app": "a"}}},
        "ports": [{"port": 80}],
        "identities": [{"type": "SpiffeID", "value": spiffe_id}],
    }
    return {"type": "MeshService", "name": "a", "mesh": "default", "spec": spec}


# Too long, or too much made anew each time, for a file.
MADE = [
    pytest.param(
        service_of("spiffe://" + "a" * 256), ["a trust domain must have 1 to 255 characters"], id="long domain"
    ),
    pytest.param(service_of("spiffe://a/" + "b" * 2048), ["must have at most 2048 bytes"], id="long id"),
    pytest.param(service_of("spiffe://a/b?c"), ["path segments have only letters, digits"], id="characters of an id"),
    pytest.param(service_of("spiffe://a/" + "b" * 5000), ["must have at most 4096 characters"], id="long text"),
    pytest.param(
        service_of("spiffe://a/b")
        | {"spec": {"selector": {"dataplaneRef": {"name": "a"}}, "ports": [{"port": 1, "name": "a" * 3000}]}},
        ["spec.ports[0].name: must have only lower-case letters, digits and '-', at most 63; got 'aaa"],
        id="long name of a port",
    ),
    pytest.param(
        {
            "type": "MeshAccessLog",
            "name": "a",
            "mesh": "default",
            "spec": {"rules": [{"default": {"backends": [{"type": "File", "file": {"path": "/" + "a" * 256}}]}}]},
        },
        ["backends[0].file.path: is longer than a path can be"],
        id="long file name",
    ),
    pytest.param(
        trust(certificate(False)), ["certificate 1 is not a CA certificate (basic constraints: CA)"], id="no CA"
    ),
]
CASES = [
    pytest.param(case["document"], case["says"], id=f"{name}: {case['name']}")
    for name in ("refused", "legacy", "policies", "envoy")
    for case in yaml.safe_load((HERE / f"{name}.yaml").read_text())
] + MADE


def violations_of(document: object) -> list[str]:
    with pytest.raises(InvalidResource) as refused:
        parse(document, KINDS)
    return [str(v) for v in refused.value.violations]


@pytest.mark.parametrize(("document", "says"), CASES)
def test_message(document: object, says: list[str]) -> None:
    given = violations_of(document)
    for text in says:
        assert any(text in line for line in given), f"nothing says {text!r} in:\n" + "\n".join(given)


# Functions that give a message back: each of their returns is one, or None.
GIVES_A_MESSAGE = re.compile(r".*_problem|_message")


def made_at() -> dict[tuple[str, int], int]:
    """Where the code makes a Violation, refuses a scalar or gives a message back: (file, first line) to last line."""
    files = [path for folder in ("model", "policies") for path in (CONTROL / folder).rglob("*.py")]
    found: dict[tuple[str, int], int] = {}
    for path in files:
        if path.name == "documents.py":  # which only repeats what was found
            continue
        tree = ast.parse(path.read_text())
        nodes: list[ast.expr | ast.stmt] = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("Violation", "refuse")
        ]
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and GIVES_A_MESSAGE.fullmatch(function.name):
                nodes += [node for node in ast.walk(function) if isinstance(node, ast.Return) and not _is_none(node)]
        found |= {(str(path), node.lineno): node.end_lineno or node.lineno for node in nodes}
    return found


def _is_none(node: ast.Return) -> bool:
    return isinstance(node.value, ast.Constant) and node.value.value is None


@pytest.mark.slow(seconds=3)
def test_every_message_is_covered() -> None:
    """By line: which line of the model and the policies runs while the cases are read."""
    sites, ran = made_at(), set[tuple[str, int]]()
    files = {file for file, _ in sites}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            ran.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        for case in CASES:
            with contextlib.suppress(InvalidResource):
                parse(case.values[0], KINDS)
    finally:
        sys.settrace(None)
    covered = {
        (file, first) for (file, first), last in sites.items() for line in range(first, last + 1) if (file, line) in ran
    }
    missing = sorted(f"{Path(file).relative_to(CONTROL)}:{line}" for file, line in sites.keys() - covered)
    assert len(sites) > 120
    assert not missing, f"messages that no case brings out: {missing}"


def test_a_violation_prints_its_example_on_the_same_line_or_below() -> None:
    assert str(Violation("a.b", "is required", "b: 1")) == "a.b: is required (example: b: 1)"
    assert str(Violation("a", "is old", "b: 1\nc: 2\n")) == "a: is old\n    b: 1\n    c: 2"
