"""What the commands print: tables for people, JSON and YAML for programs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from control.model import documents

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Form, typer.Option("-o", "--output", help="how to print it")]
Mesh = Annotated[str, typer.Option("-m", "--mesh", help="the mesh")]


def complain(message: str) -> None:
    errors.print(f"error: {message}", style="red", markup=False)


def show(data: Any, form: Form, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """`data` for programs, `columns` and `rows` for people."""
    if form is Form.JSON:
        typer.echo(documents.to_json(data), nl=False)
    elif form is Form.YAML:
        typer.echo(documents.to_yaml(data if isinstance(data, list) else [data]), nl=False)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.upper())
        for row in rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        console.print(table)
