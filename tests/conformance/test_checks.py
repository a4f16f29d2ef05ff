"""Every check with tlslite-ng against our socket; after each a normal client is served as ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.conformance.check import Check
from tests.conformance.checks import CHECKS
from tests.conformance.judge import Explained, finding
from tests.conformance.mutations import differences
from tests.conformance.rig import KEYS, Rig

pytestmark = pytest.mark.envoy

TOOL = "tlslite-ng"
DAMAGED_HELLOS = 300


def _cases() -> Iterator[object]:
    """All with RSA; with P-256, in `make test`, those that depend on the key. `make conformance` runs all with both."""
    for key in KEYS:
        for check in CHECKS:
            both = key == "rsa2048" or check.group in ("extensions", "messages", "ciphers", "upstream")
            yield pytest.param(key, check, id=f"{key}, {check.id}", marks=() if both else pytest.mark.long)


@pytest.mark.parametrize(("key", "check"), list(_cases()))
def test_check(rig: Rig, explained: Explained, key: str, check: Check) -> None:
    ours = check.outcome(rig.targets["ours", key])
    rig.targets["ours", key].healthy()
    stock = ours if (TOOL, check.id) not in explained else check.outcome(rig.targets["stock", key])
    assert finding(TOOL, check.id, ours, stock, explained) is None, f"{check.standard}: expected {check.expected}"


@pytest.mark.parametrize("key", KEYS)
def test_damaged_hellos_are_answered_as_stock_envoy_does(rig: Rig, key: str) -> None:
    assert differences(rig.targets["ours", key], rig.targets["stock", key], DAMAGED_HELLOS) == []
    rig.targets["ours", key].healthy()


def test_names_are_different() -> None:
    """An explanation is for one check."""
    assert len({check.id for check in CHECKS}) == len(CHECKS)


def test_what_is_explained_exists(explained: Explained) -> None:
    checks = {check.id for check in CHECKS}
    assert {check for tool, check in explained if tool == TOOL} <= checks


def test_a_weaker_listener_is_found_out(rig: Rig, explained: Explained) -> None:
    """The checks do see what they are for: here, where RSA key exchange is allowed."""
    ours = rig.targets["ours", "rsa2048"]
    weak = replace(ours, port=ours.rsakx)
    check = next(check for check in CHECKS if check.id == "ciphers: only RSA key exchange")
    outcome = check.outcome(weak)
    assert outcome.text == "TLS 1.2"
    assert finding(TOOL, check.id, outcome, outcome, explained)
