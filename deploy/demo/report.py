"""What the demo found: as plain data, as a table, and as a verdict. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from deploy.demo.clients import Visit
from deploy.demo.sidecars import CALLER, INTRUDER, SidecarFindings
from deploy.load.latencies import Latencies
from deploy.node.certificates import Leaf
from deploy.node.daemon import Counters
from deploy.node.memory_search import Search


@dataclass
class Findings:
    """Filled step by step."""

    leaves: Sequence[Leaf] = ()
    visits: list[Visit] = field(default_factory=list)
    loads: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by listener: tlsload's result
    counters: Counters | None = None
    searches: dict[str, Search] = field(default_factory=dict)  # by listener: Envoy with the module
    control: dict[str, Search] = field(default_factory=dict)  # by listener: Envoy with the key
    sidecars: SidecarFindings = field(default_factory=SidecarFindings)


def handshakes(findings: Findings) -> int:
    good = sum(1 for visit in findings.visits if visit.problem is None)
    return good + sum(int(load["handshakes"]) for load in findings.loads.values())


def failures(findings: Findings) -> int:
    bad = sum(1 for visit in findings.visits if visit.problem is not None)
    return bad + sum(int(load["failures"]) for load in findings.loads.values())


def latencies(findings: Findings) -> Latencies:
    merged = Latencies()
    for load in findings.loads.values():
        merged.merge(Latencies.of(load["handshake_ms"]))
    return merged


def as_data(findings: Findings) -> dict[str, Any]:
    """build/demo/report.json."""
    counters = _counters(findings)
    both = latencies(findings)
    return {
        "handshakes": handshakes(findings),
        "failures": failures(findings),
        "failures_by_reason": _failure_reasons(findings),
        "operations": counters.answered(),
        "operations_refused": counters.refused(),
        "batch_size_histogram": {str(size): count for size, count in counters.batch_sizes().items()},
        "mean_batch": round(counters.mean_batch(), 3),
        "p50_ms": round(both.quantile(0.5), 3),
        "p99_ms": round(both.quantile(0.99), 3),
        "backends": counters.backends(),
        "lane_faults": counters.faults,
        "key_found_in_envoy": any(search.findings for search in findings.searches.values()),
        "key_found_in_envoy_control": bool(findings.control) and all(s.findings for s in findings.control.values()),
        "listeners": [_listener(findings, leaf) for leaf in findings.leaves],
        **findings.sidecars.as_data(),
        "problems": problems(findings),
    }


def _counters(findings: Findings) -> Counters:
    return findings.counters or Counters({}, {}, {}, {}, 0)


def _failure_reasons(findings: Findings) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for load in findings.loads.values():
        for reason, count in load["failures_by_reason"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    for visit in findings.visits:
        if visit.problem is not None:
            reasons[f"{visit.client}: {visit.problem}"] = 1
    return reasons


def _listener(findings: Findings, leaf: Leaf) -> dict[str, Any]:
    counters = _counters(findings)
    load = findings.loads[leaf.name]
    its = [visit for visit in findings.visits if visit.listener == leaf.name]
    return {
        "name": leaf.name,
        "key": leaf.key_type,
        "handshakes": load["handshakes"] + sum(1 for visit in its if visit.problem is None),
        "failures": load["failures"] + sum(1 for visit in its if visit.problem is not None),
        "operations": counters.answered(leaf.key_type),
        "batch_size_histogram": {str(size): count for size, count in counters.batch_sizes(leaf.key_type).items()},
        "mean_batch": round(counters.mean_batch(leaf.key_type), 3),
        "p50_ms": load["handshake_ms"]["p50"],
        "p99_ms": load["handshake_ms"]["p99"],
        "handshakes_per_s": load["handshakes_per_s"],
        "backends": counters.backends(leaf.key_type),
        "found_in_envoy": [finding.pattern for finding in findings.searches[leaf.name].findings],
        "found_in_envoy_control": [finding.pattern for finding in findings.control[leaf.name].findings],
        "bytes_searched": findings.searches[leaf.name].bytes_read,
    }


def problems(findings: Findings) -> list[str]:
    """Why the demo did not succeed; empty if it did."""
    found = [f"{count} x {reason}" for reason, count in _failure_reasons(findings).items()]
    counters = _counters(findings)
    if counters.answered() < handshakes(findings):
        found.append(
            f"{handshakes(findings)} handshakes, and only {counters.answered()} operations at the daemon: "
            "somebody else signed"
        )
    for leaf in findings.leaves:
        found += [
            f"the {leaf.key_type} key is in Envoy's memory: {finding.pattern} at {finding.address:#x}"
            for finding in findings.searches[leaf.name].findings
        ]
        if not findings.control[leaf.name].findings:
            found.append(f"the search does not find the {leaf.key_type} key even where it must be: it proves nothing")
    return found + findings.sidecars.problems()


def table(findings: Findings) -> RenderableType:
    """The result for people: a column per listener and one for both."""
    data = as_data(findings)
    columns = [*data["listeners"], data]
    shown = Table(title="Handshakes of stock Envoy with keys at the daemon", title_justify="left")
    shown.add_column("")
    for leaf in findings.leaves:
        shown.add_column(leaf.key_type, justify="right")
    shown.add_column("together", justify="right")

    def row(label: str, *values: object) -> None:
        shown.add_row(label, *(str(value) for value in values))

    row("handshakes", *(f"{each['handshakes']:,}" for each in columns))
    row("failures", *(each["failures"] for each in columns))
    row("operations at the daemon", *(f"{each['operations']:,}" for each in columns))
    row("batches", *(f"{sum(each['batch_size_histogram'].values()):,}" for each in columns))
    row("operations per batch, mean", *(f"{each['mean_batch']:.2f}" for each in columns))
    row("backend", *(", ".join(f"{name} {count:,}" for name, count in each["backends"].items()) for each in columns))
    row("handshake p50", *(f"{each['p50_ms']:.2f} ms" for each in columns))
    row("handshake p99", *(f"{each['p99_ms']:.2f} ms" for each in columns))
    row("new connections per second", *(f"{each['handshakes_per_s']:,.0f}" for each in data["listeners"]), "")
    return shown


def batch_table(findings: Findings) -> RenderableType:
    """How many operations ran together."""
    data = as_data(findings)
    shown = Table(title="Batches by size", title_justify="left")
    shown.add_column("")
    for size in data["batch_size_histogram"]:
        shown.add_column(size, justify="right")
    for name, each in [*((one["key"], one) for one in data["listeners"]), ("together", data)]:
        shown.add_row(name, *(f"{count:,}" for count in each["batch_size_histogram"].values()))
    return shown


def key_table(findings: Findings) -> RenderableType:
    """Where each key was found."""
    shown = Table(title="Private keys in Envoy's memory", title_justify="left")
    for column in ("key", "with the module", "control: Envoy has the key", "found there"):
        shown.add_column(column)
    for leaf in findings.leaves:
        ours, control = findings.searches[leaf.name], findings.control[leaf.name]
        shown.add_row(
            leaf.key_type,
            f"{'[bold red]FOUND[/]' if ours.findings else '[green]not there[/]'} ({ours.bytes_read / 1e6:.0f} MB read)",
            f"{'found' if control.findings else '[bold red]NOT FOUND[/]'} ({control.bytes_read / 1e6:.0f} MB read)",
            _in_short(control),
        )
    return shown


def sidecar_table(findings: Findings) -> RenderableType:
    """What happened between the two sidecars."""
    data = findings.sidecars.as_data()
    shown = Table(title="mTLS between two sidecars, both keys at the daemon", title_justify="left", show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    for label, key in (
        ("mTLS handshakes", "mtls_handshakes"),
        (f"requests of '{CALLER}' allowed", "rbac_allowed"),
        (f"requests of '{INTRUDER}' denied", "rbac_denied"),
        ("rotations of key and certificate", "rotations"),
        ("requests during the rotations", "requests_during_rotation"),
        ("of these failed", "failed_during_rotation"),
    ):
        shown.add_row(label, f"{data[key]:,}")
    return shown


def _in_short(search: Search) -> str:
    """ "PEM; little-endian d, p, q": the findings grouped by form."""
    forms: dict[str, list[str]] = {}
    for pattern in dict.fromkeys(finding.pattern for finding in search.findings):
        secret, _, form = pattern.rpartition(" ")
        if pattern.startswith("PEM"):
            forms.setdefault("PEM", [])
        else:
            forms.setdefault(form, []).append(secret)
    return "; ".join(f"{form} {', '.join(secrets)}".strip() for form, secrets in forms.items())
