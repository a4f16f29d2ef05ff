"""Resources: a list, and get, put and delete of each. Every kind has its route, so the API's page shows its fields."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Query, Request, Response

from control.kinds import KINDS, MESH
from control.model import documents
from control.model.resource import Kind, Resource, parse
from control.model.unreadable import Unreadable
from control.model.violation import InvalidResource, Violation
from control.reconcile.control_plane import ControlPlane
from control.rest import errors, openapi
from control.rest.auditing import tell
from control.rest.shapes import Status
from control.store.errors import NotFound
from control.xds import rehearsal

MAX_PAGE = 1000
DEFAULT_PAGE = 100

Size = Annotated[int, Query(ge=1, le=MAX_PAGE)]
After = Annotated[str, Query(description="`next` of the previous page", max_length=253)]
IfMatch = Annotated[str, Header(description='only if this is the current version: the ETag, for example "3"')]
IfNoneMatch = Annotated[str, Header(description="*: only if it does not exist yet")]

_VERSION = re.compile(r'"?([0-9]{1,18})"?')


def add_to(app: FastAPI, control_plane: ControlPlane) -> None:
    _add_kind(app, control_plane, MESH, "/meshes")
    for kind in KINDS:
        if kind.in_mesh:
            _add_kind(app, control_plane, kind, f"/meshes/{{mesh}}/{kind.plural}")
    _add_unknown(app)


def _add_kind(app: FastAPI, control_plane: ControlPlane, kind: Kind, path: str) -> None:
    common: dict[str, Any] = {"tags": [kind.type]}
    one = f"{path}/{{name}}"

    async def page(size: Size = DEFAULT_PAGE, after: After = "", mesh: str = "") -> dict[str, Any]:
        found = await asyncio.to_thread(control_plane.state.store.read, kind.type, mesh, after, size + 1)
        # A mesh that does not exist is not one without resources: whoever mistyped its name should learn it.
        if (
            not found
            and kind.in_mesh
            and not await asyncio.to_thread(control_plane.state.store.has, MESH.type, "", mesh)
        ):
            raise NotFound(f"there is no Mesh {mesh!r}: `mesh get meshes` lists the existing ones")
        items = [_data(one) for one in found[:size]]
        return {"items": items, "next": found[size - 1].name if len(found) > size else None}

    async def get(name: str, response: Response, mesh: str = "") -> dict[str, Any]:
        found = await asyncio.to_thread(control_plane.state.store.read_one, kind.type, mesh, name)
        response.headers["ETag"] = f'"{found.version}"'
        return _data(found)

    async def put(
        name: str,
        request: Request,
        response: Response,
        if_match: IfMatch = "",
        if_none_match: IfNoneMatch = "",
        mesh: str = "",
    ) -> dict[str, Any]:
        tell("resource_stored", type=kind.type, mesh=mesh, name=name)
        resource = await _read(request, kind, mesh, name)
        expected = _expected_version(if_match, if_none_match)
        is_new = not await asyncio.to_thread(control_plane.state.store.has, kind.type, mesh, name)
        stored = await control_plane.changes.put(resource, expected)
        tell("resource_stored", version=stored.version)
        response.status_code = 201 if is_new else 200
        response.headers["ETag"] = f'"{stored.version}"'
        return stored.to_data(with_times=True)

    async def delete(name: str, if_match: IfMatch = "", mesh: str = "") -> Status:
        tell("resource_deleted", type=kind.type, mesh=mesh, name=name)
        await control_plane.changes.delete(kind.type, mesh, name, _expected_version(if_match, ""))
        return Status(status="deleted")

    # A mesh is in no mesh: the parameter is not in its paths, and must not become a query parameter instead.
    handlers: list[Callable[..., Any]] = [page, get, put, delete]
    if not kind.in_mesh:
        handlers = [openapi.without_parameter(handler, "mesh") for handler in handlers]
    of_page, of_get, of_put, of_delete = handlers
    listed, shown, made = openapi.page_of(kind), openapi.answer_of(kind), openapi.answers_to_put(kind)
    unseen: dict[str, Any] = {**common, "response_model": None}  # openapi.py describes the responses
    missing = (404,) if kind.in_mesh else ()
    refused = errors.responses(400, 401, *missing)
    app.get(path, summary=f"List {kind.type} resources", responses=refused | listed, **unseen)(of_page)
    refused = errors.responses(400, 401, 404)
    app.get(one, summary=f"Get a {kind.type}", responses=refused | shown, **unseen)(of_get)
    refused = errors.responses(400, 401, 409)
    app.put(
        one,
        summary=f"Create or update a {kind.type}",
        responses=refused | made,
        openapi_extra=openapi.body_of(kind),
        **unseen,
    )(of_put)
    app.delete(one, summary=f"Delete a {kind.type}", responses=errors.responses(400, 401, 404, 409), **common)(
        of_delete
    )


def _data(found: Resource | Unreadable) -> dict[str, Any]:
    """An unreadable resource is shown as it is stored, with the `problem`."""
    return found.to_data(with_times=True) if isinstance(found, Resource) else found.to_data()


def _add_unknown(app: FastAPI) -> None:
    @app.api_route("/meshes/{mesh}/{kinds}", methods=["GET"], include_in_schema=False)
    @app.api_route("/meshes/{mesh}/{kinds}/{name}", methods=["GET", "PUT", "DELETE"], include_in_schema=False)
    async def unknown(kinds: str) -> None:
        tell("no_such_kind")
        allowed = ", ".join(kind.plural for kind in KINDS if kind.in_mesh)
        raise HTTPException(404, f"there are no {kinds}; there are {allowed}")


def _expected_version(if_match: str, if_none_match: str) -> int | None:
    """0: there must be none yet; None: any version."""
    if if_none_match == "*":
        return 0
    if if_none_match:
        raise HTTPException(400, f"If-None-Match can only be *; got {if_none_match!r}")
    if not if_match:
        return None
    found = _VERSION.fullmatch(if_match)
    if found is None:
        raise HTTPException(400, f'If-Match is the version in quotes, as in ETag: "3"; got {if_match!r}')
    return int(found[1])


async def _read(request: Request, kind: Kind, mesh: str, name: str) -> Resource:
    """The resource in the body (JSON or YAML), which must be the one that the path names."""
    body = await request.body()
    # Parsed off the loop that serves proxies: a large document takes seconds.
    found = await asyncio.to_thread(documents.load, body, "the request")
    if len(found) != 1:
        raise HTTPException(400, f"the body has {len(found)} documents instead of one")
    resource = await asyncio.to_thread(parse, found[0], KINDS, mesh or None)
    if resource.key != (kind.type, mesh, name):
        violation = Violation("name", f"is that of {resource.key}, but the path is that of {(kind.type, mesh, name)}")
        raise InvalidResource(f"{kind.type} {name}", [violation])
    await asyncio.to_thread(rehearsal.check, resource)
    return resource
