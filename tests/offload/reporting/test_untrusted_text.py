"""Text of others in logs and on terminals."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

import control.untrusted_text
import offload.reporting.untrusted_text

BOTH = pytest.mark.parametrize("module", [offload.reporting.untrusted_text, control.untrusted_text])


@BOTH
@given(text=strategies.text(strategies.characters()))
def test_escaped_is_printable_and_idempotent(module: object, text: str) -> None:
    escaped = module.escaped  # type: ignore[attr-defined]
    assert escaped(text).isprintable()
    assert escaped(escaped(text)) == escaped(text)
    assert not text.isprintable() or escaped(text) == text


@BOTH
def test_examples(module: object) -> None:
    escaped = module.escaped  # type: ignore[attr-defined]
    assert escaped("spiffe://mesh.example/ns/läden 'x'") == "spiffe://mesh.example/ns/läden 'x'"
    assert escaped("a\r\nb\x1b[2J\x00\u2028\u202e\ud800") == r"a\r\nb\x1b[2J\x00\u2028\u202e\ud800"


@BOTH
def test_structures(module: object) -> None:
    escaped_all = module.escaped_all  # type: ignore[attr-defined]
    assert escaped_all({"a\n": ["b\n", ("c\n", 1)], "d": None}) == {"a\\n": ["b\\n", ["c\\n", 1]], "d": None}
