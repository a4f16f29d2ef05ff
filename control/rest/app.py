"""The application: every path needs an administrator, but health, readiness and metrics, and the page about the API."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from control.plane import ControlPlane
from control.rest import access, errors, inspection, openapi, resources
from control.rest.admin_certificates import AdminCertificates
from control.rest.authentication import administrator
from control.rest.limits import BoundedBody
from control.rest.shapes import Readiness, Status
from control.tokens.tokens import Tokens

# In /ready, of what is left out: enough to see what is the matter; the metric has the number.
MAX_NAMED = 100


def make_app(plane: ControlPlane, tokens: Tokens, certificates: AdminCertificates | None = None) -> FastAPI:
    """`certificates`: of administrators; None where TLS asks for none."""
    app = FastAPI(title="mesh control plane", version="1", docs_url="/docs", redoc_url=None)
    errors.add_to(app)
    app.add_middleware(BoundedBody)
    who = administrator(tokens, certificates)
    _add_health(app, plane)
    inspection.add_to(app, plane, who)
    access.add_tokens(app, plane, tokens, who)
    if certificates is not None:
        access.add_certificates(app, certificates, who)
    access.add_rotation(app, plane, who)
    resources.add_to(app, plane, who)
    openapi.describe(app)
    return app


def _add_health(app: FastAPI, plane: ControlPlane) -> None:
    @app.get("/healthy", tags=["health"])
    async def healthy() -> Status:
        """The process runs."""
        return Status(status="healthy")

    @app.get("/ready", tags=["health"], responses=errors.responses())
    async def ready() -> Any:
        """Whether the store can be read and written, else the reason; and what of it is left out."""
        await asyncio.to_thread(plane.store.generation)
        problem = plane.store.problem
        if problem is not None:
            return errors.body(503, "The store does not answer", problem)
        return Readiness(status="ready", left_out=sorted(plane.left_out.names)[:MAX_NAMED])

    @app.get("/metrics", tags=["health"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(plane.metrics.registry), media_type=CONTENT_TYPE_LATEST)
