"""Administrators by client certificate, against a real `mesh serve`: who is let in, what ends it, what it cannot do."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.ca.authority import generate
from control.ca.issue import RefusedRequest
from control.kinds import KINDS
from control.own_certificates.administrators import LONGEST, AdminCertificates
from control.own_certificates.nodes import NodeCertificates, NodeClaims
from control.own_certificates.serving import ServingCertificate
from control.store.database import StoreKey
from control.store.store import Store
from control.tokens.tokens import InvalidToken
from tests.control.mesh_process import ControlPlane


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    running = ControlPlane(tmp_path_factory.mktemp("mesh"))
    running.start()
    yield running
    assert running.stop() == 0


def made(mesh: ControlPlane, folder: Path, *more: str) -> tuple[dict[str, str], str]:
    """(environment for `mesh`, what generating it printed)."""
    certificate, key = folder / "alice.pem", folder / "alice.key"
    files = ["--certificate", str(certificate), "--key", str(key)]
    said = mesh.output("generate", "admin-certificate", "--name", "alice", *files, *more)
    assert key.stat().st_mode & 0o077 == 0
    return {"MESH_CERTIFICATE": str(certificate), "MESH_KEY": str(key), "MESH_TOKEN_FILE": "/none"}, said


def test_a_certificate_does_what_a_token_does_until_it_is_revoked(mesh: ControlPlane, tmp_path: Path) -> None:
    with_certificate, said = made(mesh, tmp_path)
    mesh.output("apply", "-f", "-", stdin="type: Mesh\nname: by-certificate", **with_certificate)
    assert "by-certificate" in mesh.output("get", "meshes", **with_certificate)
    nobody = mesh.run("get", "meshes", MESH_TOKEN_FILE="/none")
    assert (nobody.returncode, "MESH_CERTIFICATE" in nobody.stderr) == (3, True)
    mesh.output("revoke", said.split()[-1])
    revoked = mesh.run("get", "meshes", **with_certificate)
    assert (revoked.returncode, "the certificate was revoked" in revoked.stderr) == (1, True)


def test_a_wrong_token_is_not_made_good_by_a_certificate(mesh: ControlPlane, tmp_path: Path) -> None:
    with_certificate, _ = made(mesh, tmp_path)
    context = ssl.create_default_context(cafile=str(mesh.data / "ca.pem"))
    context.load_cert_chain(with_certificate["MESH_CERTIFICATE"], with_certificate["MESH_KEY"])
    with httpx.Client(base_url=f"https://127.0.0.1:{mesh.api}", verify=context) as client:
        assert client.get("/meshes").status_code == 200
        assert client.get("/meshes", headers={"authorization": "Bearer x"}).status_code == 401
    context = ssl.create_default_context(cafile=str(mesh.data / "ca.pem"))
    with httpx.Client(base_url=f"https://127.0.0.1:{mesh.api}", verify=context) as client:
        # Nor is a header that says so a certificate.
        said = {"x-forwarded-client-cert": Path(with_certificate["MESH_CERTIFICATE"]).read_text().replace("\n", "%0A")}
        assert client.get("/meshes", headers=said).status_code == 401


def test_curl_can_use_it(mesh: ControlPlane, tmp_path: Path) -> None:
    with_certificate, _ = made(mesh, tmp_path)
    command = ["curl", "-sS", "--cacert", str(mesh.data / "ca.pem"), "--cert", with_certificate["MESH_CERTIFICATE"]]
    command += ["--key", with_certificate["MESH_KEY"], f"https://127.0.0.1:{mesh.api}/meshes"]
    assert '"items"' in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_certificates_of_other_cas_do_not_get_through_tls(mesh: ControlPlane, tmp_path: Path) -> None:
    """Neither one of a stranger, nor one of the control plane's other CAs: that for nodes is of another branch."""
    stranger = generate("stranger", datetime.now(UTC))
    pem, key = stranger.to_pem()
    (tmp_path / "stranger.pem").write_text(pem)
    (tmp_path / "stranger.key").write_text(key)
    files = {"MESH_CERTIFICATE": str(tmp_path / "stranger.pem"), "MESH_KEY": str(tmp_path / "stranger.key")}
    refused = mesh.run("get", "meshes", **files)
    assert (refused.returncode, "does not answer" in refused.stderr) == (3, True)


def test_the_last_word_on_lifetimes_and_names(mesh: ControlPlane, tmp_path: Path) -> None:
    files = ["--certificate", str(tmp_path / "c"), "--key", str(tmp_path / "k")]
    for name, valid, says in (
        ("alice", "8760h", "valid for at most 2160h"),
        ("alice", "0s", "at least 1s"),
        ("x" * 65, "1h", "1 to 64 printable"),
        ("a\x1b", "1h", "1 to 64 printable"),
    ):
        refused = mesh.run("generate", "admin-certificate", "--name", name, "--valid-for", valid, *files)
        assert (refused.returncode, says in refused.stderr) == (1, True), refused.stderr
    assert not (tmp_path / "k").exists()


def request() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def test_what_is_no_certificate_of_an_administrator(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    now = [datetime.now(UTC)]
    certificates = AdminCertificates(store, lambda: now[0])
    der = serialization.Encoding.DER
    node = NodeCertificates(store).issue(request(), NodeClaims("alice", "j")).der
    server = x509.load_pem_x509_certificate(ServingCertificate(store, ["127.0.0.1"]).chain_pem.encode())
    authority = x509.load_pem_x509_certificate(certificates.authority.certificate_pem.encode())
    for wrong in (b"nonsense", node, server.public_bytes(der), authority.public_bytes(der)):
        with pytest.raises(InvalidToken, match="not an administrator's certificate"):
            certificates.check(wrong)
    mine = certificates.issue(request(), "alice", timedelta(hours=1))
    shown = x509.load_pem_x509_certificate(mine.pem.encode()).public_bytes(der)
    assert AdminCertificates(store).check(shown).name == "alice", "the CA is kept over a restart"
    now[0] += timedelta(hours=1, seconds=1)
    with pytest.raises(InvalidToken, match="has expired"):
        certificates.check(shown)
    with pytest.raises(RefusedRequest, match="at most"):
        certificates.issue(request(), "alice", LONGEST + timedelta(seconds=1))
    with pytest.raises(RefusedRequest, match="not a certificate request"):
        certificates.issue(b"x", "alice", timedelta(hours=1))
    store.close()
