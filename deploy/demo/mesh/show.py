"""Runs the steps of the mesh demo one after the other, and reports what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.demo.mesh import compare, result, steps
from deploy.demo.mesh.compare import Comparison, Plan
from deploy.demo.mesh.parts import BLUE, IDENTITY, WEB, Mesh, spiffe_id
from deploy.demo.mesh.result import Step
from deploy.demo.mesh.steps import Sizes, StepFunction
from deploy.demo.progress import console, step

RESOURCES = Path("deploy") / "demo" / "mesh" / "resources"

# In this order, since each leaves the mesh to the next one; with a description of what it does.
STEPS: Sequence[tuple[StepFunction, str]] = (
    (steps.deny_by_default, "no permissions: every service calls every other"),
    (steps.permission, "mesh apply -f web-may-call.yaml"),
    (steps.canary, "mesh apply -f canary.yaml: 90 to 10"),
    (steps.blue_green, "mesh apply -f green.yaml, with requests going on"),
    (steps.permissive_to_strict, "mesh apply -f permissive.yaml, then -f strict.yaml, with requests going on"),
    (steps.ca_rotation, "mesh ca rotate, all four stages, with requests going on"),
    (steps.control_plane_restart, "kill -9 of the control plane, and a new one, with requests going on"),
)
QUICK = Sizes(each=20, canary=500, background=40, down_seconds=1), Plan(rounds=1, seconds=0.4)
WHOLE = Sizes(), Plan()


@dataclass
class Findings:
    """Filled step by step."""

    steps: list[Step] = field(default_factory=list)
    comparison: Comparison = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        return result.as_data(self.steps)

    def problems(self) -> list[str]:
        return result.problems(self.steps)


def run(mesh: Mesh, quick: bool) -> Findings:
    findings = Findings()
    sizes, plan = QUICK if quick else WHOLE
    for function, words in STEPS:
        with step(words) as notes:
            _note(findings, function(mesh, sizes), notes)
    with step("mesh apply -f envoy-tls.yaml against -f offload.yaml, in turn, RSA-2048 and P-256") as notes:
        found, findings.comparison = compare.compare(mesh, plan)
        _note(findings, found, notes)
    with step("search of all four Envoys' memory for the factors of RSA keys, in both modes") as notes:
        _note(findings, compare.keys_in_envoys(mesh), notes)
    compare.end(mesh)
    refused = Step("configuration", "configuration of the proxies", problems=mesh.problems())
    if refused.problems:
        findings.steps.append(refused)
    return findings


def _note(findings: Findings, done: Step, notes: list[str]) -> None:
    findings.steps.append(done)
    notes.append(done.shown if not done.problems else f"[bold red]{len(done.problems)} problems[/]")


def print_tables(findings: Findings) -> None:
    console.print(result.table(findings.steps))
    console.print(compare.table(findings.comparison))


def print_hints(mesh: Mesh) -> None:
    """Lists what can be done with the mesh while it keeps running."""
    for call in (mesh.web_to_prices, mesh.web_to_cart, mesh.cart_to_prices):
        console.print(f"  mesh     {call.url}   {call.name}, through both proxies")
    api = mesh.control_plane.environment["MESH_API"]
    console.print(
        f"  the mesh's API: {api}/openapi.json   admin page of web's Envoy: http://{mesh.proxies[WEB].admin}/"
    )
    settings = " ".join(f"{name}={value}" for name, value in mesh.control_plane.environment.items())
    lines = [
        f"export {settings}",
        "mesh get dataplanes",
        f"mesh inspect overview {WEB}",
        f"mesh inspect access {BLUE} {spiffe_id('cart')}",
        f"mesh ca status {IDENTITY}",
        f"mesh apply -f {RESOURCES / 'canary.yaml'}",
        f"offload status --admin-socket {mesh.daemon.admin_socket}",
    ]
    for number, line in enumerate(lines):
        console.print(f"  {'try:' if number == 0 else '    '} {line}", soft_wrap=True)
