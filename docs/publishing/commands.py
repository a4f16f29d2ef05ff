"""The pages of the command lines, from the parsers themselves."""

from __future__ import annotations

import enum
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from docs.publishing.sources import PROGRAMS


def page(program: str) -> str:
    """One section per command, with its arguments and options."""
    root: Any = typer.main.get_command(PROGRAMS[program])
    return "\n".join(_sections(root, program))


def _sections(command: Any, path: str) -> Iterator[str]:
    members = {name: one for name, one in getattr(command, "commands", {}).items() if not one.hidden}
    if members:
        for name, one in members.items():
            yield from _sections(one, f"{path} {name}")
        return
    yield f"## {path}\n"
    yield _help(command.help) + "\n"
    parameters = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    words = [_argument(one) for one in parameters if one.param_type_name == "argument"]
    usage = " ".join([path, *words, *(["[OPTIONS]"] if len(words) < len(parameters) else [])])
    yield f"```\n{usage}\n```\n"
    if parameters:
        yield "| | default | what |\n|---|---|---|"
        yield from (_row(one) for one in parameters)
        yield ""


def _help(text: str | None) -> str:
    """As Markdown: a command's help is Markdown but for the marks that keep its lines apart."""
    parts = re.split(r"(`[^`]*`)", (text or "").replace("\b\n", ""))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts).strip()


def _argument(one: Any) -> str:
    name = (one.metavar or one.name).upper().strip("[]")
    shown = f"{name}..." if one.nargs == -1 else name
    return shown if one.required else f"[{shown}]"


def _row(one: Any) -> str:
    if one.param_type_name == "argument":
        name = f"`{_argument(one).strip('[]')}`"
    else:
        name = ", ".join(f"`{option}`" for option in [*one.opts, *one.secondary_opts])
    sentences = [_sentence(one.help or ""), *_choices(one)]
    if one.envvar:
        names = [one.envvar] if isinstance(one.envvar, str) else one.envvar
        sentences.append("Environment: " + ", ".join(f"`{name}`" for name in names) + ".")
    if (one.multiple or one.nargs == -1) and not re.search("several|repeat", sentences[0]):
        sentences.append("May be given several times.")
    text = " ".join(sentence for sentence in sentences if sentence)
    return f"| {name} | {_default(one)} | {text} |"


def _choices(one: Any) -> list[str]:
    """What an option takes that takes one of a few words."""
    annotation = getattr(one.type_descriptor, "annotation", None)
    for kind in (annotation, *typing.get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return ["One of " + ", ".join(f"`{member.value}`" for member in kind) + "."]
    return []


def _default(one: Any) -> str:
    if one.required:
        return "required"
    value = one.default() if callable(one.default) else one.default
    if value is None or value is False or value == "" or value == [] or value == ():
        return ""
    if value is True:
        return f"`{one.opts[0]}`" if one.secondary_opts else "on"
    if isinstance(value, enum.Enum):
        value = value.value
    return f"`{Path(value)}`" if isinstance(value, Path) else f"`{value}`"


def _sentence(text: str) -> str:
    """For a cell of a table: on one line, and without what Markdown would take for markup."""
    line = re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").strip()
    return line[:1].upper() + line[1:] + ("." if line and not line.endswith(".") else "")
