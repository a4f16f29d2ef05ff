"""What is a finding, and what an explanation is good for."""

from __future__ import annotations

import pytest

from tests.conformance.judge import Explanation, Outcome, finding

RIGHT, WRONG, OTHER = Outcome("good", True), Outcome("bad", False), Outcome("worse", False)
KNOWN = {("tool", "known"): Explanation("tool", "known", "bad", "because", like_stock=True)}


@pytest.mark.parametrize(
    ("check", "ours", "stock", "problem"),
    [
        ("new", RIGHT, WRONG, None),
        ("new", WRONG, WRONG, "bad"),
        ("known", WRONG, WRONG, None),
        ("known", WRONG, RIGHT, "stock Envoy: good"),
        ("known", OTHER, OTHER, "explained is only bad"),
        ("known", RIGHT, WRONG, "no more reason"),
    ],
)
def test_finding(check: str, ours: Outcome, stock: Outcome, problem: str | None) -> None:
    found = finding("tool", check, ours, stock, KNOWN)
    assert (found is None) == (problem is None)
    assert problem is None or (found is not None and problem in found)
