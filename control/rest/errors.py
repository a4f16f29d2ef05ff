"""Errors as JSON, in the form of Kuma: title, detail, and the fields that are wrong."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from control.ca.authority import UnusableAuthority
from control.ca.rotation import WrongStage
from control.model.documents import UnreadableDocument
from control.model.violation import InvalidResource
from control.store.errors import Conflict, NotFound, StoreError
from control.tokens.tokens import InvalidToken

_STATUS: dict[type[Exception], tuple[int, str]] = {
    NotFound: (404, "Not found"),
    Conflict: (409, "Conflict"),
    WrongStage: (409, "Not possible now"),
    UnusableAuthority: (409, "The CA cannot be used"),
    StoreError: (503, "The store does not answer"),
    UnreadableDocument: (400, "Not readable"),
    InvalidToken: (401, "Not let in"),
}


def body(status: int, title: str, detail: str, **more: Any) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"status": status, "title": title, "detail": detail, **more}, status, headers)


def add_to(app: FastAPI) -> None:
    @app.exception_handler(InvalidResource)
    async def invalid(_: Request, error: InvalidResource) -> JSONResponse:
        fields = [{"field": v.path, "reason": v.message, "example": v.example} for v in error.violations]
        return body(400, "Invalid resource", str(error), invalid_parameters=fields)

    @app.exception_handler(RequestValidationError)
    async def request(_: Request, error: RequestValidationError) -> JSONResponse:
        fields = [{"field": ".".join(map(str, e["loc"])), "reason": e["msg"]} for e in error.errors()]
        detail = "; ".join(f"{field['field']}: {field['reason']}" for field in fields)
        return body(400, "Invalid request", detail, invalid_parameters=fields)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return body(error.status_code, "Not possible", str(error.detail))

    for kind in _STATUS:
        app.add_exception_handler(kind, _ours)


async def _ours(_: Request, error: Exception) -> JSONResponse:
    status, title = next(entry for kind, entry in _STATUS.items() if isinstance(error, kind))
    return body(status, title, str(error))
