"""Errors as JSON, in the form of Kuma: title, detail, and the invalid fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from control.ca.authority import UnusableAuthority
from control.ca.issue import RefusedRequest
from control.ca.rotation import WrongStage
from control.model.documents import UnreadableDocument
from control.model.violation import InvalidResource
from control.rest.proxy_statistics import NoAnswer, NoWay
from control.store.errors import Conflict, NotFound, StoreError
from control.tokens.tokens import InvalidToken, TooManyKeys

_STATUS: dict[type[Exception], tuple[int, str]] = {
    NotFound: (404, "Not found"),
    Conflict: (409, "Conflict"),
    WrongStage: (409, "Not possible now"),
    UnusableAuthority: (409, "CA unusable"),
    NoWay: (409, "Not possible now"),
    NoAnswer: (502, "Proxy unavailable"),
    StoreError: (503, "Store unavailable"),
    UnreadableDocument: (400, "Request body unreadable"),
    RefusedRequest: (400, "Certificate request rejected"),
    TooManyKeys: (429, "Too many"),
    InvalidToken: (401, "Unauthorized"),
}


class InvalidParameter(BaseModel):
    """One error: what is wrong, where it is, and a valid example."""

    field: str
    reason: str
    example: str = ""


class Problem(BaseModel):
    """The form of every response that is not a success."""

    status: int
    title: str
    detail: str
    invalid_parameters: list[InvalidParameter] = Field(default_factory=list)


_WHEN = {
    403: "sent by a page of another site",
    400: "invalid request: the detail says what and where",
    401: "no token or certificate of an administrator, or one that is no longer valid",
    404: "no such resource",
    408: "the body took too long to arrive",
    409: "changed concurrently, or not possible now",
    413: "the body is too large",
    415: "not JSON (or YAML, where accepted), or no matching Content-Type",
    421: "the request is for another host",
    429: "too many signing keys, or too many added within an hour",
    502: "the proxy does not answer, or something else answers at its address",
    503: "the store is unavailable",
}


def responses(*more: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the errors of a route. Every route may respond with some of them."""
    every = {403, 408, 413, 415, 421, 503}
    return {status: {"model": Problem, "description": _WHEN[status]} for status in sorted(every | {*more})}


class _Json(JSONResponse):
    """ASCII-only: a message may repeat text that is not valid UTF-8 (lone surrogates), and must still arrive."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


def body(status: int, title: str, detail: str, **more: Any) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return _Json({"status": status, "title": title, "detail": detail, **more}, status, headers)


def add_to(app: FastAPI) -> None:
    @app.exception_handler(InvalidResource)
    async def invalid(_: Request, error: InvalidResource) -> JSONResponse:
        fields = [{"field": v.path, "reason": v.message, "example": v.example} for v in error.violations]
        return body(400, "Invalid resource", str(error), invalid_parameters=fields)

    @app.exception_handler(RequestValidationError)
    async def request(_: Request, error: RequestValidationError) -> JSONResponse:
        fields = [{"field": _field(e["loc"]), "reason": _reason(e["msg"])} for e in error.errors()]
        detail = "; ".join(f"{field['field']}: {field['reason']}" for field in fields)
        return body(400, "Invalid request", detail, invalid_parameters=fields)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        answer = body(error.status_code, "Not possible", str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        """The server logs the error with its trace; the requester learns nothing about internals."""
        return body(500, "Internal error", "internal error of the control plane: see its log")

    for kind in _STATUS:
        app.add_exception_handler(kind, _ours)


def _field(place: Sequence[str | int]) -> str:
    """The field as the requester knows it: without the part of the request that contains it."""
    return ".".join(str(step) for step in place[1:]) or f"the {place[0] if place else 'request'}"


def _reason(message: str) -> str:
    """pydantic's message as the rest of a sentence that begins with the field."""
    return message.removeprefix("Value error, ").removeprefix("Input ")


async def _ours(_: Request, error: Exception) -> JSONResponse:
    return answer(error)


def answer(error: Exception) -> JSONResponse:
    """The response to an error of a known type."""
    status, title = next(entry for kind, entry in _STATUS.items() if isinstance(error, kind))
    return body(status, title, str(error))
