"""Reading YAML and JSON: several documents per file, no aliases, no duplicate keys, bounded size."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from typing import Any

import yaml

from control.model.resource import Kinds, Resource, parse
from control.model.violation import InvalidResource, Violation

# Enough for more than a thousand services in one file, and too little to do harm.
MAX_BYTES = 16 * 1024 * 1024


class UnreadableDocument(ValueError):
    """Text that is not YAML; the message says where."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that rejects aliases (a small file could grow without bound) and duplicate keys (one would win)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                problem = f"the key {key!r} is given twice" if isinstance(key, Hashable) else "a key must be a string"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# Timestamps stay strings: JSON has none, and no field here takes one.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(text: str | bytes, source: str) -> list[Any]:
    """The documents in `text`, empty ones left out. Raises UnreadableDocument with source, line and column."""
    if len(text) > MAX_BYTES:
        raise UnreadableDocument(f"{source}: has {len(text)} bytes; at most {MAX_BYTES} are accepted")
    try:
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise UnreadableDocument(f"{place}: {error.problem or 'is not YAML'}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UnreadableDocument(f"{source}: is not YAML: {error}") from error


def read(text: str | bytes, source: str, kinds: Kinds, default_mesh: str | None = None) -> list[Resource]:
    """Every resource in `text`. Raises InvalidResource with the violations of all documents, each with its number."""
    resources, violations = [], []
    documents = load(text, source)
    for number, document in enumerate(documents, start=1):
        try:
            resources.append(parse(document, kinds, default_mesh))
        except InvalidResource as error:
            prefix = f"document {number}, {error.subject}: " if len(documents) > 1 else f"{error.subject}: "
            violations += [Violation(prefix + v.path, v.message, v.example) for v in error.violations]
    if violations:
        raise InvalidResource(source, violations)
    return resources


def to_yaml(data: Iterable[object]) -> str:
    """Documents separated by ---, keys in the order given."""
    return "---\n".join(yaml.safe_dump(document, sort_keys=False, width=120) for document in data)


def to_json(data: object) -> str:
    return json.dumps(data, indent=2) + "\n"
