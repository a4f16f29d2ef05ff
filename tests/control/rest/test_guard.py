"""What no route can forget: who sends a change, from where, and as what; over every route that the application has."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute

from control.kinds import KINDS
from control.own_certificates.administrators import AdminCertificates
from control.reconcile.control_plane import ControlPlane
from control.rest.app import make_app
from control.rest.guard import OPEN
from control.rest.limits import MAX_BODY_BYTES, READS
from control.store.database import StoreKey
from control.store.store import Store
from control.tokens import tokens as of_tokens
from control.tokens.tokens import Tokens, TooManyKeys

JSON = {"content-type": "application/json"}


class Answer:
    def __init__(self) -> None:
        self.status, self.body, self.headers = 0, b"", list[tuple[str, str]]()

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key == name)


class Server:
    """Speaks ASGI, so that it is seen whether a body is asked for."""

    def __init__(self, app: FastAPI, token: str, tokens: Tokens) -> None:
        self.app, self.token, self.tokens = app, token, tokens
        self.asked = 0

    async def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """With the administrator's token and the right host, unless others (or empty ones, for none) are given."""
        sent = {"host": "mesh.example:5682", "authorization": f"Bearer {self.token}", "content-length": str(len(body))}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer, self.asked = Answer(), 0

        async def receive() -> dict[str, Any]:
            self.asked += 1
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [(name.decode().lower(), value.decode()) for name, value in message["headers"]]
            else:
                answer.body += message.get("body", b"")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "https",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 5682),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items() if value],
            "state": {},
        }
        try:
            await self.app(scope, receive, send)
        except ZeroDivisionError:  # for the log; it has been answered
            assert answer.status == 500
        return answer

    def routes(self) -> Iterator[tuple[str, str]]:
        """(method, path) of every route there is, with names in place of parameters."""
        names = {"kind": "node", "key": "1"}
        for route in self.app.routes:
            for method in sorted(methods_of(route)):
                yield method, re.sub(r"{(\w+)}", lambda found: names.get(found[1], "default"), route.path)  # type: ignore[attr-defined]

    def changes(self) -> list[tuple[str, str]]:
        found = [(method, path) for method, path in self.routes() if method not in READS]
        assert {"PUT", "POST", "DELETE"} == {method for method, _ in found}
        assert len(found) > 30
        return found


def methods_of(route: BaseRoute) -> set[str]:
    methods = getattr(route, "methods", None)
    assert methods, f"{route} takes something that is no method, a WebSocket perhaps: it has to be guarded too"
    return set(methods)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    tokens = Tokens(store)
    app = make_app(ControlPlane(store), tokens, AdminCertificates(store), names=["mesh.example"])
    yield Server(app, tokens.issue("admin", 600), tokens)
    store.close()


async def test_nobody_without_credentials_has_a_body_read(server: Server) -> None:
    for method, path in server.routes():
        if path in OPEN:
            continue
        answer = await server(method, path, b"{}", authorization="", **JSON)
        assert (answer.status, server.asked) == (401, 0), (method, path)
    for path in OPEN:
        assert (await server("PUT", path, b"{}", authorization="", **JSON)).status == 401, path
        assert (await server("GET", path, b"x" * 100, authorization="")).status == 200
        assert server.asked <= 1, "of what is read no body is needed"
    assert (await server("PUT", "/no/such/path", b"{}", authorization="", **JSON)).status == 401


async def test_a_page_of_another_site_changes_nothing(server: Server) -> None:
    others = [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://mesh.example:5683"},
        {"origin": "http://mesh.example:5682"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "https://mesh.example:5682"},
    ]
    for method, path in server.changes():
        for headers in others:
            answer = await server(method, path, b"{}", **JSON | headers)
            assert (answer.status, server.asked) == (403, 0), (method, path, headers)


async def test_a_form_changes_nothing(server: Server) -> None:
    forms = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
    odd = ("text/plain; application/json", "application/jsonp", "json", "*/*", "text/html", "")
    for method, path in server.changes():
        for content_type in (*forms, *odd):
            answer = await server(method, path, b"{}", content_type=content_type)
            assert (answer.status, server.asked) == (415, 0), (method, path, content_type)
    for content_type in forms:  # also without a body
        assert (await server("POST", "/tokens/node/keys", content_type=content_type)).status == 415
    assert (await server("POST", "/tokens/node/keys")).status == 415
    assert server.tokens.key_ids("node") == []


async def test_what_may_be_changed_is(server: Server) -> None:
    mesh = b'{"type": "Mesh", "name": "default"}'
    own = {"origin": "https://mesh.example:5682", "sec-fetch-site": "same-origin"}
    assert (await server("PUT", "/meshes/default", mesh, **JSON | own)).status == 201
    for content_type in ("application/yaml", "text/yaml", "application/json; charset=utf-8", "Application/JSON"):
        assert (await server("PUT", "/meshes/default", mesh, content_type=content_type)).status == 200
    assert (await server("POST", "/tokens/node/keys", content_type="application/yaml")).status == 415  # JSON only
    assert (await server("POST", "/tokens/node/keys", b"", **JSON)).status == 200
    same = {"host": "mesh.example", "origin": "https://mesh.example:443"}
    assert (await server("DELETE", "/meshes/default", b"", **same)).status == 200


async def test_a_name_that_is_not_ours_leads_nowhere(server: Server) -> None:
    """A page can have its own name point here, and would then be of the same origin."""
    wrong = (
        "evil.example",
        "mesh.example.evil.example",
        "evil.example:5682",
        "a@mesh.example",
        "",
        "127.0.0.1.evil.example",
    )
    for host in wrong:
        answer = await server("GET", "/meshes", host=host)
        assert answer.status == 421, host
        assert (await server("POST", "/tokens/admin", b"{}", host=host, **JSON)).status == 421
        for path in OPEN:  # probes come by any name
            assert (await server("GET", path, host=host)).status == 200
    for host in ("mesh.example", "MESH.example.", "localhost:1", "127.0.0.1:5682", "[::1]:5682", "10.1.2.3"):
        assert (await server("GET", "/meshes", host=host)).status == 200, host


async def test_every_answer_says_that_it_is_for_no_page_and_no_cache(server: Server) -> None:
    server.app.add_api_route("/fails", lambda: 1 / 0)
    answers = []
    for method, path in (*server.routes(), ("GET", "/none"), ("PATCH", "/meshes"), ("OPTIONS", "/meshes")):
        answers += [await server(method, path, b"", **JSON), await server(method, path, authorization="")]
    fails = await server("GET", "/fails")
    large = await server("PUT", "/meshes/default", b" " * (MAX_BODY_BYTES + 1), **JSON)
    assert (fails.status, large.status) == (500, 413)
    for answer in (*answers, fails, large):
        assert answer.header("cache-control") == "no-store"
        assert "default-src 'none'" in answer.header("content-security-policy")
        assert "frame-ancestors 'none'" in answer.header("content-security-policy")
        assert answer.header("x-content-type-options") == "nosniff"
        assert "html" not in answer.header("content-type")
        assert not [name for name, _ in answer.headers if name.startswith("access-control-")]


async def test_there_is_no_page(server: Server) -> None:
    for path in ("/docs", "/docs/oauth2-redirect", "/redoc", "/"):
        answer = await server("GET", path)
        assert answer.status == 404
        assert b"<script" not in answer.body
    assert b"<script" not in (await server("GET", "/openapi.json")).body


async def test_a_flood_of_signing_keys_is_refused_and_no_token_dies(server: Server) -> None:
    first = server.tokens.issue("node", 600, name="node-1")
    statuses = [(await server("POST", "/tokens/node/keys", b"", **JSON)).status for _ in range(12)]
    assert statuses == [200] * (of_tokens.MAX_NEW_KEYS - 1) + [429] * (13 - of_tokens.MAX_NEW_KEYS)
    assert server.tokens.check(first, "node").name == "node-1"
    # Those that are removed count as well, and no other audience has to wait.
    for key in server.tokens.key_ids("node")[:-1]:
        assert (await server("DELETE", f"/tokens/node/keys/{key}")).status == 200
    refused = await server("POST", "/tokens/node/keys", b"", **JSON)
    assert (refused.status, b"within an hour" in refused.body) == (429, True)
    assert (await server("POST", "/tokens/admin/keys", b"", **JSON)).status == 200


def test_signing_keys_that_are_there_are_bounded(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    now = 2e9
    tokens = Tokens(store, lambda: now)
    for _ in range(of_tokens.MAX_KEYS):
        tokens.add_key("node")
        now += of_tokens.NEW_S
    with pytest.raises(TooManyKeys, match="remove an older one"):
        tokens.add_key("node")
    tokens.remove_key("1", "node")
    assert tokens.add_key("node") == str(of_tokens.MAX_KEYS + 1)
    store.close()
