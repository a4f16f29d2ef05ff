"""The application: every path needs an administrator's token, but health, readiness and metrics."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from control import inspect
from control.ca.rotation import WAITS_FOR, Event, Rotation
from control.kinds import KINDS
from control.model import documents
from control.model.base import Labels, parse_duration
from control.model.resource import Kind, Resource, parse
from control.model.violation import InvalidResource, Violation
from control.plane import ControlPlane
from control.rest import errors
from control.store.errors import NotFound
from control.tokens.tokens import InvalidToken, Tokens
from control.xds.view import MeshView

MAX_PAGE = 1000
DEFAULT_PAGE = 100


class Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", populate_by_name=True)


class TokenRequest(Body):
    mesh: str = ""
    name: str = ""
    labels: Labels = Field(default_factory=dict)
    valid_for: str = "24h"


class Revocation(Body):
    token: str = Field(description="the token, or its id (jti)")
    reason: str = ""


class RotationRequest(Body):
    action: Literal["begin", "distributed", "replaced", "retired", "abort"]


def make_app(plane: ControlPlane, tokens: Tokens) -> FastAPI:
    app = FastAPI(title="mesh control plane", version="1", docs_url="/docs", redoc_url=None)
    errors.add_to(app)
    administrator = Depends(_administrator(tokens))
    _add_health(app, plane)
    _add_resources(app, plane, administrator)
    _add_inspection(app, plane, administrator)
    _add_tokens(app, tokens, administrator)
    _add_rotation(app, plane, administrator)
    return app


def _administrator(tokens: Tokens) -> Any:
    async def check(authorization: Annotated[str, Header()] = "") -> None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise InvalidToken("an administrator's token is needed: authorization: Bearer <token>")
        await asyncio.to_thread(tokens.check, token.strip(), "admin")

    return check


def _kind(plural: str) -> Kind:
    kind = next((kind for kind in KINDS if kind.plural == plural and kind.in_mesh), None)
    if kind is None:
        allowed = ", ".join(kind.plural for kind in KINDS if kind.in_mesh)
        raise HTTPException(404, f"there are no {plural}; there are {allowed}")
    return kind


# --- health -----------------------------------------------------------------------------------------------------------


def _add_health(app: FastAPI, plane: ControlPlane) -> None:
    @app.get("/healthy")
    async def healthy() -> dict[str, str]:
        return {"status": "healthy"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether the store answers."""
        await asyncio.to_thread(plane.store.generation)
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(plane.metrics.registry), media_type=CONTENT_TYPE_LATEST)


# --- resources --------------------------------------------------------------------------------------------------------


def _expected_version(if_match: str | None, if_none_match: str | None) -> int | None:
    if if_none_match == "*":
        return 0
    if if_match is None:
        return None
    if not if_match.strip('"').isdigit():
        raise HTTPException(400, f'If-Match is the version in quotes, as in ETag: "3"; got {if_match!r}')
    return int(if_match.strip('"'))


async def _read(request: Request, kind: Kind, mesh: str, name: str) -> Resource:
    """The resource in the body (JSON or YAML), which has to be the one that the path names."""
    found = documents.load(await request.body(), "the request")
    if len(found) != 1:
        raise HTTPException(400, f"the body has {len(found)} documents instead of one")
    resource = parse(found[0], KINDS, default_mesh=mesh or None)
    if resource.key != (kind.type, mesh, name):
        violation = Violation("name", f"is that of {resource.key}, but the path is that of {(kind.type, mesh, name)}")
        raise InvalidResource(f"{kind.type} {name}", [violation])
    return resource


async def _put(plane: ControlPlane, request: Request, response: Response, kind: Kind, mesh: str, name: str) -> Any:
    resource = await _read(request, kind, mesh, name)
    expected = _expected_version(request.headers.get("if-match"), request.headers.get("if-none-match"))
    is_new = not await asyncio.to_thread(plane.store.has, kind.type, mesh, name)
    stored = await plane.put(resource, expected)
    response.status_code = 201 if is_new else 200
    response.headers["ETag"] = f'"{stored.version}"'
    return stored.to_data(with_times=True)


async def _page(plane: ControlPlane, kind: Kind, mesh: str, size: int, after: str) -> dict[str, Any]:
    found = await asyncio.to_thread(plane.store.list, kind.type, mesh, after, size + 1)
    items = [resource.to_data(with_times=True) for resource in found[:size]]
    return {"items": items, "next": found[size - 1].name if len(found) > size else None}


Size = Annotated[int, Query(ge=1, le=MAX_PAGE)]


def _add_resources(app: FastAPI, plane: ControlPlane, administrator: Any) -> None:
    meshes = KINDS.of_type("Mesh")
    assert meshes is not None

    @app.get("/meshes", dependencies=[administrator])
    async def list_meshes(size: Size = DEFAULT_PAGE, after: str = "") -> dict[str, Any]:
        return await _page(plane, meshes, "", size, after)

    @app.get("/meshes/{mesh}", dependencies=[administrator])
    async def get_mesh(mesh: str, response: Response) -> Any:
        return await _get(meshes, "", mesh, response)

    @app.put("/meshes/{mesh}", dependencies=[administrator])
    async def put_mesh(mesh: str, request: Request, response: Response) -> Any:
        return await _put(plane, request, response, meshes, "", mesh)

    @app.delete("/meshes/{mesh}", dependencies=[administrator])
    async def delete_mesh(mesh: str) -> dict[str, str]:
        await plane.delete("Mesh", "", mesh)
        return {"status": "deleted"}

    @app.get("/meshes/{mesh}/{kinds}", dependencies=[administrator])
    async def list_resources(mesh: str, kinds: str, size: Size = DEFAULT_PAGE, after: str = "") -> dict[str, Any]:
        return await _page(plane, _kind(kinds), mesh, size, after)

    @app.get("/meshes/{mesh}/{kinds}/{name}", dependencies=[administrator])
    async def get_resource(mesh: str, kinds: str, name: str, response: Response) -> Any:
        return await _get(_kind(kinds), mesh, name, response)

    @app.put("/meshes/{mesh}/{kinds}/{name}", dependencies=[administrator])
    async def put_resource(mesh: str, kinds: str, name: str, request: Request, response: Response) -> Any:
        return await _put(plane, request, response, _kind(kinds), mesh, name)

    @app.delete("/meshes/{mesh}/{kinds}/{name}", dependencies=[administrator])
    async def delete_resource(mesh: str, kinds: str, name: str) -> dict[str, str]:
        await plane.delete(_kind(kinds).type, mesh, name)
        return {"status": "deleted"}

    async def _get(kind: Kind, mesh: str, name: str, response: Response) -> Any:
        resource = await asyncio.to_thread(plane.store.get, kind.type, mesh, name)
        response.headers["ETag"] = f'"{resource.version}"'
        return resource.to_data(with_times=True)


# --- inspection -------------------------------------------------------------------------------------------------------


def _add_inspection(app: FastAPI, plane: ControlPlane, administrator: Any) -> None:
    async def find(mesh: str, name: str) -> tuple[MeshView, Resource]:
        view = await plane.view(mesh, fresh=True)
        dataplane = view.get("Dataplane", name)
        if dataplane is None:
            raise NotFound(f"there is no Dataplane {name!r} in mesh {mesh!r}")
        return view, dataplane

    prefix = "/meshes/{mesh}/dataplanes/{name}"

    @app.get(prefix + "/_overview", dependencies=[administrator])
    async def overview(mesh: str, name: str) -> dict[str, Any]:
        return inspect.overview(plane, *await find(mesh, name))

    @app.get(prefix + "/policies", dependencies=[administrator], include_in_schema=False)
    @app.get(prefix + "/_policies", dependencies=[administrator])
    async def policies(mesh: str, name: str) -> list[dict[str, Any]]:
        return inspect.policies(*await find(mesh, name))

    @app.get(prefix + "/xds", dependencies=[administrator], include_in_schema=False)
    @app.get(prefix + "/_xds", dependencies=[administrator])
    async def xds(mesh: str, name: str) -> dict[str, Any]:
        return inspect.config(*await find(mesh, name))

    @app.get(prefix + "/_access", dependencies=[administrator])
    async def access(mesh: str, name: str, caller: str) -> list[dict[str, Any]]:
        """Whether `caller` (a SPIFFE id) is let in by each inbound, and why."""
        return inspect.access(*await find(mesh, name), caller)


# --- tokens -----------------------------------------------------------------------------------------------------------

TokenKind = Literal["dataplane", "node", "admin"]


def _add_tokens(app: FastAPI, tokens: Tokens, administrator: Any) -> None:
    @app.post("/tokens/revocations", dependencies=[administrator])
    async def revoke(revocation: Revocation) -> dict[str, str]:
        try:
            return {"jti": await asyncio.to_thread(tokens.revoke, revocation.token, revocation.reason)}
        except InvalidToken as error:
            raise HTTPException(400, str(error)) from None

    @app.post("/tokens/{kind}", dependencies=[administrator])
    async def issue(kind: TokenKind, wanted: TokenRequest) -> dict[str, str]:
        if (kind == "dataplane") != bool(wanted.mesh):
            raise HTTPException(400, "mesh: is needed for dataplane tokens, and for no others")
        try:
            seconds = int(parse_duration(wanted.valid_for).total_seconds())
        except ValueError as error:
            raise HTTPException(400, f"validFor: {error}") from None
        if seconds < 1:
            raise HTTPException(400, "validFor: must be at least 1s")
        labels = dict(wanted.labels)
        token = await asyncio.to_thread(tokens.issue, kind, seconds, wanted.mesh, wanted.name, labels)
        return {"token": token}

    @app.get("/tokens/{kind}/keys", dependencies=[administrator])
    async def keys(kind: TokenKind, mesh: str = "") -> dict[str, list[str]]:
        return {"keys": await asyncio.to_thread(tokens.key_ids, kind, mesh)}

    @app.post("/tokens/{kind}/keys", dependencies=[administrator])
    async def add_key(kind: TokenKind, mesh: str = "") -> dict[str, str]:
        return {"key": await asyncio.to_thread(tokens.add_key, kind, mesh)}

    @app.delete("/tokens/{kind}/keys/{key}", dependencies=[administrator])
    async def remove_key(kind: TokenKind, key: str, mesh: str = "") -> dict[str, str]:
        await asyncio.to_thread(tokens.remove_key, key, kind, mesh)
        return {"status": "removed"}


# --- rotation of CAs --------------------------------------------------------------------------------------------------


def _add_rotation(app: FastAPI, plane: ControlPlane, administrator: Any) -> None:
    path = "/meshes/{mesh}/meshidentities/{name}/rotation"

    def status(rotation: Rotation) -> dict[str, Any]:
        return {
            "stage": rotation.stage.value,
            "waitsFor": WAITS_FOR[rotation.stage],
            "issuer": rotation.issuer.fingerprint,
            "bundle": [authority.fingerprint for authority in rotation.bundle],
            "issuerNotAfter": rotation.issuer.certificate.not_valid_after_utc.isoformat(),
        }

    @app.get(path, dependencies=[administrator])
    async def show(mesh: str, name: str) -> dict[str, Any]:
        identity = await asyncio.to_thread(plane.store.get, "MeshIdentity", mesh, name)
        return status(await asyncio.to_thread(plane.identities.rotation, mesh, identity))

    @app.post(path, dependencies=[administrator])
    async def step(mesh: str, name: str, wanted: RotationRequest) -> dict[str, Any]:
        """Refused as long as what the stage waits for has not happened."""
        identity = await asyncio.to_thread(plane.store.get, "MeshIdentity", mesh, name)
        return status(await plane.rotate(identity, Event(wanted.action)))
