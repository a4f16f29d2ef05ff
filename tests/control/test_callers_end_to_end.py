"""Whom real Envoys with TLS of their own believe: prefixes at path segments, and nobody who is several."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.ca.authority import Authority, generate, key_usage
from control.xds.encoding.encode import ROUTES, SECRET
from deploy.node.certificates import unsigned, uri_names
from deploy.node.waiting import eventually
from tests.control.live_mesh import Live, live
from tests.control.scene import Read, answer

pytestmark = pytest.mark.envoy

TABLE = json.loads((Path(__file__).parents[1] / "spiffe_matches.json").read_text())
DOMAIN = "default.default.mesh.local"
EVIL, GOOD = f"spiffe://{DOMAIN}/workload/evil", f"spiffe://{DOMAIN}/workload/good"
REFUSED = 403


def permission(**fields: tuple[str, str]) -> str:
    rules = {
        name: [{"spiffeID": {"type": kind.capitalize(), "value": value}}] for name, (kind, value) in fields.items()
    }
    spec = {"rules": [{"default": rules}]}
    return json.dumps({"type": "MeshTrafficPermission", "name": "web-calls", "spec": spec})


def certificate(folder: Path, issuer: Authority, uris: Sequence[str]) -> Path:
    """For either end; it names whatever is wanted. With its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = unsigned(
        x509.Name([]),
        issuer.certificate.subject,
        key.public_key(),
        is_ca=None,
        names=uri_names(uris),
        names_are_critical=True,
    )
    made = builder.add_extension(key_usage(), critical=True).sign(issuer.key, issuer.hash_algorithm)  # type: ignore[arg-type]  # as in issue.py
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "made.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*form))
    return path


def own_authority(scene: Live) -> Authority:
    return scene.running.control_plane.state.identities.issuer("default", "identity")


async def call(scene: Live, *uris: str) -> int:
    """The status of the answer of backend-1 to a caller of these names; 0: the connection is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(certificate(scene.folder, own_authority(scene), uris))
    async with httpx.AsyncClient(verify=context, timeout=30) as client:
        try:
            return (await client.get(f"https://127.0.0.1:{scene.ports.inbound}/")).status_code
        except (httpx.TransportError, ssl.SSLError):
            return 0


async def permit(scene: Live, text: str) -> None:
    """Until backend-1 has acknowledged it."""
    [proxy] = scene.running.control_plane.state.proxies.named("default", "backend-1")
    assert proxy.stream is not None
    routes = proxy.stream.subscriptions[ROUTES]
    before = routes.acked_version
    await scene.running.apply(text)
    await eventually("the routes with the permission", lambda: routes.acked_version != before)


async def test_who_is_let_in(tmp_path: Path, read_resources: Read, envoy_binary: Path) -> None:
    async with live(tmp_path, read_resources, envoy_binary) as scene:
        scene.start()
        await scene.until(200)
        # An exact denial beside a prefix that lets in: both URIs are of ids that the prefix has.
        await permit(scene, permission(allow=("prefix", f"spiffe://{DOMAIN}/"), deny=("exact", EVIL)))
        assert (await call(scene, GOOD), await call(scene, EVIL)) == (200, REFUSED)
        for uris in ((EVIL, GOOD), (GOOD, EVIL), (GOOD, GOOD), (GOOD, "https://x/"), (GOOD, "spiffe://other/x")):
            assert await call(scene, *uris) == REFUSED, uris
        for malformed in (f"{GOOD},x", f"{GOOD}/", f"{GOOD}//x", f"{GOOD}/../evil", f"{GOOD} "):
            assert await call(scene, malformed) == REFUSED, malformed
        # Another trust domain's, first or alone, has no CA here.
        assert await call(scene, "spiffe://other/x", GOOD) == await call(scene, "spiffe://other/x") == 0

        for number, row in enumerate(TABLE):
            kind = "prefix" if "prefix" in row else "exact"
            # With a denial of its own: rows that mean the same would change nothing.
            nobody = f"spiffe://{DOMAIN}/nobody/{number}"
            await permit(scene, permission(allow=(kind, here(row[kind])), deny=("exact", nobody)))
            for spiffe_id in row["fits"]:
                assert await call(scene, here(spiffe_id)) == 200, (row, spiffe_id)
            for spiffe_id in row["not"]:
                assert await call(scene, here(spiffe_id)) in (0, REFUSED), (row, spiffe_id)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    writer.close()


async def test_a_server_is_believed_by_the_cas_of_its_own_trust_domain(
    tmp_path: Path, read_resources: Read, envoy_binary: Path
) -> None:
    """Envoy chooses the CAs by the first URI, and looks for the server's id in all of them."""
    async with live(tmp_path, read_resources, envoy_binary) as scene:
        scene.start()
        await scene.until(200)
        other = generate("other", datetime.now(UTC))
        bundle = [{"type": "Pem", "pem": {"value": other.certificate_pem}}]
        trust = {"type": "MeshTrust", "name": "other", "spec": {"trustDomain": "other", "caBundles": bundle}}
        [proxy] = scene.running.control_plane.state.proxies.named("default", "backend-1")
        assert proxy.stream is not None
        secrets = proxy.stream.subscriptions[SECRET]
        before = secrets.acked_version
        await scene.running.apply(json.dumps(trust))
        await eventually("the other trust domain", lambda: secrets.acked_version != before)
        await scene.until(200)
        scene.stop("backend-1")
        # Whoever stands in its place, at the same port.
        backend = f"spiffe://{DOMAIN}/workload/backend"
        for issuer, uris, wanted in (
            (own_authority(scene), [backend], 200),
            (other, ["spiffe://other/x", backend], 503),
            (other, [backend, "spiffe://other/x"], 503),
            (own_authority(scene), [backend], 200),
        ):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate(scene.folder, issuer, uris))
            server = await asyncio.start_server(serve, "127.0.0.1", scene.ports.inbound, ssl=context)
            assert (await answer(scene.client, scene.ports.call))[0] == wanted, uris
            server.close()
            await server.wait_closed()


def here(text: str) -> str:
    """Of the table, in this mesh: its trust domain `a` is the mesh's."""
    return text.replace("spiffe://a", f"spiffe://{DOMAIN}", 1)
