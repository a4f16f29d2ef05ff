"""The rules of Envoy's own API: the `validate` annotations of its protos, which it checks before anything else.

They are compiled once per message into plain functions, and checked when configuration is generated. (The library for
these annotations, protoc-gen-validate, does not work with this project's version of protobuf: it reads a property that
was removed, and writes into options, which are read-only now.)

A rule of an unknown kind fails when its message is compiled; test_api_rules.py compiles all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from google.protobuf import any_pb2, descriptor_pool, duration_pb2, message_factory
from validate import validate_pb2

Check = Callable[[Any], Iterable[str]]

# The rules HTTP_HEADER_NAME and HTTP_HEADER_VALUE, strict and not.
_HEADER = {
    (1, True): r":?[0-9a-zA-Z!#$%&'*+\-.^_|~`]+",
    (2, True): r"[^\x00-\x08\x0a-\x1f\x7f]*",
    (1, False): r"[^\x00\x0a\x0d]*",
    (2, False): r"[^\x00\x0a\x0d]*",
}
_HEADER_WORDS = {1: "a header's name", 2: "a header's value"}
_NUMBERS = frozenset({"float", "double", "int32", "int64", "uint32", "uint64", "fixed32", "fixed64", "sfixed64"})


class UnknownRule(Exception):
    """A rule that this file does not evaluate."""


def problems(message: Any) -> list[str]:
    """Every rule that the message and what is in it break: where, and how."""
    return [f"{_dotted(path)}: {text}" if path else text for path, text in _of_message(message)]


def _dotted(path: list[str]) -> str:
    return ".".join(reversed(path)).replace(".[", "[")


def _of_message(message: Any) -> Iterator[tuple[list[str], str]]:
    """The path is built from the inside, only where there is a violation: most messages have none."""
    if isinstance(message, any_pb2.Any):
        yield from _of_packed(message.type_url, message.value)
        return
    for name, check in _compiled(type(message)):  # type: ignore[arg-type]  # classes are hashable
        for path, text in check(message):
            yield ([*path, name] if name else path), text


# Replicas of a service have the same filters, in listeners that differ by an address: unpacking them again would
# cost as much as all the rest.
@lru_cache(maxsize=1024)
def _of_packed(type_url: str, value: bytes) -> tuple[tuple[list[str], str], ...]:
    """Empty if it is of an unknown type."""
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(type_url.rpartition("/")[2])
    except KeyError:
        return ()
    return tuple(_of_message(message_factory.GetMessageClass(descriptor).FromString(value)))


_FieldCheck = Callable[[Any], Iterator[tuple[list[str], str]]]


@cache
def _compiled(kind: Any) -> tuple[tuple[str, _FieldCheck], ...]:
    """(field, check) pairs of a message; the field is empty for rules of the message as a whole."""
    descriptor, checks = kind.DESCRIPTOR, list[tuple[str, _FieldCheck]]()
    if descriptor.GetOptions().Extensions[validate_pb2.disabled]:
        return ()
    for oneof in descriptor.oneofs:
        if oneof.GetOptions().Extensions[validate_pb2.required]:
            checks.append(("", _needs_one_of(oneof.name, [field.name for field in oneof.fields])))
    for field in descriptor.fields:
        check = _of_field(field, field.GetOptions().Extensions[validate_pb2.rules])
        if check is not None:
            checks.append((field.name, check))
    return tuple(checks)


def _needs_one_of(name: str, fields: list[str]) -> _FieldCheck:
    def check(message: Any) -> Iterator[tuple[list[str], str]]:
        if message.WhichOneof(name) is None:
            yield [], f"needs one of {', '.join(fields)}"

    return check


def _of_field(field: Any, rules: Any) -> _FieldCheck | None:
    name, value_checks = field.name, list(_value_checks(field, rules))
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if is_map or field.is_repeated:
        return _of_many(field, rules, is_map)
    is_message, has_presence = field.message_type is not None, field.has_presence
    goes_in = is_message and not rules.message.skip
    needed = rules.message.required or rules.duration.required or rules.any.required
    # A member of a oneof is only required if it is the one that is set.
    required = needed and field.containing_oneof is None
    if not (value_checks or goes_in or required):
        return None

    def check(message: Any) -> Iterator[tuple[list[str], str]]:
        if has_presence and not message.HasField(name):
            if required:
                yield [], "is required"
            return
        value = getattr(message, name)
        for one in value_checks:
            for text in one(value):
                yield [], text
        if goes_in:
            yield from _of_message(value)

    return check


def _of_many(field: Any, rules: Any, is_map: bool) -> _FieldCheck | None:
    name, bounds = field.name, rules.map if is_map else rules.repeated
    least, most = (bounds.min_pairs, bounds.max_pairs) if is_map else (bounds.min_items, bounds.max_items)
    unique = not is_map and bounds.unique
    values = field.message_type.fields_by_name["value"] if is_map else field
    item_checks = list(_value_checks(values, bounds.values if is_map else bounds.items))
    key_checks = list(_value_checks(field.message_type.fields_by_name["key"], bounds.keys)) if is_map else []
    goes_in = values.message_type is not None
    if not (least or most or unique or item_checks or key_checks or goes_in):
        return None

    def check(message: Any) -> Iterator[tuple[list[str], str]]:
        found = getattr(message, name)
        if len(found) < least:
            yield [], f"needs at least {least}; there are {len(found)}"
        if most and len(found) > most:
            yield [], f"can have at most {most}; there are {len(found)}"
        if unique and len(set(found)) < len(found):
            yield [], "has the same twice"
        items: Iterable[tuple[Any, Any]] = found.items() if is_map else enumerate(found)
        for place, item in items:
            for one in key_checks:
                for text in one(place):
                    yield [f"[{place}]"], text
            for one in item_checks:
                for text in one(item):
                    yield [f"[{place}]"], text
            if goes_in:
                for path, text in _of_message(item):
                    yield [*path, f"[{place}]"], text

    return check


def _value_checks(field: Any, rules: Any) -> Iterator[Check]:
    """The checks of one value. Rules of a number may be on its wrapper (google.protobuf.UInt32Value and others)."""
    kind = rules.WhichOneof("type")
    if kind is None or kind in ("repeated", "map", "any"):
        return
    of_kind = getattr(rules, kind)
    given = {option.name: value for option, value in of_kind.ListFields()}
    wrapped = field.message_type is not None and field.message_type.full_name.endswith("Value")
    for check in _CHECKS[kind](field, given) if kind in _CHECKS else _number_checks(kind, given):
        yield _of_wrapped(check) if wrapped else check


def _of_wrapped(check: Check) -> Check:
    return lambda value: check(value.value)


def _number_checks(kind: str, given: Mapping[str, Any]) -> Iterator[Check]:
    if kind not in _NUMBERS:
        raise UnknownRule(kind)
    yield from _bounds(given, float)


def _bounds(given: Mapping[str, Any], of: Callable[[Any], float]) -> Iterator[Check]:
    words = {
        "lt": ("below", lambda a, b: a < b),
        "lte": ("at most", lambda a, b: a <= b),
        "gt": ("above", lambda a, b: a > b),
        "gte": ("at least", lambda a, b: a >= b),
    }
    for name, bound in given.items():
        if name in ("required", "ignore_empty"):
            continue
        if name not in words:
            raise UnknownRule(f"number.{name}")
        word, holds = words[name]
        yield _bound(word, holds, of(bound), of)


def _bound(word: str, holds: Callable[[float, float], bool], bound: float, of: Callable[[Any], float]) -> Check:
    def check(value: Any) -> Iterator[str]:
        number = of(value)
        if not holds(number, bound):
            yield f"must be {word} {bound:g}; is {number:g}"

    return check


def _seconds(value: duration_pb2.Duration) -> float:
    return value.seconds + value.nanos * 1e-9


def _duration(_: Any, given: Mapping[str, Any]) -> Iterator[Check]:
    yield from _bounds(given, _seconds)


def _string(_: Any, given: Mapping[str, Any]) -> Iterator[Check]:
    header = given.get("well_known_regex")
    pattern = _HEADER[header, given.get("strict", True)] if header else given.get("pattern")
    known: Mapping[str, Callable[[str, Any], str | None]] = {
        "min_len": lambda text, n: None if len(text) >= n else f"must have at least {n} characters",
        "max_bytes": lambda text, n: None if len(text.encode()) <= n else f"can have at most {n} bytes",
        "min_bytes": lambda text, n: None if len(text.encode()) >= n else f"must have at least {n} bytes",
        "max_len": lambda text, n: None if len(text) <= n else f"can have at most {n} characters",
        "prefix": lambda text, start: None if text.startswith(start) else f"must begin with {start!r}",
        "suffix": lambda text, end: None if text.endswith(end) else f"must end with {end!r}",
        "in": lambda text, allowed: None if text in allowed else f"must be one of {', '.join(allowed)}",
    }
    parts = [(known[name], value) for name, value in given.items() if name in known]
    rest = given.keys() - known.keys() - {"well_known_regex", "strict", "pattern", "ignore_empty"}
    if rest:
        raise UnknownRule(f"string.{sorted(rest)}")
    compiled = re.compile(pattern) if pattern else None
    what = f"is not {_HEADER_WORDS[header]}" if header else f"does not match {pattern}"
    ignore_empty = given.get("ignore_empty", False)

    def check(text: str) -> Iterator[str]:
        if ignore_empty and not text:
            return
        for holds, value in parts:
            problem = holds(text, value)
            if problem is not None:
                yield f"{problem}; is {text[:80]!r}"
        if compiled is not None and not compiled.fullmatch(text):
            yield f"{what}: {text[:80]!r}"

    yield check


def _bytes(_: Any, given: Mapping[str, Any]) -> Iterator[Check]:
    least, most = given.get("min_len", 0), given.get("max_len")
    if given.keys() - {"min_len", "max_len"}:
        raise UnknownRule(f"bytes.{sorted(given)}")

    def check(value: bytes) -> Iterator[str]:
        if len(value) < least:
            yield f"must have at least {least} bytes"
        if most is not None and len(value) > most:
            yield f"can have at most {most} bytes"

    yield check


def _enum(field: Any, given: Mapping[str, Any]) -> Iterator[Check]:
    if given.keys() - {"defined_only", "not_in"}:
        raise UnknownRule(f"enum.{sorted(given)}")
    names = {value.number: value.name for value in field.enum_type.values}
    forbidden, only = set(given.get("not_in", ())), given.get("defined_only", False)

    def check(value: int) -> Iterator[str]:
        if value in forbidden or (only and value not in names):
            yield f"cannot be {names.get(value, value)}"

    yield check


def _bool(_: Any, given: Mapping[str, Any]) -> Iterator[Check]:
    if given.keys() - {"const"}:
        raise UnknownRule(f"bool.{sorted(given)}")
    wanted = given["const"]

    def check(value: bool) -> Iterator[str]:
        if value != wanted:
            yield f"must be {wanted}"

    yield check


def _message(_: Any, given: Mapping[str, Any]) -> Iterator[Check]:
    if given.keys() - {"required", "skip"}:
        raise UnknownRule(f"message.{sorted(given)}")
    yield from ()


_CHECKS: Mapping[str, Callable[[Any, Mapping[str, Any]], Iterator[Check]]] = {
    "string": _string,
    "bytes": _bytes,
    "enum": _enum,
    "bool": _bool,
    "duration": _duration,
    "message": _message,
}
