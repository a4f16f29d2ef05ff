"""Reads the configuration: one YAML file, overridden by the environment.

A variable OFFLOAD_<SECTION>__<FIELD> (two underscores between the levels, any case) sets one field, its value written
as YAML: OFFLOAD_DATA_PLANE__SHARDS=4, OFFLOAD_METRICS__ADDRESS=null, OFFLOAD_SOCKETS__MAIN__PATH=/run/x.sock.
Variables without two underscores are not ours (Kubernetes sets OFFLOAD_SERVICE_HOST for a service named "offload").
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from offload.config.settings import Config
from offload.filesystem.trusted_paths import Trust, UntrustedPathError, read_trusted

ENVIRONMENT_PREFIX = "OFFLOAD_"
LEVELS_APART = "__"
DEPTH_MAX = 20
OWN_DESCRIPTORS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # opened by our parent: `-c <(...)`

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class ConfigProblem:
    source: str  # file, or environment variable
    line: int | None
    field: str  # "sockets.dedicated[0].mode"; empty for the whole
    reason: str

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{where}: {self.field}: {self.reason}" if self.field else f"{where}: {self.reason}"


class ConfigError(Exception):
    """A configuration that cannot be used, with all its errors."""

    def __init__(self, problems: list[ConfigProblem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


def load_config(path: Path | None, environment: Mapping[str, str]) -> Config:
    """The file's settings, overridden by the environment's; without a file, the defaults. ConfigError."""
    values, lines, source = ({}, {}, "defaults") if path is None else _read(path)
    variables = _overlay(values, environment)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [_problem(detail, source, lines, variables) for detail in error.errors()]
        raise ConfigError(sorted(problems, key=lambda p: (p.line or 0, p.field))) from None


def _read(path: Path) -> tuple[dict[str, Any], dict[Place, int], str]:
    """Whoever can write the file decides which keys are served, and to whom: it must belong to root or our own user, as
    it cannot itself say whom else to trust."""
    try:
        is_ours = str(path).startswith(OWN_DESCRIPTORS)
        text = (path.read_bytes() if is_ours else read_trusted(path.absolute(), Trust.of())).decode()
    except UntrustedPathError as error:
        raise ConfigError([ConfigProblem(str(path), None, "", f"is rejected: {error}")]) from None
    except OSError as error:
        raise ConfigError([ConfigProblem(str(path), None, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([ConfigProblem(str(path), None, "", f"is not UTF-8 (byte {error.start})")]) from None
    values, lines = parse_yaml(text, str(path))
    return values, lines, str(path)


def parse_yaml(text: str, source: str) -> tuple[dict[str, Any], dict[Place, int]]:
    """A mapping, and the line (from 1) of each field in it. ConfigError, also for a duplicate key."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        value = {} if node is None else _value(loader, node, (), lines, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        reason = f"is not YAML: {error.problem or error.context}"
        raise ConfigError([ConfigProblem(source, mark.line + 1 if mark else None, "", reason)]) from None
    except yaml.YAMLError as error:
        raise ConfigError([ConfigProblem(source, None, "", f"is not YAML: {error}")]) from None
    finally:
        loader.dispose()
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError([ConfigProblem(source, 1, "", f"must be a mapping of sections, not {_kind(value)}")])
    return value, lines


def _value(loader: yaml.SafeLoader, node: yaml.Node, place: Place, lines: dict[Place, int], source: str) -> Any:
    if len(place) > DEPTH_MAX:
        line = node.start_mark.line + 1
        raise ConfigError([ConfigProblem(source, line, place_words(place), "is nested too deeply, or contains itself")])
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)  # "<<" merges
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError([ConfigProblem(source, line, place_words(place), "a field's name must be a word")])
            key = str(key_node.value)
            if key in mapping:
                raise ConfigError([ConfigProblem(source, line, place_words((*place, key)), "is given twice")])
            lines[(*place, key)] = line
            mapping[key] = _value(loader, value_node, (*place, key), lines, source)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*place, index)] = item.start_mark.line + 1
        return [_value(loader, item, (*place, i), lines, source) for i, item in enumerate(node.value)]
    return loader.construct_object(node)


def _overlay(values: dict[str, Any], environment: Mapping[str, str]) -> dict[Place, str]:
    """Puts the environment's values into `values`; returns which variable set which field."""
    variables: dict[Place, str] = {}
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX) or LEVELS_APART not in variable:
            continue
        place = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split(LEVELS_APART))
        try:
            value = yaml.safe_load(environment[variable])
        except yaml.YAMLError as error:
            reason = f"its value is not YAML: {str(error).splitlines()[0]}"
            raise ConfigError([ConfigProblem(f"environment variable {variable}", None, "", reason)]) from None
        if isinstance(value, int) and isinstance(environment[variable], str) and place[-1] == "mode":
            value = environment[variable]  # an octal mode needs no quotes here: a variable is text already
        _set(values, place, value)
        variables[place] = variable
    return variables


def _set(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for step in place[:-1]:
        inner = values.get(step)
        if not isinstance(inner, dict):
            inner = values[step] = {}
        values = inner
    values[place[-1]] = value


def _problem(detail: Any, source: str, lines: Mapping[Place, int], variables: Mapping[Place, str]) -> ConfigProblem:
    place = _without_union_tags(tuple(detail["loc"]))
    reason = _reason(detail, place)
    line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), None)
    for variable_place, variable in variables.items():
        below = variable_place[: len(place)] == place and line is None
        if below or place[: len(variable_place)] == variable_place:
            return ConfigProblem(f"environment variable {variable}", None, place_words(place), reason)
    return ConfigProblem(source, line, place_words(place), reason)


def _reason(detail: Any, place: Place) -> str:
    kind, given = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        allowed = sorted(_fields_at(place[:-1]))
        close = difflib.get_close_matches(str(place[-1]), allowed, 1)
        hint = f" (did you mean '{close[0]}'?);" if close else ""
        return f"unknown field{hint or ';'} allowed: {', '.join(allowed)}"
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "literal_error":
        return f"must be {detail['ctx']['expected']}, not {given!r}"
    if kind == "string_pattern_mismatch":
        return f"must match {detail['ctx']['pattern']}, not {given!r}"
    message = str(detail["msg"]).removeprefix("Input ").removeprefix("should ")
    return f"should {message}, not {_shown(given)}"


def _without_union_tags(place: Place) -> Place:
    """Removes the name of the alternative that pydantic tried, which is not a field."""
    fields: Any = Config
    kept: list[str | int] = []
    for step in place:
        inner = _inside(fields, step)
        if inner is None and not _is_model(fields):
            continue
        kept.append(step)
        fields = inner
    return tuple(kept)


def _fields_at(place: Place) -> list[str]:
    fields: Any = Config
    for step in place:
        fields = _inside(fields, step)
    model = first_model(fields)
    return list(model.model_fields) if model else []


def _inside(annotation: Any, step: str | int) -> Any:
    """The type of a field, list item or mapping value; None if there is none."""
    for option in options_of(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            field = option.model_fields.get(str(step))
            return field.annotation if field else None
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is tuple and isinstance(step, int):
            return arguments[0]
        if origin is dict and isinstance(step, str):
            return arguments[1]
    return None


def options_of(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for option in typing.get_args(annotation):
            yield from options_of(option)
    elif typing.get_origin(annotation) is typing.Annotated:
        yield from options_of(typing.get_args(annotation)[0])
    else:
        yield annotation


def first_model(annotation: Any) -> type[BaseModel] | None:
    return next((o for o in options_of(annotation) if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _is_model(annotation: Any) -> bool:
    return first_model(annotation) is not None


def place_words(place: Place) -> str:
    """("sockets", "dedicated", 0, "mode") -> "sockets.dedicated[0].mode"."""
    words = ""
    for step in place:
        if isinstance(step, int):
            words += f"[{step}]"
        elif "." in step or "/" in step:
            words += f"['{step}']"
        else:
            words += f".{step}" if words else step
    return words


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else f"{value!r}"


def _shown(value: object) -> str:
    return _kind(value) if isinstance(value, dict | list) else repr(value)
