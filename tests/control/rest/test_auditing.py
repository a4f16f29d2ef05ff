"""Every route that may change something is a line of the audit log; the table of routes is the application's own."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from control.audit import Audit
from control.cli.certificate_request import make_request
from control.kinds import KINDS
from control.own_certificates.administrators import AdminCertificates
from control.reconcile.control_plane import ControlPlane
from control.rest.app import make_app
from control.rest.auditing import UNTOLD
from control.rest.limits import READS
from control.store.database import StoreKey
from control.store.store import Store
from control.tokens.tokens import Tokens

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/tokens/revocations"): {"token": "blah", "reason": "lost"},
    ("POST", "/tokens/{kind}"): {"name": "n1"},
    ("POST", "/certificates/admin"): {"name": "bob", "request": make_request()[1]},
    ("POST", "/meshes/{mesh}/meshidentities/{name}/rotation"): {"action": "begin"},
}
VALUES = {"mesh": "default", "name": "some-name", "kind": "node", "kinds": "pods", "key": "1"}


class Audited:
    def __init__(self, folder: Path) -> None:
        self.store = Store(f"sqlite:///{folder}/mesh.db", StoreKey(file=folder / "key"), KINDS)
        self.tokens, self.file = Tokens(self.store), folder / "audit.log"
        self.audit = Audit(self.file)
        certificates = AdminCertificates(self.store)
        self.app = make_app(ControlPlane(self.store), self.tokens, certificates, ["mesh"], self.audit)
        self.mine = self.tokens.make("admin", 600, name="alice")

    async def __call__(self, method: str, path: str, body: object = None, token: str | None = None) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=("10.1.2.3", 44))
        headers = {"authorization": f"Bearer {self.mine.token if token is None else token}"}
        async with httpx.AsyncClient(transport=transport, base_url="https://mesh", headers=headers) as client:
            return await client.request(method, path, json=body)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Audited]:
    made = Audited(tmp_path)
    yield made
    made.audit.close()
    made.store.close()


def changing(app: FastAPI) -> list[tuple[str, str]]:
    routes = [route for route in app.routes if isinstance(route, Route)]
    found = [(method, route.path) for route in routes for method in sorted(route.methods or ())]
    return [(method, path) for method, path in found if method not in READS]


async def test_every_changing_route_tells_what_it_does(api: Audited) -> None:
    routes = changing(api.app)
    assert len(routes) > 2 * len(list(KINDS)), "put and delete of each kind, and more"
    for method, template in routes:
        before = len(api.lines())
        path = re.sub(r"\{(\w+)\}", lambda found: VALUES[found[1]], template)
        answer = await api(method, path, BODIES.get((method, template), {}))
        [line] = api.lines()[before:]
        assert line["event"] != UNTOLD, f"{method} {template} does not tell the audit log what it does"
        assert line["by"] == {"kind": "token", "name": "alice", "id": api.mine.claims.jti}
        assert line["from"] == "10.1.2.3:44"
        assert (line["request"], line["status"]) == (f"{method} {path}", answer.status_code)


async def test_reading_is_no_line(api: Audited) -> None:
    for route in api.app.routes:
        if isinstance(route, Route) and "GET" in (route.methods or ()):
            await api("GET", re.sub(r"\{(\w+)\}", lambda found: VALUES[found[1]], route.path))
    assert api.lines() == []


def without_frame(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in ("time", "by", "from", "request")}


async def test_what_is_told_of_each(api: Audited) -> None:
    mesh = {"type": "Mesh", "name": "default"}
    await api("PUT", "/meshes/default", mesh)
    await api("DELETE", "/meshes/none")
    token = (await api("POST", "/tokens/node", {"name": "n1", "validFor": "10m"})).json()["token"]
    claims = api.tokens.check(token, "node")
    labelled = {"mesh": "default", "labels": {"app": "web"}}
    await api("POST", "/tokens/dataplane", labelled)
    await api("POST", "/tokens/revocations", {"token": token, "reason": "lost\nlaptop"})
    await api("POST", "/tokens/revocations", {"token": "blah"})
    await api("POST", "/tokens/node/keys", {})
    await api("DELETE", "/tokens/node/keys/1")
    key_pem, request = make_request()
    made = (await api("POST", "/certificates/admin", {"name": "bob", "request": request, "validFor": "1h"})).json()
    found = [without_frame(line) for line in api.lines()]
    issued, labels, certificate = found[2], found[3], found[8]
    assert found[0] == {
        "event": "resource_stored", "status": 201, "type": "Mesh", "mesh": "", "name": "default", "version": 1
    }  # fmt: skip
    assert found[1] == {"event": "resource_deleted", "status": 404, "type": "Mesh", "mesh": "", "name": "none"}
    assert (issued["event"], issued["kind"], issued["name"], issued["id"]) == ("token_issued", "node", "n1", claims.jti)
    assert (issued["valid_for"], issued["until"][:4].isdigit()) == ("10m", True)
    assert (labels["labels"], labels["mesh"]) == ({"app": "web"}, "default")
    assert found[4] == {
        "event": "token_revoked", "status": 200, "id": claims.jti, "what": "node token of 'n1'",
        "reason": "lost\nlaptop", "forced": False,
    }  # fmt: skip
    assert found[5] == {"event": "token_revoked", "status": 400, "reason": "", "forced": False}
    assert found[6] == {"event": "signing_key_added", "status": 200, "kind": "node", "mesh": "", "key": "2"}
    assert found[7] == {"event": "signing_key_removed", "status": 200, "kind": "node", "mesh": "", "key": "1"}
    assert (certificate["event"], certificate["name"], certificate["id"]) == ("certificate_issued", "bob", made["jti"])
    text = api.file.read_text()
    for secret in (token, api.mine.token, *token.split("."), *key_pem.splitlines()[1:-1]):
        assert secret not in text


async def test_who_is_not_let_in_is_written_too(api: Audited) -> None:
    assert (await api("PUT", "/meshes/default", {}, token="x")).status_code == 401
    [line] = api.lines()
    assert (line["by"], line["status"], line["request"]) == (None, 401, "PUT /meshes/default")
    assert (await api("PATCH", "/meshes/default", {})).status_code == 405
    assert api.lines()[-1]["status"] == 405
