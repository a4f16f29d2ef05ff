"""A real daemon joins a real control plane: identities, certificates for keys that stay on the node, trust, rotation.

Traffic of real Envoys with both keys at such a daemon: test_offload_end_to_end.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from control.ca.rotation import Event, Stage, WrongStage
from control.model.resource import Resource
from deploy.node.waiting import eventually
from offload.v1 import admin_pb2, private_key_pb2
from tests.control.offloaded_pair import Ports, offloaded, two_services
from tests.control.scene import Running
from tests.offload.daemon_process import DaemonProcess

ROOT = Path(__file__).parents[2]
BACKEND_ID = "spiffe://default.default.mesh.local/workload/backend"
WEB_ID = "spiffe://default.default.mesh.local/workload/web"


# No proxy runs here: nobody listens on them.
PORTS = Ports(21460, 21461, 21462, 21463, 21464)


def mesh_on_node(socket: Path, key_type: str = "p256") -> str:
    return two_services(PORTS) + offloaded(socket, key_type)


@dataclass
class Joined:
    control_plane: Running
    daemon: DaemonProcess
    folder: Path

    def keys(self) -> admin_pb2.ListKeysResponse:
        with self.daemon.admin() as stub:
            answer: admin_pb2.ListKeysResponse = stub.ListKeys(admin_pb2.ListKeysRequest(), timeout=10)
            return answer

    def identity(self, name: str) -> Any:
        with self.daemon.client() as stub:
            return next(iter(stub.WatchIdentity(private_key_pb2.WatchIdentityRequest(identity=name), timeout=10)))


@pytest.fixture
async def joined(tmp_path: Path, read_resources: Callable[[str], list[Resource]]) -> AsyncIterator[Joined]:
    control_plane, daemon = Running(tmp_path, read_resources), DaemonProcess(tmp_path)
    await control_plane.start()
    await control_plane.apply(mesh_on_node(daemon.socket))
    (tmp_path / "mesh-ca.pem").write_text(control_plane.certificate.ca_pem)
    (tmp_path / "token").write_text(control_plane.tokens.issue("node", 600, name="n1") + "\n")
    mesh = {
        "control_plane": f"127.0.0.1:{control_plane.port}",
        "ca_file": str(tmp_path / "mesh-ca.pem"),
        "token_file": str(tmp_path / "token"),
    }
    daemon.configure(mesh=mesh)
    await asyncio.to_thread(daemon.start)
    yield Joined(control_plane, daemon, tmp_path)
    await asyncio.to_thread(daemon.stop)
    await control_plane.stop()


async def both(joined: Joined) -> list[Any]:
    def there() -> list[Any]:
        identities = list(joined.keys().identities)
        return identities if {i.name for i in identities} == {BACKEND_ID, WEB_ID} else []

    return list(await eventually("both identities", there))


async def test_identities_come_and_keys_stay(joined: Joined) -> None:
    for identity in await both(joined):
        (key,) = identity.keys
        assert key.algorithm == "p256"
        assert list(key.uris) == [identity.name]
        assert key.key_file == "generated on this node"
        assert key.certificate_file == "issuer mesh"
        assert identity.usage == "tls13"
        assert list(identity.selectors) == [f"uid {os.getuid()}"]
        assert key.not_before < key.renew_at < key.not_after
    identity = await asyncio.to_thread(joined.identity, BACKEND_ID)
    assert [bundle.trust_domain for bundle in identity.trust_bundles] == ["default.default.mesh.local"]
    leaf = x509.load_der_x509_certificate(identity.credentials[0].certificate_chain[0])
    leaf.verify_directly_issued_by(x509.load_der_x509_certificate(identity.trust_bundles[0].authorities[0]))
    assert joined.daemon.events("connected to the control plane")
    await eventually(
        "the daemon's word", lambda: [s.applied_version for s in joined.control_plane.nodes.sessions("n1")] != [""]
    )
    assert not (joined.folder / "keys").exists(), "nothing was written"


@pytest.mark.slow(seconds=11)
async def test_changes_follow(joined: Joined) -> None:
    await both(joined)
    await joined.control_plane.apply(mesh_on_node(joined.daemon.socket, "rsa2048"))
    await eventually("RSA keys", lambda: {k.algorithm for i in joined.keys().identities for k in i.keys} == {"rsa2048"})
    await joined.control_plane.control_plane.changes.delete("Dataplane", "default", "web-1")
    await eventually("one identity less", lambda: [i.name for i in joined.keys().identities] == [BACKEND_ID])


async def test_a_wait_that_no_policy_sets_is_the_nodes_own_and_status_says_who_set_it(joined: Joined) -> None:
    def limits() -> Any:
        with joined.daemon.admin() as stub:
            return stub.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=10).limits

    await both(joined)
    now = await asyncio.to_thread(limits)
    assert (now.max_wait_us, now.max_wait_set_by) == (1000, "data_plane.max_wait_us")
    assert (now.queue_limit > 0, now.queue_limit_set_by) == (True, "data_plane.queue_limit")
    policy = f"{{mode: Offload, socket: {joined.daemon.socket}, batch: {{maxWaitUs: 0, maxQueue: 100}}}}"
    await joined.control_plane.apply(f"type: MeshOffload\nname: all\nspec: {{default: {policy}}}")
    await eventually("the policy's wait", lambda: limits().max_wait_us == 0)
    now = await asyncio.to_thread(limits)
    assert now.max_wait_set_by.startswith("MeshOffload, for spiffe://")
    assert (now.queue_limit, now.queue_limit_set_by.partition(",")[0]) == (100, "MeshOffload")


async def test_what_the_node_cannot_do_is_said(joined: Joined) -> None:
    await both(joined)
    await joined.control_plane.apply(mesh_on_node(Path("/run/somewhere/else.sock")))
    await eventually("the daemon's word", lambda: any(s.problems for s in joined.control_plane.nodes.sessions("n1")))
    (session,) = joined.control_plane.nodes.sessions("n1")
    assert all("/run/somewhere/else.sock is not one of this daemon's" in problem for problem in session.problems)
    assert not await joined.control_plane.nodes.has_bundle("n1"), "a version with problems does not count"
    await eventually("nothing is served", lambda: not joined.keys().identities)


async def test_the_control_plane_goes_and_comes_back(joined: Joined) -> None:
    before = {i.name: i.version for i in await both(joined)}
    await joined.control_plane.stop()
    await eventually(
        "the daemon to notice", lambda: joined.daemon.events("not connected to the control plane; " + STAYS)
    )
    assert {i.name: i.version for i in joined.keys().identities} == before, "what is in force stays"
    await joined.control_plane.start()
    await eventually("the daemon again", lambda: joined.control_plane.nodes.sessions("n1"))
    await eventually("its word", lambda: [s.applied_version for s in joined.control_plane.nodes.sessions("n1")] != [""])
    assert {i.name: i.version for i in joined.keys().identities} == before, "and there was nothing to renew"


STAYS = "the current state stays in force"


@pytest.mark.slow(seconds=2)
async def test_a_bad_token_is_said_plainly(joined: Joined) -> None:
    (joined.folder / "token").write_text("nonsense")
    await joined.control_plane.stop()
    await joined.control_plane.start()

    def refused() -> bool:
        events = joined.daemon.events("not connected to the control plane; " + STAYS)
        return any("rejects the node token" in event["reason"] for event in events)

    await eventually("the refusal", refused)
    token = joined.control_plane.tokens.issue("node", 600, name="n1")
    (joined.folder / "token").write_text(token)
    await eventually("the daemon with a good token", lambda: joined.control_plane.nodes.sessions("n1"))


async def test_a_ca_rotation_reaches_the_node(joined: Joined) -> None:
    await both(joined)
    store, identities = joined.control_plane.store, joined.control_plane.control_plane.state.identities
    resource = store.get("MeshIdentity", "default", "identity")
    before = await asyncio.to_thread(joined.identity, BACKEND_ID)
    await joined.control_plane.control_plane.rotations.rotate(resource, Event.BEGIN)
    await eventually("both CAs", lambda: len(joined.identity(BACKEND_ID).trust_bundles[0].authorities) == 2)

    async def step(event: Event) -> None:
        for _ in range(200):
            try:
                await joined.control_plane.control_plane.rotations.rotate(resource, event)
                return
            except WrongStage as error:  # which names who is late
                last = error
                await asyncio.sleep(0.1)
        raise AssertionError(f"not ready: {last}")

    await step(Event.DISTRIBUTED)

    def renewed() -> bool:
        now = joined.identity(BACKEND_ID).credentials[0]
        leaf = x509.load_der_x509_certificate(now.certificate_chain[0])
        current = identities.authorities.rotation(resource).issuer.certificate
        return bool(now.key_id != before.credentials[0].key_id and leaf.issuer == current.subject)

    await eventually("certificates of the new CA", renewed)
    await step(Event.REPLACED)
    await eventually("one CA", lambda: len(joined.identity(BACKEND_ID).trust_bundles[0].authorities) == 1)
    await step(Event.RETIRED)
    assert identities.authorities.rotation(resource).stage is Stage.STABLE
