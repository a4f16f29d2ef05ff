"""The daemon takes only what the Envoy module can load: judged by the same library, and compared with the module."""

from __future__ import annotations

import random
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from offload import _dataplane
from offload.identities.certificates import CertificateError, read_authorities, read_chain
from offload.v1 import private_key_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import ROOT, DaemonProcess
from tests.offload.key_files import Authority, key_id, shared_key, write_pair
from tests.offload.node import Node

PROGRAM = ROOT / "build/native/tests/native/module/module_tests"
KEY = shared_key("p256")


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=120)


def self_signed(folder: Path, *key: str, name: str = "www", extra: tuple[str, ...] = ()) -> tuple[Path, bytes]:
    """Key file, and the certificate in DER."""
    folder.mkdir(parents=True, exist_ok=True)
    openssl("genpkey", *key, "-out", folder / "tls.key")
    openssl("req", "-x509", "-new", "-key", folder / "tls.key", "-out", folder / "tls.crt", "-days", "30",
            "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", *extra)  # fmt: skip
    return folder / "tls.key", x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes()).public_bytes(
        Encoding.DER
    )


EXPLICIT = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit")
STRANGE = {
    "explicit curve parameters": EXPLICIT,
    "an RSA key of 512 bits": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:512"),
    "a curve that TLS does not use": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
}


def module_says(*messages: bytes) -> list[str]:
    """Of Identity messages, what the module's own decoder makes of each."""
    assert PROGRAM.is_file(), f"{PROGRAM} is not built; build it with: make build"
    given = b"".join(struct.pack("<I", len(message)) + message for message in messages)
    done = subprocess.run([PROGRAM, "identities"], input=given, capture_output=True, check=True, timeout=120)
    return done.stdout.decode().splitlines()


def identity(chain: tuple[bytes, ...], authorities: tuple[bytes, ...] = ()) -> bytes:
    message = private_key_pb2.Identity(name="www", version=1)
    message.credentials.add(key_id=bytes(32), certificate_chain=chain, signature_schemes=[0x0403, 0x0804])
    if authorities:
        message.trust_bundles.add(trust_domain="mesh.test", authorities=authorities)
    return message.SerializeToString()


@pytest.mark.parametrize("kind", STRANGE)
def test_bundles_are_judged_as_the_module_judges_them(tmp_path: Path, authority: Authority, kind: str) -> None:
    _, der = self_signed(tmp_path, *STRANGE[kind])
    leaf = authority.issue(KEY).public_bytes(Encoding.DER)
    (verdict,) = module_says(identity((leaf,), (der,)))
    assert not accepted(der, "authorities") or verdict == "good"


def test_explicit_curve_parameters_replace_nothing(tmp_path: Path, authority: Authority) -> None:
    """As OpenSSL takes and writes them; the daemon took them too, and the identity was down once the good pair went."""
    keys = tmp_path / "keys"
    write_pair(keys / "www", "tls", KEY, authority.issue(KEY))
    node = Node(keys, www={})
    good = node.look().identities["www"].message
    self_signed(tmp_path / "new", *EXPLICIT)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / "new" / name).rename(keys / "www" / name)
    now = datetime.now(UTC)  # openssl made it now, which can be long after this module was imported
    (problem,) = [p for p in node.look(now).problems if p.path.endswith("tls.crt")]
    assert "Envoy's TLS library (BoringSSL) would reject it: certificate 1: " in problem.reason
    assert problem.previous_kept
    assert node.plan.identities["www"].message == good


def test_explicit_curve_parameters_in_a_bundle_replace_nothing(tmp_path: Path, authority: Authority) -> None:
    keys = tmp_path / "keys"
    write_pair(keys / "www", "tls", KEY, authority.issue(KEY))
    (keys / "www" / "ca.crt").write_bytes(authority.pem)
    node = Node(keys, www={})
    good = node.look().identities["www"].message
    self_signed(tmp_path / "new", *EXPLICIT)
    (tmp_path / "new" / "tls.crt").rename(keys / "www" / "ca.crt")
    (problem,) = node.look(datetime.now(UTC)).problems
    assert "trust bundle: Envoy's TLS library (BoringSSL) would reject certificate 1 (CN=www)" in problem.reason
    assert problem.previous_kept
    assert node.plan.identities["www"].message == good


def test_a_leaf_that_may_only_agree_on_keys(authority: Authority) -> None:
    """The key usage that BoringSSL looks at by itself."""
    usage = x509.KeyUsage(*(False,) * 4, True, *(False,) * 4)
    der = authority.issue(KEY, usage=usage).public_bytes(Encoding.DER)
    with pytest.raises(ValueError, match="the chain is not usable for TLS"):
        _dataplane.check_chain([der])


@pytest.mark.parametrize("ders", [[], [b""], [b"0"], [b"\x30\x00"]])
def test_what_is_no_certificate(ders: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"cannot be parsed|the chain is not usable"):
        _dataplane.check_chain(ders)


def test_bytes_after_a_certificate(authority: Authority) -> None:
    with pytest.raises(ValueError, match="cannot be parsed"):
        _dataplane.check_certificate(authority.certificate.public_bytes(Encoding.DER) + b"\0")


def accepted(der: bytes, read: str) -> bool:
    try:
        if read == "chain":
            read_chain((der,), datetime.now(UTC))
        else:
            read_authorities((der,))
    except CertificateError:
        return False
    return True


@pytest.mark.parametrize("count", [3000, pytest.param(60000, marks=pytest.mark.long)])
def test_what_the_daemon_takes_the_module_loads(authority: Authority, count: int) -> None:
    """Mutations of good certificates: negative serial numbers, odd times and tags, broken names, ..."""
    rng = random.Random(21)
    good = {
        "chain": authority.issue(KEY, uris=["spiffe://mesh.test/www"]).public_bytes(Encoding.DER),
        "authorities": authority.certificate.public_bytes(Encoding.DER),
    }
    leaf = good["chain"]
    taken: list[bytes] = []
    for number in range(count):
        read = ("chain", "authorities")[number % 2]
        mutated = bytearray(good[read])
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            mutated[rng.randrange(len(mutated))] = rng.choice(
                (rng.randrange(256), 0, 0x7F, 0x80, 0xFF, 0x13, 0x17, 0x18)
            )
        der = bytes(mutated)
        if accepted(der, read):
            taken.append(identity((der,)) if read == "chain" else identity((leaf,), (der,)))
    verdicts = module_says(*taken)
    assert len(verdicts) == len(taken) > count // 20, "most mutations were refused: too few are left to compare"
    assert set(verdicts) == {"good"}


@pytest.mark.slow(seconds=2)
def test_the_daemon_serves_on_when_the_new_pair_is_not_loadable(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.configure(identities={"www": ME})
    daemon.start()
    before = daemon.identity("www")
    self_signed(tmp_path / "new", *EXPLICIT)
    for name in ("key", "crt"):
        (tmp_path / "new" / f"tls.{name}").rename(daemon.folder / "keys" / f"www.{name}")
    refused = daemon.wait_log("key file rejected")
    assert "BoringSSL" in refused["reason"] or "key" in refused["file"]
    assert daemon.identity("www") == before
    assert before.credentials[0].key_id == key_id(KEY)
