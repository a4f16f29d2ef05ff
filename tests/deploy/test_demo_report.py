"""The verdict of the demo is drawn from what was found, and each way to fail makes it fail."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.demo import report
from deploy.demo.clients import Visit
from deploy.demo.sidecars import CALLER, INTRUDER, ROTATIONS, SidecarFindings
from deploy.node.certificates import Leaf, make_key
from deploy.node.daemon import Counters
from deploy.node.memory_search import Finding, Search

NOWHERE = Path("/nowhere")
FOUND = Search(1000, 3, (Finding("d little-endian", 0x1000, ""),))
NOT_FOUND = Search(1000, 3, ())


def load(handshakes: int, failures: dict[str, int] | None = None) -> dict[str, Any]:
    reasons = failures or {}
    buckets = [[1.0, handshakes - 1], [9.0, 1]]
    return {
        "handshakes": handshakes,
        "failures": sum(reasons.values()),
        "failures_by_reason": reasons,
        "handshakes_per_s": 1000.0,
        "handshake_ms": {"p50": 1.0, "p99": 1.0, "buckets": buckets},
    }


@pytest.fixture
def findings() -> report.Findings:
    """A demo that went well: 200 handshakes by the load, 2 by other clients."""
    leaves = [Leaf(n, t, make_key("p256"), NOWHERE, NOWHERE) for n, t in (("rsa", "rsa2048"), ("ecdsa", "p256"))]
    return report.Findings(
        leaves=leaves,
        visits=[Visit("curl", leaf.name, None) for leaf in leaves],
        loads={leaf.name: load(100) for leaf in leaves},
        counters=Counters(
            operations={("rsa2048", "OK", "ifma8"): 101, ("p256", "OK", "software"): 101},
            batches={
                ("rsa2048", "ifma8", "free", 8): 10,
                ("rsa2048", "ifma8", "free", 7): 3,
                ("p256", "software", "free", 1): 101,
            },
            run_seconds={},
            queue_seconds={},
            faults=0,
        ),
        searches={leaf.name: NOT_FOUND for leaf in leaves},
        control={leaf.name: FOUND for leaf in leaves},
        sidecars=SidecarFindings(
            answers={CALLER: {200: 20}, INTRUDER: {403: 20}},
            during_rotation={200: 100},
            rotations=ROTATIONS,
            mtls_handshakes=142,
            rbac_denied=20,
        ),
    )


def test_a_good_run(findings: report.Findings) -> None:
    data = report.as_data(findings)
    assert data["problems"] == []
    assert data["handshakes"] == 202
    assert data["failures"] == 0
    assert data["operations"] == 202
    assert data["batch_size_histogram"] == {
        "1": 101, "2": 0, "3": 0, "4": 0, "5": 0, "6": 0, "7": 3, "8": 10,
    }  # fmt: skip
    assert data["p50_ms"] == 1.0
    assert data["p99_ms"] == 1.0
    assert data["backends"] == {"ifma8": 101, "software": 101}
    assert data["key_found_in_envoy"] is False
    assert data["key_found_in_envoy_control"] is True
    assert data["mtls_handshakes"] == 142
    assert (data["rbac_allowed"], data["rbac_denied"]) == (20, 20)
    assert (data["rotations"], data["failed_during_rotation"]) == (ROTATIONS, 0)


def test_latencies_of_both_listeners_count(findings: report.Findings) -> None:
    findings.loads["rsa"]["handshake_ms"]["buckets"] = [[50.0, 100]]
    assert report.as_data(findings)["p99_ms"] == 50.0


def test_a_failed_connection_fails_the_demo(findings: report.Findings) -> None:
    findings.loads["rsa"] = load(99, {"handshake: timed out": 1})
    data = report.as_data(findings)
    assert data["failures"] == 1
    assert data["problems"] == ["1 x handshake: timed out"]


def test_a_failed_client_fails_the_demo(findings: report.Findings) -> None:
    findings.visits[0] = Visit("curl HTTP/2", "rsa", "HTTP/1.1 was spoken")
    data = report.as_data(findings)
    assert data["handshakes"] == 201
    assert data["problems"] == ["1 x curl HTTP/2: HTTP/1.1 was spoken"]


def test_a_key_in_envoy_fails_the_demo(findings: report.Findings) -> None:
    findings.searches["rsa"] = FOUND
    data = report.as_data(findings)
    assert data["key_found_in_envoy"] is True
    assert "the rsa2048 key is in Envoy's memory" in data["problems"][0]


def test_a_search_that_finds_nothing_anywhere_fails_the_demo(findings: report.Findings) -> None:
    findings.control["ecdsa"] = NOT_FOUND
    data = report.as_data(findings)
    assert data["key_found_in_envoy_control"] is False
    assert "it proves nothing" in data["problems"][0]


def test_fewer_operations_than_handshakes_fail_the_demo(findings: report.Findings) -> None:
    findings.counters = Counters({("rsa2048", "OK", "ifma8"): 150}, {}, {}, {}, 0)
    assert "somebody else signed" in report.as_data(findings)["problems"][0]


def test_tables_show_the_numbers(findings: report.Findings) -> None:
    text = io.StringIO()
    console = Console(file=text, width=140)
    console.print(report.table(findings))
    console.print(report.batch_table(findings))
    console.print(report.key_table(findings))
    for shown in ("rsa2048", "p256", "202", "101", "not there", "little-endian d", "ifma8"):
        assert shown in text.getvalue()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answers": {CALLER: {200: 19, 503: 1}, INTRUDER: {403: 20}}}, "'cart' should get 200 each time"),
        ({"answers": {CALLER: {200: 20}, INTRUDER: {403: 19, 200: 1}}}, "'intruder' should get 403 each time"),
        ({"answers": {CALLER: {200: 20}}}, "'intruder' should get 403 each time, and got nothing"),
        ({"rbac_denied": 19}, "Envoy counts 19 denied requests"),
        ({"during_rotation": {200: 99, 503: 1}}, "1 requests failed while certificates rotated"),
        ({"rotations": 1}, f"only 1 of {ROTATIONS} rotations"),
        ({"keys_in_envoys": ["the key of 'cart' is in the memory"]}, "the key of 'cart'"),
    ],
)
def test_what_goes_wrong_between_the_sidecars(findings: report.Findings, change: dict[str, Any], problem: str) -> None:
    findings.sidecars = replace(findings.sidecars, **change)
    assert any(problem in one for one in report.as_data(findings)["problems"])
