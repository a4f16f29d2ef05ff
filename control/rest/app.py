"""The application: every path needs an administrator, except health, readiness, metrics and the API's description."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from control.audit import Audit
from control.own_certificates.administrators import AdminCertificates
from control.reconcile.control_plane import ControlPlane
from control.rest import access, errors, inspection, openapi, resources
from control.rest.auditing import Audited
from control.rest.authentication import Authenticator
from control.rest.guard import Api, Guard
from control.rest.limits import BoundedBody
from control.rest.shapes import Readiness, Status
from control.tokens.tokens import Tokens

# Limit for names of left-out resources in /ready: enough to see the problem; the metric has the number.
MAX_NAMED = 100


def make_app(
    control_plane: ControlPlane,
    tokens: Tokens,
    certificates: AdminCertificates | None = None,
    names: Collection[str] = (),
    audit: Audit | None = None,
) -> FastAPI:
    """`certificates`: those of administrators; None if TLS requests none. `names`: host names of the control plane.
    `audit`: None means the server's log."""
    # There is no page about the API: it would be the only page, and the usual ones load scripts from elsewhere.
    app = Api(title="mesh control plane", version="1", docs_url=None, redoc_url=None)
    errors.add_to(app)
    app.add_middleware(BoundedBody)
    # The middleware added last runs first.
    app.add_middleware(Guard, api=app, authenticator=Authenticator(tokens, certificates), names=names)
    app.add_middleware(Audited, audit=audit or Audit())
    _add_health(app, control_plane)
    inspection.add_to(app, control_plane)
    access.add_tokens(app, control_plane, tokens)
    if certificates is not None:
        access.add_certificates(app, certificates)
    access.add_rotation(app, control_plane)
    resources.add_to(app, control_plane)
    openapi.describe(app)
    return app


def _add_health(app: FastAPI, control_plane: ControlPlane) -> None:
    @app.get("/healthy", tags=["health"])
    async def healthy() -> Status:
        """The process runs."""
        return Status(status="healthy")

    @app.get("/ready", tags=["health"], responses=errors.responses())
    async def ready() -> Any:
        """Whether the store can be read and written, else the reason; and which of its resources are left out."""
        await asyncio.to_thread(control_plane.state.store.generation)
        problem = control_plane.state.store.problem
        if problem is not None:
            return errors.body(503, "Store unavailable", problem)
        return Readiness(status="ready", left_out=sorted(control_plane.state.left_out.names)[:MAX_NAMED])

    @app.get("/metrics", tags=["health"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(control_plane.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
