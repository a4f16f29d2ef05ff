"""Stored resources that this version cannot read: a newer version wrote them, with a field or type unknown here.

Such a resource is left out and reported, and everything else goes on. So a new field can be rolled out while replicas
of the older version still run, and a version can be rolled back.

Most kinds can be left out as a whole. A few cannot, because less of them would allow more, or move keys: for these,
`Kind.keep` extracts what has to stay in force of a spec.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic import ValidationError

from control.model.base import Model
from control.model.explain import explain
from control.model.resource import Kind, Resource

M = TypeVar("M", bound=Model)

# Each round drops at least one place; a resource that needs more rounds is not from a slightly newer version.
_MOST_ROUNDS = 16


@dataclass(frozen=True)
class Unreadable:
    """`data`: the document as stored, with the store's metadata. `kept`: what stays in force of it."""

    type: str
    mesh: str
    name: str
    version: int
    modification_time: str
    problem: str
    data: Mapping[str, Any]
    kept: Resource | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.type, self.mesh, self.name)

    @cached_property
    def message(self) -> str:
        """For people: which resource, what happens with it, and why."""
        done = "is left out" if self.kept is None else "is left out, except for its protective parts"
        return f"{self.type} {self.name} {done}: this version cannot read it: {self.problem}"

    def to_data(self) -> dict[str, Any]:
        return {**self.data, "problem": self.message}


def read_spec(kind: Kind, spec: Any) -> tuple[Any, str]:
    """(the spec, empty), or (what stays in force of it, why it cannot be read); None: nothing stays in force."""
    try:
        return kind.spec.model_validate(spec), ""
    except ValidationError as error:
        problem = "; ".join(f"{v.path}: {v.message}" for v in explain(error, kind.spec, ("spec",)))
        kept = kind.keep(spec) if kind.keep is not None and isinstance(spec, dict) else None
        return kept, problem


def without_unknown(model: type[M], data: Mapping[str, Any], needed: Collection[str] = ()) -> M | None:
    """The model without the places that it cannot read; None if one of them must not be dropped.

    `needed`: top-level fields in which nothing may be dropped, since the rest would select more.
    """
    left = copy.deepcopy(dict(data))
    for _ in range(_MOST_ROUNDS):
        try:
            return model.model_validate(left)
        except ValidationError as error:
            places = {detail["loc"] for detail in error.errors(include_url=False, include_input=False)}
        # Later entries of a list first, so that the places of the others stay valid.
        for place in sorted(places, key=repr, reverse=True):
            if not place or place[0] in needed or not _drop(left, place):
                return None
    return None


def _drop(data: Any, place: tuple[str | int, ...]) -> bool:
    for part in place[:-1]:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    last = place[-1]
    if isinstance(data, list) and isinstance(last, int) and last < len(data):
        del data[last]
        return True
    return isinstance(data, dict) and data.pop(last, None) is not None
