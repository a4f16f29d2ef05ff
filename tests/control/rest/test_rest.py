"""The REST API: resources with versions and pages, who is let in, tokens, inspection, rotation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.kinds import KINDS
from control.model.resource import Resource
from control.reconcile.control_plane import ControlPlane
from control.rest.app import make_app
from control.rest.guard import OPEN
from control.rest.limits import MAX_BODY_BYTES
from control.store.database import StoreKey
from control.store.store import Store
from control.tokens.tokens import Claims, Kind, Tokens

Read = Callable[[str], list[Resource]]
DATAPLANE = {"type": "Dataplane", "name": "web-1", "mesh": "default", "spec": {"networking": {"address": "10.0.0.1"}}}
PATH = "/meshes/default/dataplanes/web-1"
YAML = {"content-type": "application/yaml"}


class Api:
    def __init__(self, client: httpx.AsyncClient, control_plane: ControlPlane, tokens: Tokens) -> None:
        self.client, self.control_plane, self.tokens = client, control_plane, tokens

    async def __call__(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        json = {} if method in ("GET", "DELETE") else {"content-type": "application/json"}  # also of an empty body
        response = await self.client.request(method, path, json=body, headers=json | headers)
        return response.status_code, response.json()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    control_plane, tokens = ControlPlane(store), Tokens(store)
    running = asyncio.create_task(control_plane.run())
    headers = {"authorization": f"Bearer {tokens.issue('admin', 600)}"}
    transport = httpx.ASGITransport(make_app(control_plane, tokens, names=["mesh"]), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://mesh", headers=headers) as client:
        api = Api(client, control_plane, tokens)
        assert (await api("PUT", "/meshes/default", {"type": "Mesh", "name": "default"}))[0] == 201
        yield api
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()


async def test_a_resource_is_made_read_changed_and_deleted(api: Api) -> None:
    status, made = await api("PUT", PATH, DATAPLANE)
    assert (status, made["version"], made["name"]) == (201, 1, "web-1")
    assert await api("GET", PATH) == (200, made)
    assert await api("PUT", PATH, made) == (200, made)  # what was read may be written again
    changed = {**DATAPLANE, "labels": {"app": "web"}}
    assert (await api("PUT", PATH, changed, **{"If-Match": '"1"'}))[1]["version"] == 2
    status, error = await api("PUT", PATH, changed | {"labels": {}}, **{"If-Match": '"1"'})
    assert (status, error["title"], "is at version 2, not at 1" in error["detail"]) == (409, "Conflict", True)
    assert (await api("PUT", PATH, changed, **{"If-None-Match": "*"}))[0] == 409
    assert (await api("PUT", PATH, changed, **{"If-Match": "x"}))[0] == 400
    assert await api("DELETE", PATH) == (200, {"status": "deleted"})
    assert (await api("GET", PATH))[0] == 404
    assert (await api("DELETE", PATH))[0] == 404


async def test_pages(api: Api) -> None:
    for number in range(5):
        name = f"d{number}"
        assert (await api("PUT", f"/meshes/default/dataplanes/{name}", DATAPLANE | {"name": name}))[0] == 201
    _, first = await api("GET", "/meshes/default/dataplanes?size=2")
    assert ([item["name"] for item in first["items"]], first["next"]) == (["d0", "d1"], "d1")
    _, last = await api("GET", "/meshes/default/dataplanes?size=3&after=d1")
    assert ([item["name"] for item in last["items"]], last["next"]) == (["d2", "d3", "d4"], None)
    assert (await api("GET", "/meshes/default/dataplanes?size=0"))[0] == 400
    assert [mesh["name"] for mesh in (await api("GET", "/meshes"))[1]["items"]] == ["default"]


async def test_errors_say_the_field_and_an_example(api: Api) -> None:
    status, error = await api("PUT", PATH, DATAPLANE | {"spec": {"networking": {"address": "x y"}}})
    assert status == 400
    assert error["invalid_parameters"] == [
        {
            "field": "spec.networking.address",
            "reason": "must be an IP address or a domain name; got 'x y'",
            "example": "10.0.0.5",
        }
    ]
    assert (await api("PUT", PATH, DATAPLANE | {"name": "other"}))[0] == 400
    assert (await api("PUT", PATH, [1]))[0] == 400
    response = await api.client.put(PATH, content=b"a: [", headers=YAML)
    assert (response.status_code, response.json()["title"]) == (400, "Request body unreadable")
    assert (await api.client.put(PATH, content=b"", headers=YAML)).status_code == 400
    assert (await api("GET", "/meshes/default/pods"))[1]["detail"].startswith("there are no pods; there are dataplanes")
    assert (await api("PUT", "/meshes/none/dataplanes/web-1", DATAPLANE | {"mesh": "none"}))[0] == 409


async def test_nobody_without_a_token(api: Api) -> None:
    expired, revoked = (f"Bearer {api.tokens.issue('admin', seconds)}" for seconds in (-1, 60))
    api.tokens.revoke(revoked.removeprefix("Bearer "))
    paths = [("GET", "/meshes"), ("PUT", PATH), ("DELETE", PATH), ("POST", "/tokens/admin"), ("GET", PATH + "/_xds")]
    for method, path in paths:
        for token in ("", "Bearer x", f"Bearer {api.tokens.issue('node', 60)}", "Basic x", expired, revoked):
            status, error = await api(method, path, authorization=token)
            assert (status, error["title"]) == (401, "Unauthorized"), (method, path, token)
    for path in ("/healthy", "/ready", "/metrics", "/openapi.json"):
        assert (await api.client.get(path, headers={"authorization": ""})).status_code == 200


async def test_tokens(api: Api) -> None:
    status, issued = await api("POST", "/tokens/dataplane", {"mesh": "default", "name": "web-1", "validFor": "10m"})
    assert status == 200
    assert api.tokens.check(issued["token"], "dataplane", "default").name == "web-1"
    assert (await api("POST", "/tokens/revocations", {"token": issued["token"]}))[0] == 200
    with pytest.raises(Exception, match="revoked"):
        api.tokens.check(issued["token"], "dataplane", "default")
    for wrong in ({}, {"mesh": "default", "validFor": "long"}, {"mesh": "default", "validFor": "0s"}, {"x": 1}):
        assert (await api("POST", "/tokens/dataplane", wrong))[0] == 400
    assert (await api("POST", "/tokens/node", {"mesh": "default"}))[0] == 400
    assert (await api("POST", "/tokens/other", {}))[0] == 400
    assert (await api("POST", "/tokens/node/keys"))[1] == {"key": "1"}
    assert (await api("POST", "/tokens/node/keys"))[1] == {"key": "2"}
    assert (await api("DELETE", "/tokens/node/keys/2"))[0] == 409
    assert (await api("DELETE", "/tokens/node/keys/1"))[0] == 200
    assert (await api("GET", "/tokens/node/keys"))[1] == {"keys": ["2"]}


IDENTITY = {
    "type": "MeshIdentity",
    "name": "identity",
    "mesh": "default",
    "spec": {
        "selector": {"dataplane": {"matchLabels": {"app": "web"}}},
        "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": True}}},
    },
}


async def test_inspection(api: Api) -> None:
    await api("PUT", "/meshes/default/meshidentities/identity", IDENTITY)
    labels = {"app": "web", "kuma.io/workload": "web"}
    networking = {"address": "10.0.0.1", "inbound": [{"port": 80, "servicePort": 8080, "name": "http"}]}
    await api("PUT", PATH, DATAPLANE | {"labels": labels, "spec": {"networking": networking}})
    allow = [{"spiffeID": {"type": "Exact", "value": "spiffe://a/b"}}]
    permission = {"type": "MeshTrafficPermission", "name": "p", "mesh": "default"}
    permission["spec"] = {"rules": [{"default": {"allow": allow}}]}  # type: ignore[assignment]
    assert (await api("PUT", "/meshes/default/meshtrafficpermissions/p", permission))[0] == 201
    _, overview = await api("GET", PATH + "/_overview")
    assert overview["spiffeID"] == "spiffe://default.default.mesh.local/workload/web"
    assert (overview["connections"], overview["problems"]) == ([], [])
    _, policies = await api("GET", PATH + "/_policies")
    assert [entry["type"] for entry in policies] == ["MeshTrafficPermission"]
    _, xds = await api("GET", PATH + "/_xds")
    assert [listener["name"] for listener in xds["listeners"]] == ["self_inbound_http"]
    for caller, allowed in (("spiffe://a/b", True), ("spiffe://a/c", False)):
        _, access = await api("GET", PATH + "/_access?caller=" + caller)
        assert (access[0]["inbound"], access[0]["allowed"]) == ("http", allowed)
    assert (await api("GET", "/meshes/default/dataplanes/none/_xds"))[0] == 404


async def test_rotation(api: Api) -> None:
    await api("PUT", "/meshes/default/meshidentities/identity", IDENTITY)
    path = "/meshes/default/meshidentities/identity/rotation"
    _, before = await api("GET", path)
    assert (before["stage"], len(before["bundle"])) == ("Stable", 1)
    status, begun = await api("POST", path, {"action": "begin"})
    assert (status, begun["stage"], len(begun["bundle"]), begun["issuer"]) == (200, "Distributing", 2, before["issuer"])
    _, trust = await api("GET", "/meshes/default/meshtrusts/identity")
    assert len(trust["spec"]["caBundles"]) == 2
    await api("PUT", PATH, DATAPLANE | {"labels": {"app": "web", "kuma.io/workload": "web"}})
    status, error = await api("POST", path, {"action": "distributed"})
    assert (status, "some proxies have not reached this stage: web-1" in error["detail"]) == (409, True)
    await api("DELETE", PATH)
    for action, stage in (("distributed", "Issuing"), ("replaced", "Retiring"), ("retired", "Stable")):
        status, now = await api("POST", path, {"action": action})
        assert (status, now["stage"]) == (200, stage)
    assert now["issuer"] != before["issuer"]
    assert (await api("POST", path, {"action": "retired"}))[0] == 409


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
words = st.sampled_from(["type", "name", "mesh", "labels", "spec", "networking", "inbound", "to", "rules", "default"])
shaped = st.recursive(
    documents | st.sampled_from([kind.type for kind in KINDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.slow(seconds=5)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=shaped, kind=st.sampled_from(list(KINDS)), specific=shaped)
async def test_no_body_makes_it_fail(api: Api, body: object, kind: Any, specific: object) -> None:
    """Whatever is sent, the answer is a refusal with a reason (or it is taken), never a failure of the server."""
    for document in (body, {"type": kind.type, "name": "a", "mesh": "default", "spec": specific}):
        path = "/meshes/a" if kind.type == "Mesh" else f"/meshes/default/{kind.plural}/a"
        status, answer = await api("PUT", path, document)
        assert status in (200, 201, 400, 409), answer


# --- what the outside can send ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["²", "9" * 5000, '"1', "W/x", "-1", "*"])
async def test_an_if_match_that_is_no_version_is_refused(api: Api, version: str) -> None:
    await api("PUT", PATH, DATAPLANE)
    sent = version.encode("latin-1")
    response = await api.client.put(PATH, json=DATAPLANE, headers=[(b"If-Match", sent)])
    if version == '"1':  # one quote is forgiven
        assert response.status_code == 200
    else:
        assert (response.status_code, "If-Match is the version" in response.json()["detail"]) == (400, True)


async def test_tokens_of_strangers_keep_nobody_else_waiting(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than there are shared threads: what needs such a thread is answered meanwhile."""
    checked, go = api.tokens.check, threading.Event()

    def slow(token: str, kind: Kind) -> Claims:
        go.wait(60)
        return checked(token, kind)

    monkeypatch.setattr(api.tokens, "check", slow)
    wrong = {"authorization": "Bearer wrong"}
    strangers = [asyncio.create_task(api.client.get("/meshes", headers=wrong)) for _ in range(100)]
    try:
        assert (await asyncio.wait_for(api.client.get("/ready"), 30)).status_code == 200
        assert not any(task.done() for task in strangers)
    finally:
        go.set()
    assert {answer.status_code for answer in await asyncio.gather(*strangers)} == {401}


async def test_deleting_can_be_conditional(api: Api) -> None:
    await api("PUT", PATH, DATAPLANE)
    status, error = await api("DELETE", PATH, **{"If-Match": '"7"'})
    assert (status, "is at version 1, not at 7" in error["detail"]) == (409, True)
    assert (await api("DELETE", PATH, **{"If-Match": '"1"'}))[0] == 200
    assert (await api("DELETE", PATH, **{"If-Match": '"1"'}))[0] == 404


async def test_text_that_is_no_unicode_comes_back_as_a_refusal(api: Api) -> None:
    for body in (b'{"type": "\\ud800", "name": "\\udfff"}', b'{"type": "Dataplane", "name": "a", "\\ud800": 1}'):
        response = await api.client.put(PATH, content=body, headers=YAML)
        assert (response.status_code, response.json()["title"]) == (400, "Invalid resource")


@pytest.mark.parametrize("number", ['"1e999999"', "9" * 4000, '"٣"', '"1_0"', "1" + "0" * 12])
async def test_numbers_that_would_be_endless_are_refused(api: Api, number: str) -> None:
    balancer = f'{{"type": "LeastRequest", "leastRequest": {{"activeRequestBias": {number}}}}}'
    spec = f'{{"to": [{{"targetRef": {{"kind": "Mesh"}}, "default": {{"loadBalancer": {balancer}}}}}]}}'
    body = f'{{"type": "MeshLoadBalancingStrategy", "name": "a", "spec": {spec}}}'
    path = "/meshes/default/meshloadbalancingstrategies/a"
    response = await api.client.put(path, content=body.encode(), headers=YAML)
    assert (response.status_code, "must be a number from 0 to" in response.json()["detail"]) == (400, True)
    assert len(response.content) < 2000


async def test_a_body_is_bounded(api: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        sent = 0
        while True:
            sent += 65536
            assert sent < 3 * MAX_BODY_BYTES, "it is read to the end"
            yield b"x" * 65536

    for path, method in ((PATH, "PUT"), ("/tokens/admin", "POST")):
        headers = {"content-type": "application/json"}
        response = await api.client.request(method, path, content=endless(), headers=headers)
        assert (response.status_code, response.json()["title"]) == (413, "Request too large")


async def test_tokens_are_for_meshes_that_are_there(api: Api) -> None:
    assert (await api("POST", "/tokens/dataplane", {"mesh": "none"}))[0] == 404
    for method in ("GET", "POST"):
        assert (await api(method, "/tokens/dataplane/keys?mesh=none"))[0] == 404
        assert (await api(method, "/tokens/dataplane/keys"))[0] == 400
        assert (await api(method, "/tokens/node/keys?mesh=default"))[0] == 400
    assert api.control_plane.state.store.secret_names("mesh/none/") == []


async def test_a_fault_of_ours_is_said_without_the_inside(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.control_plane.state.store, "read", lambda *_: 1 / 0)
    status, error = await api("GET", "/meshes")
    assert (status, error["title"], "division" in str(error)) == (500, "Internal error", False)


async def test_the_description_has_every_kind_with_its_fields(api: Api) -> None:
    found = (await api("GET", "/openapi.json"))[1]
    for kind in KINDS:
        path = f"/meshes/{{mesh}}/{kind.plural}/{{name}}" if kind.in_mesh else "/meshes/{name}"
        assert {"get", "put", "delete"} == found["paths"][path].keys()
        schema = found["paths"][path]["put"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{kind.type}"}
        assert found["components"]["schemas"][kind.type]["properties"]["type"] == {"const": kind.type}
    for path, operations in found["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path not in OPEN), path
            assert "422" not in operation["responses"]
