"""Issuers, and what is done with what they give."""

from __future__ import annotations

import datetime
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.node.waiting import wait_for
from offload._dataplane import Key
from offload.config.issuers import ExecProgram, LocalCa
from offload.issuing.exec_program import ExecIssuer
from offload.issuing.issuer import IssuerError, Wanted, check
from offload.issuing.local_ca import LocalCaIssuer
from tests.offload.key_files import Authority, key_pem

CART = "spiffe://mesh.test/ns/shop/sa/cart"
WANTED = Wanted(CART, (CART,), ("cart.test",))


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture
def local_ca(tmp_path: Path) -> LocalCa:
    return write_ca(tmp_path, Authority.make())


def write_ca(folder: Path, authority: Authority, *more: Authority) -> LocalCa:
    (folder / "ca.crt").write_bytes(authority.pem + b"".join(one.pem for one in more))
    (folder / "ca.key").write_bytes(key_pem(authority.key))
    return LocalCa(certificate=folder / "ca.crt", key=folder / "ca.key", lifetime_hours=1)


def program(tmp_path: Path, text: str, seconds: float = 20) -> ExecIssuer:
    file = tmp_path / "certify"
    file.write_text(f"#!{sys.executable}\n{text}")
    file.chmod(0o700)
    return ExecIssuer(ExecProgram(command=(str(file),), timeout_seconds=seconds))


# ---- local_ca ----


@pytest.mark.parametrize("algorithm", ["p256", "p384", "ed25519", "rsa2048"])
def test_an_svid(local_ca: LocalCa, algorithm: str) -> None:
    key = Key.generate(algorithm)
    request = key.certificate_request(WANTED.uris, WANTED.dns_names)
    issued = LocalCaIssuer(local_ca).issue(request, WANTED)
    chain = check(issued.chain, key.key_id, WANTED, now())
    assert chain.uris == (CART,)
    assert chain.dns_names == ("cart.test",)
    leaf = x509.load_der_x509_certificate(issued.chain[0])
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(local_ca.certificate.read_bytes()))
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(purposes)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= datetime.timedelta(hours=1, minutes=2)


def test_an_intermediate_ca_brings_its_chain(tmp_path: Path) -> None:
    root = Authority.make("root")
    between = Authority.make("between", root)
    settings = write_ca(tmp_path, between, root)
    key = Key.generate("p256")
    issued = LocalCaIssuer(settings).issue(key.certificate_request(WANTED.uris, WANTED.dns_names), WANTED)
    assert [x509.load_der_x509_certificate(der).issuer.rfc4514_string() for der in issued.chain] == [
        "CN=between",
        "CN=root",
    ], "the root itself stays away"


def test_files_that_are_no_ca(local_ca: LocalCa, tmp_path: Path) -> None:
    request = Key.generate("p256").certificate_request(WANTED.uris, WANTED.dns_names)
    for file, content, reason in (
        (local_ca.key, key_pem(Authority.make().key), "is not the key of"),
        (local_ca.key, b"nonsense", "is not an unencrypted private key"),
        (local_ca.certificate, b"nonsense", str(local_ca.certificate)),
    ):
        before = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(IssuerError, match=reason):
            LocalCaIssuer(local_ca).issue(request, WANTED)
        file.write_bytes(before)
    missing = LocalCa(certificate=tmp_path / "none", key=local_ca.key)
    with pytest.raises(IssuerError, match="No such file"):
        LocalCaIssuer(missing).issue(request, WANTED)
    with pytest.raises(IssuerError, match="cannot be parsed"):
        LocalCaIssuer(local_ca).issue(b"nonsense", WANTED)


# ---- exec ----

CERTIFY = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from offload.config.issuers import LocalCa
from offload.issuing.issuer import Wanted
from offload.issuing.local_ca import LocalCaIssuer
csr = x509.load_pem_x509_csr(sys.stdin.buffer.read()).public_bytes(Encoding.DER)
wanted = Wanted(os.environ["OFFLOAD_IDENTITY"], tuple(os.environ["OFFLOAD_URIS"].split()),
                tuple(os.environ["OFFLOAD_DNS_NAMES"].split()))
ca = LocalCa(certificate=Path({certificate!r}), key=Path({key!r}))
for der in LocalCaIssuer(ca).issue(csr, wanted).chain:
    print(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode())
"""
ROOT = str(Path(__file__).resolve().parents[3])


def test_a_program(local_ca: LocalCa, tmp_path: Path) -> None:
    text = CERTIFY.format(root=ROOT, certificate=str(local_ca.certificate), key=str(local_ca.key))
    key = Key.generate("p256")
    issued = program(tmp_path, text).issue(key.certificate_request(WANTED.uris, WANTED.dns_names), WANTED)
    assert check(issued.chain, key.key_id, WANTED, now()).uris == (CART,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import sys; print('no such profile', file=sys.stderr); sys.exit(3)", "status 3: no such profile"),
        ("import os; os._exit(1)", "status 1: no output"),
        ("print('nonsense')", "printed no PEM certificates"),
        ("", "printed no PEM certificates"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "printed more than"),
        ("import sys\nwhile True: sys.stderr.write('x' * 65536)", "printed more than"),
        ("import os; os.kill(os.getpid(), 9)", "status -9"),
    ],
)
def test_programs_that_fail(tmp_path: Path, text: str, reason: str) -> None:
    request = Key.generate("p256").certificate_request(WANTED.uris, WANTED.dns_names)
    with pytest.raises(IssuerError, match=reason):
        program(tmp_path, text).issue(request, WANTED)


@pytest.mark.slow(seconds=2)
def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    text = f"""
import os, time
child = os.fork()
if child:
    open({str(tmp_path / "child")!r}, "w").write(str(child))
time.sleep(3600)
"""
    request = Key.generate("p256").certificate_request(WANTED.uris, WANTED.dns_names)
    with pytest.raises(IssuerError, match="did not end within"):
        program(tmp_path, text, seconds=1.5).issue(request, WANTED)
    child = int((tmp_path / "child").read_text())
    state = Path(f"/proc/{child}/stat")
    wait_for("its end", lambda: not state.exists() or state.read_text().split()[2] == "Z")


def test_a_program_sees_only_what_it_needs(tmp_path: Path) -> None:
    os.environ["OFFLOAD_SECRET_OF_A_TEST"] = "x"
    try:
        listing = "import os, sys; print(sorted(os.environ), file=sys.stderr); sys.exit(1)"
        request = Key.generate("p256").certificate_request(WANTED.uris, WANTED.dns_names)
        with pytest.raises(IssuerError) as failed:
            program(tmp_path, listing).issue(request, WANTED)
    finally:
        del os.environ["OFFLOAD_SECRET_OF_A_TEST"]
    assert "OFFLOAD_URIS" in str(failed.value)
    assert "SECRET" not in str(failed.value)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    request = Key.generate("p256").certificate_request(WANTED.uris, WANTED.dns_names)
    with pytest.raises(IssuerError, match=r"cannot run .*No such file"):
        ExecIssuer(ExecProgram(command=(str(tmp_path / "none"),))).issue(request, WANTED)
    plain = tmp_path / "plain"
    plain.write_text("")
    plain.chmod(stat.S_IRUSR)
    with pytest.raises(IssuerError, match="cannot run"):
        ExecIssuer(ExecProgram(command=(str(plain),))).issue(request, WANTED)


# ---- what issuers are not trusted with ----


def test_chains_that_are_not_what_was_asked_for(local_ca: LocalCa) -> None:
    key, other = Key.generate("p256"), Key.generate("p256")
    issuer = LocalCaIssuer(local_ca)
    request = key.certificate_request(WANTED.uris, WANTED.dns_names)
    chain = issuer.issue(request, WANTED).chain
    with pytest.raises(IssuerError, match="for a key other than"):
        check(chain, other.key_id, WANTED, now())
    admin = Wanted("admin", ("spiffe://mesh.test/admin",), ())
    with pytest.raises(IssuerError, match=f"for {CART}, cart.test, not for spiffe://mesh.test/admin"):
        check(chain, key.key_id, admin, now())
    with pytest.raises(IssuerError, match=r"cannot be served: certificate 1 .* expired"):
        check(chain, key.key_id, WANTED, now() + datetime.timedelta(hours=2))
    with pytest.raises(IssuerError, match="cannot be served: it contains no certificate"):
        check((), key.key_id, WANTED, now())
    stranger = Authority.make("stranger").certificate.public_bytes(Encoding.DER)
    with pytest.raises(IssuerError, match="was not issued by certificate 2"):
        check((*chain, stranger), key.key_id, WANTED, now())


def test_a_request_signed_by_another_key_is_refused(local_ca: LocalCa) -> None:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    der = bytearray(request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(IssuerError):
        LocalCaIssuer(local_ca).issue(bytes(der), WANTED)


def test_requests_are_what_openssl_certifies(tmp_path: Path, local_ca: LocalCa) -> None:
    """Any CA will do: here `openssl x509 -req` as the program."""
    extensions = tmp_path / "ext"
    extensions.write_text(f"subjectAltName=critical,URI:{CART},DNS:cart.test\n")
    command: tuple[str, ...] = ("/usr/bin/openssl", "x509", "-req", "-days", "1", "-CA", str(local_ca.certificate))
    command += ("-CAkey", str(local_ca.key), "-extfile", str(extensions), "-in", "/dev/stdin")
    subprocess.run(["openssl", "version"], check=True, capture_output=True)
    key = Key.generate("rsa2048")
    issued = ExecIssuer(ExecProgram(command=command)).issue(
        key.certificate_request(WANTED.uris, WANTED.dns_names), WANTED
    )
    assert check(issued.chain, key.key_id, WANTED, now()).uris == (CART,)
