"""What a proxy is, should have and has; whether a call to it is allowed, and why."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import PlainTextResponse

from control.mesh.choice import Choice
from control.mesh.view import MeshView
from control.model.resource import Resource
from control.reconcile.control_plane import ControlPlane
from control.rest import errors, explain_proxy, proxy_statistics
from control.rest.shapes import Access, Overview, PoliciesOfType, ProxyConfiguration, Waiting
from control.store.errors import NotFound

Filter = Annotated[str, Query(max_length=1000, description="regular expression (RE2) that selects names")]
Shadow = Annotated[bool, Query(description="as if policies with the label kuma.io/effect: shadow were in effect")]
StatisticsForm = Annotated[proxy_statistics.Form, Query(alias="format")]

PREFIX = "/meshes/{mesh}/dataplanes/{name}"


async def find(control_plane: ControlPlane, mesh: str, name: str) -> tuple[MeshView, Resource]:
    """Raises NotFound."""
    view = await control_plane.views.view(mesh, fresh=True)
    dataplane = view.get("Dataplane", name)
    if dataplane is None:
        raise NotFound(f"there is no Dataplane {name!r} in mesh {mesh!r}")
    return view, dataplane


def add_to(app: FastAPI, control_plane: ControlPlane) -> None:
    common: dict[str, Any] = {
        "tags": ["inspection"],
        "responses": errors.responses(400, 401, 404),
        "response_model_exclude_unset": True,
    }
    hidden = {**common, "include_in_schema": False}

    @app.get(PREFIX + "/_overview", response_model=Overview, **common)
    async def overview(mesh: str, name: str) -> dict[str, Any]:
        """Who it is, its certificate, and what it accepted and rejected per connection and type of xDS."""
        return await explain_proxy.overview(control_plane, *await find(control_plane, mesh, name))

    @app.get("/meshes/{mesh}/_waiting", response_model=list[Waiting], **common)
    async def waiting(mesh: str) -> list[dict[str, str]]:
        """The steps of changes that wait for a proxy or a node, with whose they are and for whom they wait."""
        if not await asyncio.to_thread(control_plane.state.store.has, "Mesh", "", mesh):
            raise NotFound(f"there is no Mesh {mesh!r}")
        return explain_proxy.waiting(await control_plane.views.view(mesh, fresh=True))

    @app.get(PREFIX + "/_policies", response_model=list[PoliciesOfType], **hidden)
    @app.get(PREFIX + "/policies", response_model=list[PoliciesOfType], **common)
    async def policies(mesh: str, name: str) -> list[dict[str, Any]]:
        """The policies that select it, the weakest of each type first."""
        return explain_proxy.policies(*await find(control_plane, mesh, name))

    @app.get(PREFIX + "/_xds", response_model=ProxyConfiguration, **hidden)
    @app.get(PREFIX + "/xds", response_model=ProxyConfiguration, **common)
    async def xds(mesh: str, name: str, shadow: Shadow = False) -> dict[str, Any]:
        """The configuration that it should have, without secrets."""
        view, dataplane = await find(control_plane, mesh, name)
        return explain_proxy.config(
            view, dataplane, control_plane.state.quarantines.choice(view, dataplane) | Choice(shadow=shadow)
        )

    answers = errors.responses(400, 401, 404, 409, 502) | {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "in Envoy's output format"}
    }
    plain = {**common, "responses": answers, "response_model": None}

    @app.get(PREFIX + "/_stats", **{**plain, "include_in_schema": False})
    @app.get(PREFIX + "/stats", **plain)
    async def stats(mesh: str, name: str, filter: Filter = "", form: StatisticsForm = "text") -> PlainTextResponse:
        """The proxy's own statistics now; it must be running, and its Dataplane must have networking.admin.port."""
        view, dataplane = await find(control_plane, mesh, name)
        found = await asyncio.to_thread(
            proxy_statistics.read, control_plane.state.identities, view, dataplane, filter, form
        )
        return PlainTextResponse(found)

    @app.get(PREFIX + "/_access", response_model=list[Access], **common)
    async def access(mesh: str, name: str, caller: str) -> list[dict[str, Any]]:
        """Whether each inbound allows `caller` (a SPIFFE id), and why."""
        view, dataplane = await find(control_plane, mesh, name)
        return explain_proxy.access(view, dataplane, caller, control_plane.state.quarantines.choice(view, dataplane))
