"""Turns pydantic's errors into ours: the path as users write it, what is allowed there, and an example.

The example of a field is the one in its declaration (`Field(examples=[...])`); without one it is derived from the type,
so that every message has one.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Union

import annotated_types
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from control.model.violation import Location, Violation, dotted

# Names of types in messages, by pydantic's error type.
_WORDS = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "float_type": "a number",
}


def explain(error: ValidationError, model: type[BaseModel], prefix: Location = ()) -> list[Violation]:
    """Every violation in `error`, which came from validating `model` found at `prefix` of the document."""
    return [_violation(detail, model, prefix) for detail in error.errors(include_url=False)]


def _violation(detail: ErrorDetails, model: type[BaseModel], prefix: Location) -> Violation:
    location = tuple(part for part in detail["loc"] if part != "[key]")
    declared = _declaration(model, location)
    message = _message(detail, model, location)
    unknown = detail["type"] == "extra_forbidden"
    return Violation(dotted((*prefix, *location)), message, "" if unknown else example_text(declared))


def _message(detail: ErrorDetails, model: type[BaseModel], location: Location) -> str:
    kind, context, given = detail["type"], detail.get("ctx", {}), detail["input"]
    match kind:
        case "mesh":
            return str(context["reason"])
        case "missing":
            return "is required"
        case "extra_forbidden":
            return _unknown_field(model, location)
        case "literal_error":
            return f"must be {_one_of(str(context['expected']))}; got {_short(given)}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}; got {_short(given)}"
        case "less_than_equal":
            return f"must be at most {context['le']}; got {_short(given)}"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "too_short":
            return f"must have at least {_count(context['min_length'])}"
        case "too_long":
            return f"must have at most {_count(context['max_length'])}; got {context['actual_length']}"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}; got {_short(given)}"
    return f"must be {_WORDS[kind]}; got {_short(given)}" if kind in _WORDS else detail["msg"]


def _one_of(expected: str) -> str:
    words = expected.replace("'", "").replace(" or ", ", ").split(", ")
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def _count(number: int) -> str:
    return f"{number} entry" if number == 1 else f"{number} entries"


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _unknown_field(model: type[BaseModel], location: Location) -> str:
    owner = _declaration(model, location[:-1])
    inner = _model_of(owner if owner is not None else model)
    if inner is None:
        return "is not a known field"
    allowed = [info.alias or name for name, info in inner.model_fields.items()]
    close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
    return (
        "is not a known field" + (f"; did you mean {close[0]}?" if close else "") + f" (allowed: {', '.join(allowed)})"
    )


# --- finding the declaration of a place -------------------------------------------------------------------------------


def _declaration(model: type[BaseModel], location: Location) -> Any:
    """The annotation (or FieldInfo) that governs `location`; None if nothing is declared."""
    current: Any = model
    for part in location:
        inner = _model_of(current)
        if isinstance(part, int):
            current = _argument(current, list, 0)
        elif inner is not None:
            current = next((f for name, f in inner.model_fields.items() if part in (f.alias, name)), None)
        else:
            current = _argument(current, dict, 1)
        if current is None:
            return None
    return current


def _bare(declared: Any) -> Any:
    """The type without Annotated, Optional and FieldInfo around it."""
    if isinstance(declared, FieldInfo):
        return _bare(declared.annotation)
    origin = typing.get_origin(declared)
    if origin is Annotated:
        return _bare(typing.get_args(declared)[0])
    if origin in (Union, types.UnionType):
        return _bare(next(a for a in typing.get_args(declared) if a is not type(None)))
    return declared


def _model_of(declared: Any) -> type[BaseModel] | None:
    bare = _bare(declared)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def _argument(declared: Any, container: type, index: int) -> Any:
    bare = _bare(declared)
    return typing.get_args(bare)[index] if typing.get_origin(bare) is container else None


# --- examples ---------------------------------------------------------------------------------------------------------


def example_text(declared: Any) -> str:
    """YAML of an example of what is declared; on one line if it is short."""
    if declared is None:
        return ""
    value = example_of(declared)
    flow: str = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).strip()
    flow = flow.removesuffix("...").strip()
    return flow if len(flow) <= 100 else yaml.safe_dump(value, sort_keys=False)


def example_of(declared: Any) -> Any:
    """A value that would be accepted where `declared` governs."""
    stated = _stated_example(declared)
    if stated is not None:
        return stated
    bare = _bare(declared)
    if bare is int:
        return _smallest(declared)
    origin = typing.get_origin(bare)
    if origin is Literal:
        return typing.get_args(bare)[0]
    if origin is list:
        return [example_of(typing.get_args(bare)[0])]
    if origin is dict:
        return {"key": example_of(typing.get_args(bare)[1])}
    model = _model_of(bare)
    if model is not None:
        required = {f.alias or n: f for n, f in model.model_fields.items() if f.is_required()}
        return {alias: example_of(info) for alias, info in (required or _first_field(model)).items()}
    return {str: "text", int: 1, bool: True, Decimal: 1, timedelta: "10s"}.get(bare, "text")


def _smallest(declared: Any) -> int:
    """The least whole number that is allowed; 1 where there is no bound."""
    if isinstance(declared, FieldInfo):
        metadata, inner = declared.metadata, declared.annotation
    elif typing.get_origin(declared) is Annotated:
        inner, *metadata = typing.get_args(declared)
    elif typing.get_origin(declared) in (Union, types.UnionType):
        return _smallest(next(a for a in typing.get_args(declared) if a is not type(None)))
    else:
        return 1
    for item in metadata:
        bounds = item.metadata if isinstance(item, FieldInfo) else [item]
        for bound in bounds:
            if isinstance(bound, annotated_types.Ge):
                return int(str(bound.ge))
    return _smallest(inner)


def _first_field(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {info.alias or name: info for name, info in list(model.model_fields.items())[:1]}


def _stated_example(declared: Any) -> Any:
    if isinstance(declared, FieldInfo):
        return declared.examples[0] if declared.examples else _stated_example(declared.annotation)
    origin = typing.get_origin(declared)
    if origin is Annotated:
        inner, *metadata = typing.get_args(declared)
        for item in metadata:
            if isinstance(item, FieldInfo) and item.examples:
                return item.examples[0]
        return _stated_example(inner)
    if origin in (Union, types.UnionType):
        return _stated_example(next(a for a in typing.get_args(declared) if a is not type(None)))
    return None
