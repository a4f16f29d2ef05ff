"""The pages of the REST API and of the resources, from the API's own description (OpenAPI)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from docs.publishing.sources import api_description

Schema = Mapping[str, Any]
Row = tuple[str, str, str, str]  # field, type, default, description
_GENERIC = {"400", "401", "403", "408", "413", "415", "421", "503"}  # of every request; the page's text explains them
_OF_EVERY_KIND = "Dataplane"  # its calls stand for those of all types of resources


def calls() -> str:
    """A table of calls per topic; those that exist for every type of resource stand once."""
    document = api_description()
    kinds = {tag for tag in _tags(document) if f"Stored{tag}" in document["components"]["schemas"]}
    sections: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            topic, shown = _topic(path, operation["tags"][0], kinds)
            if topic:
                sections.setdefault(topic, []).append(_call(method, shown, operation, kinds))
    head = "| call | what | parameters | answers beside the general ones |\n|---|---|---|---|\n"
    return "\n".join(f"## {topic}\n\n{head}{''.join(rows)}" for topic, rows in sections.items())


def _topic(path: str, tag: str, kinds: set[str]) -> tuple[str, str]:
    """The heading of a call and how its path is shown; no heading for calls that another type of resource shows."""
    if tag not in kinds:
        return tag.capitalize(), path
    if path.startswith("/meshes/{mesh}/") and re.fullmatch(r"/meshes/\{mesh\}/\w+(/\{name\})?", path):
        shown = re.sub(r"^/meshes/\{mesh\}/\w+", "/meshes/{mesh}/{kinds}", path)
        return ("Resources of a mesh" if tag == _OF_EVERY_KIND else ""), shown
    return ("Meshes" if tag == "Mesh" else "Rotation of a CA"), path


def plurals() -> str:
    """How the types of resources are called in paths."""
    rows = []
    for path, operations in api_description()["paths"].items():
        found = re.fullmatch(r"/meshes/\{mesh\}/(\w+)", path)
        if found and "get" in operations and not found[1].startswith("_"):
            rows.append(f"| `{operations['get']['tags'][0]}` | `{found[1]}` |\n")
    return "| type | `{kinds}` |\n|---|---|\n" + "".join(rows)


def _tags(document: Schema) -> set[str]:
    return {one["tags"][0] for operations in document["paths"].values() for one in operations.values()}


def _call(method: str, path: str, operation: Schema, kinds: set[str]) -> str:
    text = (operation.get("description") or operation["summary"]).split("\n\n")[0].replace("\n", " ")
    for kind in kinds - {"Mesh"}:  # the call stands for all kinds
        text = re.sub(rf"^List {kind} resources$", "List resources", text)
        text = re.sub(rf"\b{kind}$", "resource", text)
    named = [f"`{one['name']}`" for one in operation.get("parameters", []) if one["in"] != "path"]
    answers = [f"{status}" for status in operation["responses"] if status not in _GENERIC]
    return f"| `{method.upper()} {path}` | {text.rstrip('.')}. | {', '.join(named)} | {', '.join(answers)} |\n"


def resources() -> str:
    """A section per type of resource, with every field of its spec."""
    schemas = api_description()["components"]["schemas"]
    sections = []
    for name in schemas:
        if f"Stored{name}" in schemas:
            rows = list(_kind(name, schemas))
            sections.append(f"## {name}\n\n{_table(rows) if rows else 'It has no fields.'}\n")
    return "\n".join(sections)


def _table(rows: list[Row]) -> str:
    """Without the column of descriptions where no field has one."""
    heads = ("field", "type", "default", "what") if any(row[3] for row in rows) else ("field", "type", "default")
    lines = [heads, ("---",) * len(heads), *(row[: len(heads)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _kind(name: str, schemas: Schema) -> Iterator[Row]:
    spec = schemas[name]["properties"]["spec"]
    yield from _fields(_resolved(spec, schemas), "spec", schemas, ())


def _fields(schema: Schema, prefix: str, schemas: Schema, above: tuple[str, ...]) -> Iterator[Row]:
    for field, inner in schema.get("properties", {}).items():
        path = f"{prefix}.{field}"
        required = field in schema.get("required", ())
        default = "required" if required else _default(inner)
        yield f"`{path}`", _type(inner, schemas), default, _text(inner)
        for suffix, model in _models(inner, schemas):
            reference = model.get("$ref", "")
            if reference in above:
                continue  # a type that holds itself
            yield from _fields(_resolved(model, schemas), path + suffix, schemas, (*above, reference))


def _models(schema: Schema, schemas: Schema, suffix: str = "") -> Iterator[tuple[str, Schema]]:
    """The objects with fields of their own that a value can hold, and how a path goes on to them."""
    if "$ref" in schema:
        target = _resolved(schema, schemas)
        if "properties" in target:
            yield suffix, schema
        elif target is not schema:
            yield from _models(target, schemas, suffix)
        return
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _models(option, schemas, suffix)
    if isinstance(schema.get("items"), dict):
        yield from _models(schema["items"], schemas, suffix + "[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _models(schema["additionalProperties"], schemas, suffix + ".KEY")


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _type(schema: Schema, schemas: Schema) -> str:
    schema = _resolved(schema, schemas)
    options = [one for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) if one.get("type") != "null"]
    if options:
        return ", ".join(dict.fromkeys(_type(one, schemas) for one in options))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}), schemas)}"
    if kind == "object":
        return "object" if "properties" in schema else "map"
    names = {"string": "text", "boolean": "true, false", "integer": "integer", "number": "number"}
    limits = [schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")]
    if limits[0] is not None and limits[1] is not None:
        return f"{limits[0]} to {limits[1]}"
    return names.get(kind, str(kind))


def _default(schema: Schema) -> str:
    value = schema.get("default")
    if value in (None, [], {}, ""):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _text(schema: Schema) -> str:
    text = schema.get("description") or ""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").strip()
