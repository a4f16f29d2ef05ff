"""apply, get, delete, validate, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from control.cli.client import Api, segment
from control.cli.output import Form, Mesh, Output, show, warn
from control.kinds import KINDS
from control.model import documents
from control.model.resource import Kind, Resource

Files = Annotated[
    list[Path], typer.Option("-f", "--file", help="YAML or JSON, one or more documents per file; -: stdin")
]


def _read(files: list[Path], mesh: str | None) -> list[Resource]:
    found: list[Resource] = []
    for file in files:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        found += documents.read(text, str(file), KINDS, default_mesh=mesh)
    return sorted(found, key=lambda resource: resource.kind.in_mesh)


def path_of(kind: Kind, mesh: str, name: str = "") -> str:
    folder = f"/meshes/{segment(mesh)}/{kind.plural}" if kind.in_mesh else "/meshes"
    return f"{folder}/{segment(name)}" if name else folder


def kind_named(name: str) -> Kind:
    kind = KINDS.named(name)
    if kind is None:
        names = ", ".join(f"{kind.plural} ({kind.short})" for kind in KINDS)
        raise typer.BadParameter(f"there are no {name}; there are {names}")
    return kind


def complete_kind(incomplete: str) -> list[str]:
    return [kind.plural for kind in KINDS if kind.plural.startswith(incomplete.lower())]


KindName = Annotated[str, typer.Argument(help="for example dataplanes, dp, MeshTLS", autocompletion=complete_kind)]


def add_to(app: typer.Typer) -> None:
    app.command()(apply)
    app.command()(get)
    app.command()(delete)
    app.command()(validate)
    app.command()(export)


def apply(
    file: Files,
    mesh: Annotated[str | None, typer.Option("-m", "--mesh", help="mesh of documents that name none")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only validate the files")] = False,
) -> None:
    """Create or change resources. All files are checked before the first one is applied."""
    found = _read(file, mesh)
    if dry_run:
        _rehearse(found)
    api = None if dry_run else Api()
    for resource in found:
        path = path_of(resource.kind, resource.mesh, resource.name)
        if api is None:
            typer.echo(f"{resource.kind.type} {resource.name}: valid")
        else:
            stored = api.call("PUT", path, resource.to_data())
            typer.echo(f"{resource.kind.type} {resource.name}: version {stored['version']}")


def validate(
    file: Files,
    mesh: Annotated[str | None, typer.Option("-m", "--mesh", help="mesh of documents that name none")] = None,
) -> None:
    """Check files without a control plane."""
    found = _read(file, mesh)
    _rehearse(found)
    typer.echo(f"{len(found)} resources, all valid")


def _rehearse(found: list[Resource]) -> None:
    from control.xds import rehearsal  # Envoy's messages take a while to load

    for resource in found:
        rehearsal.check(resource)


def get(
    kind: KindName,
    name: Annotated[str | None, typer.Argument(help="one of them")] = None,
    mesh: Mesh = "default",
    output: Output = Form.TABLE,
) -> None:
    """Show resources."""
    wanted, api = kind_named(kind), Api()
    if name is not None:
        found: Any = api.call("GET", path_of(wanted, mesh, name))
        items = [found]
    else:
        found = items = api.list(path_of(wanted, mesh))
    columns = (["mesh"] if wanted.in_mesh else []) + ["name", "version", "labels", "modified"]
    rows = [
        ([item["mesh"]] if wanted.in_mesh else [])
        + [item["name"], item["version"], _labels(item), item["modificationTime"][:19]]
        for item in items
    ]
    show(found, output, columns, rows)
    _warn(items)


def _warn(items: list[dict[str, Any]]) -> None:
    for item in items:
        if "problem" in item:
            warn(item["problem"])


def _labels(item: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in item.get("labels", {}).items())


def delete(kind: KindName, name: str, mesh: Mesh = "default") -> None:
    """Delete a resource."""
    wanted = kind_named(kind)
    Api().call("DELETE", path_of(wanted, mesh, name))
    typer.echo(f"{wanted.type} {name}: deleted")


def export(
    mesh: Annotated[str | None, typer.Option("-m", "--mesh", help="only this one")] = None,
) -> None:
    """All resources as YAML that `mesh apply` accepts; without secrets (see `mesh backup`).

    What the control plane cannot read, since a newer version wrote it, is exported as stored, with a warning.
    """
    api, found = Api(), list[dict[str, Any]]()
    for item in api.list("/meshes"):
        if mesh is not None and item["name"] != mesh:
            continue
        found.append(item)
        for kind in KINDS:
            # What the control plane derives from MeshIdentities, it derives again.
            if kind.in_mesh:
                found += [r for r in api.list(path_of(kind, item["name"])) if not _is_managed(r)]
    _warn(found)
    stored = ("creationTime", "modificationTime", "version", "problem")
    plain = [{key: value for key, value in item.items() if key not in stored} for item in found]
    typer.echo(documents.to_yaml(plain), nl=False)


def _is_managed(item: dict[str, Any]) -> bool:
    return "kuma.io/managed-by" in item.get("labels", {})
