"""The page: what is not right is seen, and nothing that was explained goes unlooked at."""

from __future__ import annotations

from tests.conformance.judge import Explanation, Outcome
from tests.conformance.report import Row, Tool, document, findings
from tests.conformance.rig import KEYS, SIDES

RIGHT, WRONG = Outcome("closed", True), Outcome("a | b", False, "detail")


def _row(check: str, ours: Outcome, stock: Outcome = RIGHT) -> Row:
    return Row(
        "tool", check, "RFC 1", {(side, key): {"ours": ours, "stock": stock}[side] for side in SIDES for key in KEYS}
    )


def test_each_key_is_judged() -> None:
    good = _row("good", RIGHT, WRONG)
    half = Row("tool", "half", "", {**_row("half", RIGHT).outcomes, ("ours", "p256"): WRONG})
    assert findings([good, half], {}) == ["tool: half: a | b (p256)"]


def test_what_is_explained_must_have_been_looked_at() -> None:
    entry = Explanation("tool", "gone", "bad", "because", like_stock=True)
    assert findings([_row("good", RIGHT)], {("tool", "gone"): entry}) == ["tool: gone: explained, and no check"]


def test_document() -> None:
    rows = [_row("good", RIGHT), Row("tool", "half", "", {**_row("", RIGHT).outcomes, ("ours", "p256"): WRONG})]
    text = document([Tool("tool", "1.0", "What it is.")], rows, {}, ["something"], "1.40.0")
    assert "| tool | 1.0 | 2 | 1 | 0 |" in text
    assert "| good | RFC 1 | closed | closed |" in text
    assert r"| half |  | rsa2048: closed; p256: **a \| b: detail** | closed |" in text
    assert "findings: 1." in text
    assert "- something" in text
