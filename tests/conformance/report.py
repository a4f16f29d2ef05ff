"""docs/operations/conformance.md: what every tool saw, of our socket and of stock Envoy beside it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.conformance.judge import Explained, Outcome, finding
from tests.conformance.rig import KEYS, SIDES

By = Mapping[tuple[str, str], Outcome]  # by side and key

HEAD = """# Conformance

How independent TLS clients and scanners judge our downstream socket in stock Envoy, with the key at the daemon, and the
same Envoy's own TLS beside it: RSA-2048 and P-256, TLS 1.2 and 1.3, the defaults of both; and what a misbehaving server
can do to our upstream socket. `make conformance` writes this page, and fails on any deviation that is not in
[explained.toml](../../tests/conformance/explained.toml). The part with tlslite-ng runs in `make test` as well.

A cell holds one outcome where it is the same with both keys. *TLS 1.2* and *TLS 1.3* mean that the handshake succeeded
and a request was answered. **Bold** is not what the standard says; the reasons for ours are [below](#explained).

"""


@dataclass(frozen=True)
class Row:
    tool: str
    check: str
    standard: str
    outcomes: By


@dataclass(frozen=True)
class Tool:
    name: str
    version: str
    what: str


def findings(rows: Sequence[Row], explained: Explained) -> list[str]:
    """In words, each with its key. What stands in explained.toml and was not looked at at all is one too."""
    found = []
    missing = Outcome("not looked at", False)
    for row in rows:
        for key in KEYS:
            ours = row.outcomes.get(("ours", key))
            if ours is None:
                continue
            stock = row.outcomes.get(("stock", key), missing)
            if problem := finding(row.tool, row.check, ours, stock, explained):
                found.append(f"{problem} ({key})")
    seen = {(row.tool, row.check) for row in rows}
    found += [f"{tool}: {check}: explained, and no check" for tool, check in explained if (tool, check) not in seen]
    return found


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _words(outcome: Outcome) -> str:
    text = f"{outcome.text}: {outcome.detail}" if outcome.detail else outcome.text
    return _escaped(text) if outcome.right else f"**{_escaped(text)}**"


def _cell(outcomes: By, side: str) -> str:
    words = {key: _words(outcomes[side, key]) for key in KEYS if (side, key) in outcomes}
    if len(words) == len(KEYS) and len(set(words.values())) == 1:
        return words[KEYS[0]]
    return "; ".join(f"{key}: {text}" for key, text in words.items())


def _table(rows: Sequence[Row]) -> list[str]:
    standard = any(row.standard for row in rows)
    heads = ["check", *(["standard"] if standard else []), "ours", "stock Envoy"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [_escaped(row.check), *([row.standard] if standard else [])]
        cells += [_cell(row.outcomes, side) for side in SIDES]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def document(tools: Sequence[Tool], rows: Sequence[Row], explained: Explained, found: Sequence[str], envoy: str) -> str:
    day = datetime.datetime.now(datetime.UTC).date()
    lines = [HEAD + "| tool | version | checks | not right: ours | stock Envoy |", "|---|---|---|---|---|"]
    for tool in tools:
        mine = [row for row in rows if row.tool == tool.name]
        wrong = {
            side: sum(any(not o.right for (s, _), o in row.outcomes.items() if s == side) for row in mine)
            for side in SIDES
        }
        lines.append(f"| {tool.name} | {tool.version} | {len(mine)} | {wrong['ours']} | {wrong['stock']} |")
    lines += ["", f"Run of {day} with Envoy {envoy}; findings: {len(found) or 'none'}.", ""]
    lines += [f"- {one}" for one in found]
    lines += ["", "## Explained", "", "| tool | check | ours | why |", "|---|---|---|---|"]
    for entry in explained.values():
        like = " Stock Envoy: the same." if entry.like_stock else ""
        lines.append(f"| {entry.tool} | {_escaped(entry.check)} | {entry.outcome} | {_escaped(entry.why)}{like} |")
    for tool in tools:
        lines += ["", f"## {tool.name}", "", tool.what, ""]
        lines += _table([row for row in rows if row.tool == tool.name])
    return "\n".join(lines) + "\n"
