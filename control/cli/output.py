"""What the commands print: tables for people, JSON and YAML for programs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from control.model import documents
from control.secret_files import exposure
from control.untrusted_text import escaped

# Wider than any terminal: output that is truncated or wrapped can be neither searched for nor copied.
console = Console(highlight=False, soft_wrap=True, width=100_000)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Form, typer.Option("-o", "--output", help="output format")]
Mesh = Annotated[str, typer.Option("-m", "--mesh", help="the mesh")]


def complain(message: str) -> None:
    lines = (plain(line).plain for line in f"error: {message}".split("\n"))
    errors.print(Text("\n".join(lines)), style="red")


def warn(message: str) -> None:
    errors.print(plain(f"warning: {message}"), style="yellow")


def warn_if_exposed(secret: Path) -> None:
    """Raises OSError."""
    if exposed := exposure(secret):
        warn(exposed)


def plain(cell: object) -> Text:
    """The text as it is: no markup, and none of the control characters that a proxy could send to the terminal."""
    text = "" if cell is None else str(cell)
    return Text("".join(" " if c.isspace() else escaped(c) for c in text))


def show(data: Any, form: Form, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """`data` for programs, `columns` and `rows` for people."""
    if form is Form.JSON:
        typer.echo(documents.to_json(data), nl=False)
    elif form is Form.YAML:
        typer.echo(documents.to_yaml(data if isinstance(data, list) else [data]), nl=False)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.upper(), no_wrap=True)
        for row in rows:
            table.add_row(*(plain(cell) for cell in row))
        console.print(table)
