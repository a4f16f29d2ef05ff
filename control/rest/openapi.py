"""The API's own description (OpenAPI 3.1): the schema of every kind of resource, and who has access.

FastAPI describes what it reads itself; bodies of resources are read by the model (YAML too, with better errors), so
their schemas are added here. tests/control/rest/test_schemathesis.py checks the server against all of it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from control.kinds import KINDS
from control.model.base import RFC1035_LABEL, RFC1123_SUBDOMAIN, Model, labels_schema
from control.model.resource import Kind
from control.rest.guard import OPEN

Schema = dict[str, Any]
# Responses by status, as FastAPI accepts them.
Answers = dict[int | str, dict[str, Any]]

_REF = "#/components/schemas/{model}"
_ETAG = {"ETag": {"description": "the version, for If-Match", "schema": {"type": "string"}}}


def _ref(name: str) -> Schema:
    return {"$ref": _REF.format(model=name)}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def body_of(kind: Kind) -> Schema:
    content = _json(_ref(kind.type)) | {"application/yaml": {"schema": _ref(kind.type)}}
    return {"requestBody": {"required": True, "content": content}}


def answer_of(kind: Kind) -> Answers:
    content = _json(_ref(f"Stored{kind.type}"))
    return {200: {"description": "the resource", "content": content, "headers": _ETAG}}


def answers_to_put(kind: Kind) -> Answers:
    content = _json(_ref(f"Stored{kind.type}"))
    changed = {"description": "updated, or already in this state", "content": content, "headers": _ETAG}
    return {200: changed, 201: {**changed, "description": "made"}}


def page_of(kind: Kind) -> Answers:
    page = {
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": {"type": "array", "items": _ref(f"Stored{kind.type}")},
            "next": {
                "type": ["string", "null"],
                "description": "value of `after` for the next page; null: no more pages",
            },
        },
    }
    return {200: {"description": "sorted by name", "content": _json(page)}}


def without_parameter(handler: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Hides a parameter that has a default from FastAPI."""
    signature = inspect.signature(handler, eval_str=True)

    @functools.wraps(handler)
    async def call(**arguments: Any) -> Any:
        return await handler(**arguments)

    parameters = [parameter for key, parameter in signature.parameters.items() if key != name]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def describe(app: FastAPI) -> None:
    """Builds the description once; app.openapi() returns it from then on."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes, openapi_version="3.1.0")
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # FastAPI's own form of a validation error, which is never sent here.
            operation["responses"].pop("422", None)
            content = operation["responses"].get("200", {}).get("content", {})
            if "text/plain" in content:  # only its errors are JSON
                content.pop("application/json", None)
            if path not in OPEN:
                operation["security"] = [{"token": []}, {"certificate": []}]
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "mesh generate admin-token"},
        "certificate": {"type": "mutualTLS", "description": "mesh generate admin-certificate"},
    }
    specs: list[type[Model]] = [kind.spec for kind in KINDS]
    template = _REF.replace("{model}", "spec.{model}")  # distinct from the names of the API's own shapes
    by_model, definitions = models_json_schema([(spec, "validation") for spec in specs], ref_template=template)
    schemas |= {f"spec.{name}": schema for name, schema in definitions.get("$defs", {}).items()}
    for kind in KINDS:
        spec = by_model[kind.spec, "validation"]
        schemas[kind.type] = _document(kind, spec)
        schemas[f"Stored{kind.type}"] = _stored(kind, spec)
    app.openapi = lambda: document  # type: ignore[method-assign]


def _document(kind: Kind, spec: Schema) -> Schema:
    """The request's form. The store's metadata in it is ignored, so that a response can be sent back."""
    name = RFC1035_LABEL if kind.dns_label else RFC1123_SUBDOMAIN
    properties: Schema = {
        "type": {"const": kind.type},
        "name": {"type": "string", "pattern": f"^{name}$"},
        "labels": labels_schema(),
        "spec": spec,
        **{key: {"readOnly": True} for key in ("creationTime", "modificationTime", "version")},
    }
    if kind.in_mesh:
        properties["mesh"] = {
            "type": "string",
            "pattern": f"^{RFC1035_LABEL}$",
            "description": "the mesh of the path if not set",
        }
    required = ["type", "name"] + (["spec"] if _needs_spec(kind) else [])
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _needs_spec(kind: Kind) -> bool:
    return any(field.is_required() for field in kind.spec.model_fields.values())


def _stored(kind: Kind, spec: Schema) -> Schema:
    """The response's form: the document, with the store's metadata."""
    text = {"type": "string"}
    properties = {
        "type": {"const": kind.type},
        "name": text,
        "labels": labels_schema(),
        "creationTime": text,
        "modificationTime": text,
        "version": {"type": "integer", "minimum": 1},
        "spec": spec,
    }
    required = ["type", "name", "creationTime", "modificationTime", "version", "spec"]
    if kind.in_mesh:
        properties["mesh"] = text
        required.append("mesh")
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
