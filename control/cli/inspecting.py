"""inspect: what a proxy is, should have and has, and why a call to it is allowed or denied."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import Annotated, Any

import typer

from control.cli.client import Api, segment
from control.cli.output import Form, Mesh, Output, show
from control.model import documents

Name = Annotated[str, typer.Argument(help="the dataplane")]


def add_to(app: typer.Typer) -> None:
    inspect = typer.Typer(help="Inspect a dataplane.", no_args_is_help=True)
    inspect.command()(overview)
    inspect.command()(waiting)
    inspect.command()(policies)
    inspect.command()(config)
    inspect.command()(stats)
    inspect.command()(access)
    app.add_typer(inspect, name="inspect")


def _path(mesh: str, name: str, what: str) -> str:
    return f"/meshes/{segment(mesh)}/dataplanes/{segment(name)}/{what}"


def overview(name: Name, mesh: Mesh = "default", output: Output = Form.TABLE) -> None:
    """Identity, certificate, problems, and what it accepted and rejected per connection and type."""
    found = Api().call("GET", _path(mesh, name, "_overview"))
    certificate = found["certificate"] or {}
    if output is Form.TABLE:
        for label, value in (
            ("spiffe id", found["spiffeID"] or "none: no MeshIdentity selects it"),
            ("TLS", found["mode"]),
            ("certificate until", certificate.get("notAfter", "-")),
            *(("token until", one["tokenUntil"]) for one in found["connections"] if one.get("tokenUntil")),
            *(("problem", problem) for problem in found["problems"]),
            *(("waits", f"{w['who']}: {w['step']} waits for {w['waitsFor']}: {w['reason']}") for w in found["waits"]),
        ):
            typer.echo(f"{label}: {value}")
        if not found["connections"]:
            typer.echo("not connected")
            return
    rows = [
        [number, short, state["state"], state["acknowledgedVersion"], state["wantedVersion"], _refused(state)]
        for number, connection in enumerate(found["connections"], start=1)
        for short, state in connection["types"].items()
    ]
    show(found, output, ["connection", "type", "state", "has", "should have", "refused because"], rows)


def waiting(mesh: Mesh = "default", output: Output = Form.TABLE) -> None:
    """Steps of changes that would break calls if they were done now, and which proxy or node each waits for."""
    found = Api().call("GET", f"/meshes/{segment(mesh)}/_waiting")
    rows = [[wait["who"], wait["step"], wait["waitsFor"], wait["reason"]] for wait in found]
    show(found, output, ["whose", "step", "waits for", "because"], rows)


def _refused(state: dict[str, Any]) -> str:
    """Which resources were rejected, what has changed in them, and why."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for one in state.get("refusals", ()):
        by_reason.setdefault((one["because"], ", ".join(one["changed"])), []).append(one["resource"])
    return "; ".join(
        f"{', '.join(names)}{f' ({changed} changed)' if changed else ''}: {because.strip()}"
        for (because, changed), names in by_reason.items()
    )


def policies(name: Name, mesh: Mesh = "default", output: Output = Form.TABLE) -> None:
    """The policies that select it; the last of each type is the strongest."""
    found = Api().call("GET", _path(mesh, name, "policies"))
    rows = [[entry["type"], policy["name"]] for entry in found for policy in entry["policies"]]
    show(found, output, ["type", "policy"], rows)


def config(
    name: Name,
    mesh: Mesh = "default",
    shadow: Annotated[
        bool, typer.Option("--shadow", help="as if policies with kuma.io/effect: shadow were in effect")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="only what they would change")] = False,
    output: Output = Form.YAML,
) -> None:
    """The Envoy configuration that it should have."""
    api, path = Api(), _path(mesh, name, "xds")
    if diff:
        before, after = (_lines(api.call("GET", path + query)) for query in ("", "?shadow=true"))
        typer.echo("".join(difflib.unified_diff(before, after, "in force", "with shadow policies")), nl=False)
        return
    found = api.call("GET", path + ("?shadow=true" if shadow else ""))
    parts = ("listeners", "routes", "clusters")
    rows = [[part.removesuffix("s"), item["name"]] for part in parts for item in found[part]]
    show(found, output, ["type", "name"], rows)


def _lines(found: dict[str, Any]) -> list[str]:
    return documents.to_yaml([found]).splitlines(keepends=True)


class StatisticsForm(StrEnum):
    TEXT = "text"
    JSON = "json"
    PROMETHEUS = "prometheus"


def stats(
    name: Name,
    mesh: Mesh = "default",
    filter: Annotated[str, typer.Option(help="regular expression that selects names")] = "",
    output: Annotated[
        StatisticsForm, typer.Option("-o", "--output", help="Envoy's output format")
    ] = StatisticsForm.TEXT,
) -> None:
    """The statistics of the running proxy. Its Dataplane needs networking.admin.port."""
    query = f"?format={output.value}&filter={segment(filter)}"
    typer.echo(Api().text(_path(mesh, name, "stats") + query), nl=False)


def access(
    name: Name,
    caller: Annotated[str, typer.Argument(help="SPIFFE id of the caller")],
    mesh: Mesh = "default",
    output: Output = Form.TABLE,
) -> None:
    """Whether each inbound allows a caller, and which rule decides. Exit code 1 if none does."""
    found = Api().call("GET", _path(mesh, name, "_access") + f"?caller={segment(caller)}")
    rows = [[entry["inbound"], "allowed" if entry["allowed"] else "denied", entry["reason"]] for entry in found]
    show(found, output, ["inbound", "", "because"], rows)
    if not any(entry["allowed"] for entry in found):
        raise typer.Exit(1)
