"""What Exact and Prefix mean: the same in permissions, in `mesh inspect`, in RBAC by hand, and in the module.

The table is tests/spiffe_matches.json, which the module's own tests read too (spiffe/spiffe_match.cc).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import re2
import yaml

from control.kinds import KINDS
from control.model import documents, regex
from control.model.target_ref import spiffe_id_problem
from control.policies.matching import Entry
from control.policies.meshtrafficpermission import generate as permission
from envoy_ext.authorization import principal
from envoy_ext.settings import SpiffeMatch

TABLE = json.loads((Path(__file__).parents[2] / "spiffe_matches.json").read_text())
CASES = [
    pytest.param(kind, row[kind], spiffe_id, fits, id=f"{kind} {row[kind]} {spiffe_id}")
    for row in TABLE
    for kind in ("exact", "prefix")
    if kind in row
    for fits, ids in ((True, row["fits"]), (False, row["not"]))
    for spiffe_id in ids
]


def entries(kind: str, value: str, field: str) -> list[Entry]:
    match = {"spiffeID": {"type": kind.capitalize(), "value": value}}
    spec = {"rules": [{"default": {field: [match]}}]}
    text = yaml.safe_dump({"type": "MeshTrafficPermission", "name": "policy", "spec": spec})
    [policy] = documents.read(text, "test", KINDS, default_mesh="default")
    return [Entry(policy.spec.rules[0].default, policy, 0)]


def holds(predicate: dict[str, Any], spiffe_id: str) -> bool:
    """As Envoy evaluates a predicate, or a principal."""
    if "or_matcher" in predicate:
        return any(holds(one, spiffe_id) for one in predicate["or_matcher"]["predicate"])
    if "or_ids" in predicate:
        return any(holds(one, spiffe_id) for one in predicate["or_ids"]["ids"])
    if "not_matcher" in predicate:
        return not holds(predicate["not_matcher"], spiffe_id)
    inner = predicate.get("filter_state") or predicate["single_predicate"]
    [(how, wanted)] = (inner.get("string_match") or inner["value_match"]).items()
    if how == "safe_regex":
        return re2.fullmatch(wanted["regex"], spiffe_id) is not None
    return spiffe_id == wanted if how == "exact" else spiffe_id.startswith(wanted)


def answer(config: dict[str, Any], spiffe_id: str) -> str:
    """What the matcher of a network filter does with a caller."""
    matcher = config["typed_config"]["matcher"]
    hits = (m["on_match"] for m in matcher["matcher_list"]["matchers"] if holds(m["predicate"], spiffe_id))
    found: str = next(hits, matcher["on_no_match"])["action"]["typed_config"]["action"]
    return found


@pytest.mark.parametrize(("kind", "value", "spiffe_id", "fits"), CASES)
def test_one_meaning(kind: str, value: str, spiffe_id: str, fits: bool) -> None:
    sources: tuple[permission.PeerSource, ...] = ("uri_san", "filter_state")
    allow = entries(kind, value, "allow")
    for source in sources:
        assert answer(permission.network_filter(allow, source, "x"), spiffe_id) == ("ALLOW" if fits else "DENY")
    assert permission.decide(allow, spiffe_id)[0] is fits
    everybody = [*entries(kind, value, "deny"), *entries("prefix", "spiffe://a/", "allow")]
    if spiffe_id.startswith("spiffe://a/"):
        for source in sources:
            assert answer(permission.network_filter(everybody, source, "x"), spiffe_id) == ("DENY" if fits else "ALLOW")
    if kind == "exact" or "/" in value.removeprefix("spiffe://").rstrip("/"):
        assert holds(principal(SpiffeMatch(kind, value)), spiffe_id) is fits  # type: ignore[arg-type]


NO_ONE = [
    "",
    "spiffe://a/x,spiffe://a/y",
    "spiffe://a/x,spiffe://a/x",
    "spiffe://a/x,https://y",
    "https://y,spiffe://a/x",
    "spiffe://a/x,",
    "spiffe://a/x,y",
    "spiffe://a/x ",
    "spiffe://a/x\n",
    "spiffe://a/x\nspiffe://a/y",
    "spiffe://a//x",
    "spiffe://a/x/",
    "spiffe://a/./x",
    "spiffe://a/x/..",
    "spiffe://a/%78",
    "spiffe://a/x?y",
    "spiffe://A/x",
    "spiffe://a",
    "spiffe://a/",
]


@pytest.mark.parametrize("names", NO_ONE)
def test_whoever_is_not_one_id_is_nobody(names: str) -> None:
    """Envoy joins the URIs of a certificate with commas."""
    config = permission.network_filter(entries("prefix", "spiffe://a/", "allow"), "uri_san", "x")
    assert answer(config, names) == "DENY"


@pytest.mark.parametrize("path", ["x", "...", ".x", "..x", ".-", "x.", "A_b-9/..../z"])
def test_every_id_is_one(path: str) -> None:
    assert spiffe_id_problem(f"spiffe://a/{path}") is None
    config = permission.network_filter(entries("prefix", "spiffe://a/", "allow"), "uri_san", "x")
    assert answer(config, f"spiffe://a/{path}") == "ALLOW"


def test_envoy_takes_the_expression() -> None:
    assert regex.problem(permission._ONE_ID) is None
