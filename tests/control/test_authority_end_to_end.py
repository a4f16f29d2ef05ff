"""CAs that end or cannot be used, seen by requests through real Envoys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control.ca.authority import AUTHORITY_LIFETIME, generate
from control.ca.rotation import Event, Rotation, Stage, WrongStage
from control.model.violation import InvalidResource
from control.rest import explain_proxy
from deploy.node.waiting import eventually
from tests.control.live_mesh import PERMISSION, Live, Ports, live, services
from tests.control.resources import MESH_WITH_IDENTITY
from tests.control.scene import Read

pytestmark = pytest.mark.envoy
DOMAIN = "default.default.mesh.local"


@pytest.fixture
async def mesh(tmp_path: Path, read_resources: Read, envoy_binary: Path) -> AsyncIterator[Live]:
    async with live(tmp_path, read_resources, envoy_binary) as scene:
        scene.start()
        await scene.until(200)
        yield scene


def end_the_ca(mesh: Live) -> None:
    """As if its last day had come."""
    store = mesh.running.store
    ended = generate(DOMAIN, datetime.now(UTC) - AUTHORITY_LIFETIME)
    store.put_secret("mesh/default/ca/identity", Rotation(Stage.STABLE, ended).to_json().encode())


async def problems(mesh: Live, name: str) -> str:
    view = await mesh.running.control_plane.views.view("default", fresh=True)
    dataplane = view.get("Dataplane", name)
    assert dataplane is not None
    return "; ".join((await explain_proxy.overview(mesh.running.control_plane, view, dataplane))["problems"])


async def step(mesh: Live, event: Event) -> Rotation:
    """As soon as the proxies are as far."""
    identity = mesh.running.store.get("MeshIdentity", "default", "identity")
    for _ in range(200):
        try:
            return await mesh.running.control_plane.rotations.rotate(identity, event)
        except WrongStage as late:
            last = late
            await asyncio.sleep(0.1)
    raise last


async def test_a_restarted_envoy_gets_its_certificate_while_the_ca_cannot_be_used(mesh: Live) -> None:
    mesh.running.store.put_secret("mesh/default/ca/identity", b"damaged")
    await mesh.running.stop()
    await mesh.running.start()
    mesh.stop("backend-1")
    mesh.start("backend-1")
    await mesh.until(200)
    assert set(await mesh.call(50)) == {200}
    assert "the CA of MeshIdentity identity cannot be used: " in await problems(mesh, "backend-1")
    assert "the proxy keeps its certificate until" in await problems(mesh, "backend-1")
    metrics = mesh.running.control_plane.state.metrics.registry
    await eventually(
        "the metric of failing CAs",
        lambda: metrics.get_sample_value("mesh_ca_failing", {"identity": "default/identity"}) == 1.0,
    )


async def test_a_reset_brings_a_mesh_back_whose_ca_has_ended(mesh: Live) -> None:
    control_plane, identity = mesh.running.control_plane, mesh.running.store.get("MeshIdentity", "default", "identity")
    mesh.stop()
    for name in ("web-1", "backend-1"):
        control_plane.state.identities.forget("default", name)
    end_the_ca(mesh)
    await mesh.running.stop()
    await mesh.running.start()
    control_plane = mesh.running.control_plane
    mesh.start()
    await asyncio.sleep(2)
    assert set(await mesh.call(5)) <= {0, 503}
    assert "expired on" in await problems(mesh, "web-1")
    await control_plane.rotations.rotate(identity, Event.RESET)
    await mesh.until(200)
    assert set(await mesh.call(50)) == {200}
    assert (await step(mesh, Event.RETIRED)).stage is Stage.STABLE
    assert await problems(mesh, "web-1") == ""


async def test_a_mesh_that_is_made_again_at_once_works_at_once(mesh: Live) -> None:
    control_plane = mesh.running.control_plane
    before = control_plane.state.identities.issuer("default", "identity").fingerprint
    mesh.stop()
    for name in ("web-1", "backend-1"):
        await control_plane.changes.delete("Dataplane", "default", name)
    await control_plane.changes.delete("Mesh", "", "default")
    await mesh.running.apply(MESH_WITH_IDENTITY + services(mesh.ports) + "---" + PERMISSION)
    assert control_plane.state.identities.issuer("default", "identity").fingerprint != before
    mesh.start()
    await mesh.until(200)
    assert set(await mesh.call(20)) == {200}


async def test_a_managed_trust_that_is_deleted_is_there_again(mesh: Live) -> None:
    store, control_plane = mesh.running.store, mesh.running.control_plane
    before = store.get("MeshTrust", "default", "identity")
    await control_plane.changes.delete("MeshTrust", "default", "identity")
    assert store.get("MeshTrust", "default", "identity").spec == before.spec
    foreign = generate(DOMAIN, datetime.now(UTC)).certificate_pem
    spec = before.spec.model_copy(
        update={
            "ca_bundles": [
                before.spec.ca_bundles[0].model_copy(update={"pem": type(before.spec.ca_bundles[0].pem)(value=foreign)})
            ]
        }
    )
    await control_plane.changes.put(type(before)(before.kind, "default", "identity", spec, before.labels))
    assert store.get("MeshTrust", "default", "identity").spec == before.spec
    store.delete("MeshTrust", "default", "identity")  # by somebody else
    await eventually("the trust", lambda: store.has("MeshTrust", "default", "identity"))
    assert set(await mesh.call(20)) == {200}


async def test_a_deleted_identity_goes_with_its_ca_its_trust_and_its_certificates(mesh: Live) -> None:
    store, control_plane = mesh.running.store, mesh.running.control_plane
    assert len(store.secret_names("mesh/default/svid/")) == 2
    await control_plane.changes.delete("MeshIdentity", "default", "identity")
    assert store.secret_names("mesh/default/ca/") == []
    await eventually("the trust to go", lambda: not store.has("MeshTrust", "default", "identity"))
    await eventually("the secrets to go", lambda: store.secret_names("mesh/default/svid/") == [])
    await mesh.until(200)  # in plaintext
    assert set(await mesh.call(20)) == {200}


async def test_checks_of_a_rotation_make_no_certificate_and_it_ends(
    tmp_path: Path, read_resources: Read, envoy_binary: Path
) -> None:
    ports = Ports()
    short = MESH_WITH_IDENTITY.replace(
        "bundled: {autogenerate: {enabled: true}}",
        "bundled: {autogenerate: {enabled: true}, certificateParameters: {expiry: 1m}}",
    )
    assert "1m" in short
    async with live(
        tmp_path, read_resources, envoy_binary, short + services(ports) + "---" + PERMISSION, ports
    ) as mesh:
        mesh.start()
        await mesh.until(200)
        control_plane = mesh.running.control_plane
        made = {name: control_plane.state.identities.held("default", name) for name in ("web-1", "backend-1")}
        for event in (Event.BEGIN, Event.DISTRIBUTED, Event.REPLACED, Event.RETIRED):
            await step(mesh, event)
            if event is Event.BEGIN:
                await control_plane.views.view("default", fresh=True)
                now = {name: control_plane.state.identities.held("default", name) for name in made}
                assert now == made, "a check is a look"
        assert set(await mesh.call(20)) == {200}


# --- an identity that cannot be used ---------------------------------------------------------------------------------

PLAIN = "type: Mesh\nname: default\n"
UNUSABLE = """
type: MeshIdentity
name: identity
mesh: default
spec:
  selector: {dataplane: {matchLabels: {}}}
  provider:
    type: Bundled
    bundled:
      ca:
        certificate: {type: File, file: {path: %s/ca.pem}}
        privateKey: {type: File, file: {path: %s/ca.key}}
"""


async def test_an_identity_whose_ca_cannot_be_used_changes_nothing(
    tmp_path: Path, read_resources: Read, envoy_binary: Path
) -> None:
    ports = Ports()
    async with live(tmp_path, read_resources, envoy_binary, PLAIN + services(ports), ports) as mesh:
        mesh.start()
        await mesh.until(200)
        wanted = UNUSABLE % (tmp_path, tmp_path)
        with pytest.raises(InvalidResource, match="cannot be used by the control plane"):
            await mesh.running.apply(wanted)
        # Where the control plane could not tell: another one has stored it, with the files of another host.
        for resource in read_resources(wanted):
            mesh.running.store.put(resource)
        loop = asyncio.get_running_loop()
        end = loop.time() + 6
        seen = await mesh.call_while(lambda: loop.time() < end)
        assert set(seen) == {200}, seen
        assert "MeshIdentity identity has no effect yet, since it has no CA" in await problems(mesh, "web-1")
        # The files come, and so does the identity. (That no request fails meanwhile is another test's.)
        certificate, key = generate(DOMAIN, datetime.now(UTC) - timedelta(minutes=1)).to_pem()
        (tmp_path / "ca.pem").write_text(certificate)
        (tmp_path / "ca.key").write_text(key)
        await mesh.until(403)
        assert await problems(mesh, "web-1") == ""


# --- zones ------------------------------------------------------------------------------------------------------------


async def test_a_label_of_another_zone_does_not_lead_out_of_the_trust_domain(
    tmp_path: Path, read_resources: Read, envoy_binary: Path
) -> None:
    ports = Ports()
    text = MESH_WITH_IDENTITY + services(ports, ", kuma.io/zone: east") + "---" + PERMISSION
    async with live(tmp_path, read_resources, envoy_binary, text, ports) as mesh:
        mesh.start()
        await mesh.until(200)
        assert await problems(mesh, "backend-1") == ""


# --- clocks -----------------------------------------------------------------------------------------------------------

DAY = 24 * 3600


async def test_certificates_of_a_clock_that_was_ahead_are_replaced_within_moments(mesh: Live) -> None:
    running = mesh.running
    right = {name: running.control_plane.state.identities.held("default", name) for name in ("web-1", "backend-1")}
    running.ahead = DAY  # past half of their life: they are renewed
    await eventually(
        "new certificates",
        lambda: all(running.control_plane.state.identities.held("default", n) != held for n, held in right.items()),
    )
    fast = {name: running.control_plane.state.identities.held("default", name) for name in right}
    assert all(held is not None and not held.is_valid(datetime.now(UTC)) for held in fast.values())
    running.ahead = 0
    await eventually(
        "new certificates",
        lambda: all(running.control_plane.state.identities.held("default", n) != held for n, held in fast.items()),
    )
    mesh.stop("backend-1")
    mesh.start("backend-1")
    await mesh.until(200)
    assert set(await mesh.call(20)) == {200}


async def test_an_identity_of_a_clock_that_was_ahead_works_when_the_clock_is_right(
    tmp_path: Path, read_resources: Read, envoy_binary: Path
) -> None:
    ports = Ports()
    async with live(tmp_path, read_resources, envoy_binary, "type: Mesh\nname: default\n", ports) as mesh:
        mesh.running.ahead = 2 * DAY
        await mesh.running.apply(MESH_WITH_IDENTITY + services(ports) + "---" + PERMISSION)
        mesh.start()
        await asyncio.sleep(3)
        assert 200 not in await mesh.call(5)
        mesh.running.ahead = 0
        await mesh.until(200)
        assert set(await mesh.call(20)) == {200}
