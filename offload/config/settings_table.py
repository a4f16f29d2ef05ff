"""The configuration as a Markdown table, generated from the models, so that documentation cannot drift from them."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from offload.config.file import first_model, options_of
from offload.config.settings import Config

_KINDS: dict[Any, str] = {str: "text", int: "number", float: "number", bool: "true, false", Path: "absolute path"}


def settings_table() -> str:
    """One row per field: name, accepted values, default, and the reason for the default."""
    rows = ["| field | takes | default | why |", "|---|---|---|---|"]
    rows += [f"| `{name}` | {takes} | {default} | {why} |" for name, takes, default, why in _rows(Config, "")]
    return "\n".join(rows) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for field, info in model.model_fields.items():
        name = prefix + field
        inner = first_model(_item(info.annotation))
        if info.description or inner is None:
            yield name, _takes(info), _default(info), info.description or ""
        if inner is not None:
            yield from _rows(inner, name + _many(info.annotation) + ".")


def _item(annotation: Any) -> Any:
    """The item type of a list or mapping, else the type itself."""
    for option in options_of(annotation):
        if typing.get_origin(option) is tuple:
            return typing.get_args(option)[0]
        if typing.get_origin(option) is dict:
            return typing.get_args(option)[1]
    return annotation


def _many(annotation: Any) -> str:
    for option in options_of(annotation):
        if typing.get_origin(option) is tuple:
            return "[]"
        if typing.get_origin(option) is dict:
            return ".NAME"
    return ""


def _takes(info: FieldInfo) -> str:
    validators = {getattr(getattr(m, "func", None), "__name__", "") for m in info.metadata}
    if "shards_setting" in validators:
        return "`auto`, 1 to 256"
    words = []
    for option in options_of(info.annotation):
        if option is type(None):
            words.append("null")
        elif typing.get_origin(option) is typing.Literal:
            words += [f"`{value}`" for value in typing.get_args(option)]
        elif typing.get_origin(option) is tuple:
            words.append("list")
        elif typing.get_origin(option) is dict or first_model(option):
            words.append("mapping")
        else:
            words.append("octal mode in quotes" if "_mode" in validators else _KINDS.get(option, "text"))
    limits = {k: getattr(m, k) for m in info.metadata for k in ("ge", "le", "lt") if getattr(m, k, None) is not None}
    if "le" in limits:
        words = [w if w != "number" else f"{limits['ge']} to {limits['le']}" for w in words]
    if {"number", "text"} <= set(words):
        words = ["name or number", *(w for w in words if w not in ("number", "text"))]
    return ", ".join(dict.fromkeys(words))


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default
    if isinstance(value, BaseModel):
        return "as below"
    if "mode" in repr(info.metadata).lower() and isinstance(value, int):
        return f'`"{value:04o}"`'
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "none" if value in ((), {}, "") else f"`{value}`"
