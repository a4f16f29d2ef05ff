"""Identities whose keys the daemon makes itself, with a real daemon and a real issuer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from cryptography import x509

from deploy.node.waiting import wait_for
from offload.v1 import admin_pb2, private_key_pb2
from tests.offload.daemon_process import DaemonProcess, command, environment, sign_request, status_of
from tests.offload.issuing.test_issuers import CERTIFY, ROOT
from tests.offload.key_files import Authority, key_pem

CART = "spiffe://mesh.test/ns/shop/sa/cart"
ME = {"selectors": [{"uid": os.getuid()}]}


class Generating(DaemonProcess):
    """A daemon with a CA of its own."""

    authority: Authority

    def use(self, authority: Authority) -> None:
        self.authority = authority
        (self.folder / "ca.crt").write_bytes(authority.pem)
        (self.folder / "ca.key").write_bytes(key_pem(authority.key))

    def local_ca(self, lifetime_seconds: float = 3600) -> dict[str, Any]:
        return {
            "local_ca": {
                "certificate": str(self.folder / "ca.crt"),
                "key": str(self.folder / "ca.key"),
                "lifetime_hours": lifetime_seconds / 3600,
            }
        }

    def setup(self, issuer: dict[str, Any], **source: Any) -> None:
        generate = {"issuer": "dev"} | source
        identity = ME | {"source": {"generate": generate}}
        bundles = [{"file": str(self.folder / "ca.crt"), "trust_domain": "mesh.test"}]
        keys = {"directory": str(self.folder / "keys"), "trust_bundles": bundles}
        self.configure(issuers={"dev": issuer}, identities={CART: identity}, keys=keys)

    def serials(self) -> list[str]:
        return [event["serial_number"] for event in self.events("certificate issued")]

    def in_force(self) -> admin_pb2.ListKeysResponse:
        with self.admin() as stub:
            answer: admin_pb2.ListKeysResponse = stub.ListKeys(admin_pb2.ListKeysRequest(), timeout=10)
            return answer


@pytest.fixture
def generating(tmp_path: Path) -> Iterator[Generating]:
    daemon = Generating(tmp_path)
    daemon.use(Authority.make())
    yield daemon
    daemon.stop()


def watched(daemon: Generating) -> private_key_pb2.Identity:
    with daemon.client() as stub:
        request = private_key_pb2.WatchIdentityRequest(identity=CART)
        return next(iter(stub.WatchIdentity(request, timeout=10)))


SCHEMES = {"p256": 0x0403, "p384": 0x0503, "ed25519": 0x0807, "rsa2048": 0x0804}


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("key_type", list(SCHEMES))
def test_made_certified_and_serving(generating: Generating, key_type: str) -> None:
    generating.setup(generating.local_ca(), key_type=key_type, dns_names=["cart.test"])
    generating.start()
    wait_for("the identity", lambda: generating.events("identity in force"))
    identity = watched(generating)
    (credential,) = identity.credentials
    leaf = x509.load_der_x509_certificate(credential.certificate_chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [CART]
    assert names.get_values_for_type(x509.DNSName) == ["cart.test"]
    leaf.verify_directly_issued_by(generating.authority.certificate)
    assert [bundle.trust_domain for bundle in identity.trust_bundles] == ["mesh.test"]
    with generating.client() as stub:
        assert stub.Sign(sign_request(credential.key_id, SCHEMES[key_type]), timeout=10).signature
        request = sign_request(credential.key_id, SCHEMES[key_type], b"a certificate request")
        assert status_of(lambda: stub.Sign(request, timeout=10)) is grpc.StatusCode.PERMISSION_DENIED
    (shown,) = generating.in_force().identities[0].keys
    assert shown.key_file == "generated on this node"
    assert shown.certificate_file == "issuer dev"
    assert shown.not_before < shown.renew_at < shown.not_after
    assert not (generating.folder / "keys").exists(), "nothing was written, and the directory is not needed"


@pytest.mark.slow(seconds=3)
def test_renewed_with_a_new_key_while_the_old_one_serves(generating: Generating) -> None:
    """A certificate of 62 s less the minute it is backdated: it is renewed every second or so."""
    generating.setup(generating.local_ca(4))
    generating.start()
    wait_for("three certificates", lambda: len(generating.serials()) >= 3)
    assert len(set(generating.serials())) == len(generating.serials())
    assert len(generating.events("identity changed")) >= 1
    first, second = watched(generating), None

    def renewed() -> bool:
        nonlocal second
        second = watched(generating)
        return second.version != first.version

    wait_for("another", renewed)
    assert second is not None
    assert second.credentials[0].key_id != first.credentials[0].key_id, "each certificate has a key of its own"


@pytest.mark.slow(seconds=4)
def test_an_issuer_that_fails_and_recovers(generating: Generating) -> None:
    generating.setup(generating.local_ca(4))
    (generating.folder / "ca.key").rename(generating.folder / "away")
    generating.start()
    failure = generating.wait_log("no certificate", 2)
    assert "No such file" in failure["reason"]
    assert failure["previous_stays_in_force"] is False
    with generating.client() as stub:
        request = private_key_pb2.WatchIdentityRequest(identity=CART)
        assert status_of(lambda: next(iter(stub.WatchIdentity(request, timeout=5)))) is grpc.StatusCode.NOT_FOUND
    (problem,) = generating.in_force().problems
    assert (problem.identity, problem.path) == (CART, "issuer dev")
    (generating.folder / "away").rename(generating.folder / "ca.key")
    wait_for("the identity", lambda: generating.events("identity in force"))
    assert not generating.in_force().problems
    (generating.folder / "ca.key").write_bytes(b"nonsense")
    count = len(generating.events("no certificate"))
    failure = generating.wait_log("no certificate", count + 1)
    assert failure["previous_stays_in_force"] is True
    assert generating.in_force().identities, "what is in force serves on"


@pytest.mark.slow(seconds=2)
def test_a_new_ca_is_used_for_the_next_certificate(generating: Generating) -> None:
    generating.setup(generating.local_ca(4))
    generating.start()
    wait_for("the identity", lambda: generating.events("identity in force"))
    other = Authority.make("other CA")
    generating.use(other)

    def issued_by_other() -> bool:
        leaf = x509.load_der_x509_certificate(watched(generating).credentials[0].certificate_chain[0])
        return leaf.issuer == other.certificate.subject

    wait_for("a certificate of the new CA", issued_by_other)


@pytest.mark.slow(seconds=2)
def test_a_program_as_the_issuer(generating: Generating) -> None:
    text = CERTIFY.format(
        root=ROOT, certificate=str(generating.folder / "ca.crt"), key=str(generating.folder / "ca.key")
    )
    file = generating.folder / "certify"
    file.write_text(f"#!{sys.executable}\n{text}")
    file.chmod(0o700)
    generating.setup({"exec": {"command": [str(file)]}})
    generating.start()
    wait_for("the identity", lambda: generating.events("identity in force"))
    assert generating.stop() == 0


@pytest.mark.slow(seconds=2)
def test_a_reload_adds_changes_and_removes(generating: Generating) -> None:
    generating.setup(generating.local_ca())
    generating.start()
    wait_for("the identity", lambda: generating.events("identity in force"))
    before = watched(generating).credentials[0]
    generating.setup(generating.local_ca(), key_type="rsa2048")
    generating.signal(signal.SIGHUP)
    wait_for("the other type", lambda: generating.in_force().identities[0].keys[0].algorithm == "rsa2048")
    with generating.client() as stub:
        request = sign_request(before.key_id, SCHEMES["p256"])
        assert status_of(lambda: stub.Sign(request, timeout=10)) is grpc.StatusCode.OK, "for handshakes under way"
    config = yaml.safe_load(generating.config_file.read_text()) | {"identities": {}}
    generating.config_file.write_text(yaml.safe_dump(config))
    generating.signal(signal.SIGHUP)
    wait_for("the end of it", lambda: generating.events("identity removed"))
    with generating.client() as stub:
        assert status_of(lambda: stub.Sign(request, timeout=10)) is grpc.StatusCode.NOT_FOUND


@pytest.mark.slow(seconds=4)
def test_what_the_configuration_refuses(generating: Generating) -> None:
    def check(issuers: Any, identities: Any) -> str:
        generating.configure(issuers=issuers, identities=identities)
        ran = subprocess.run(
            command("check-config", "-c", generating.config_file),
            env=environment() | {"COLUMNS": "300"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return f"{ran.returncode} {ran.stderr}"

    good = {"dev": generating.local_ca()}
    of_dev = {"source": {"generate": {"issuer": "dev"}}}
    assert check(good, {CART: of_dev}).startswith("0 ")
    assert "which is not in 'issuers'; defined: none" in check({}, {CART: of_dev})
    assert "its certificate would name nobody" in check(good, {"cart": of_dev})
    assert "exactly one of 'files' and 'generate'" in check(
        good, {CART: {"source": {"files": "x", "generate": {"issuer": "dev"}}}}
    )
    assert "exactly one of 'local_ca' and 'exec'" in check({"dev": {}}, {})
    assert "must be an absolute path" in check({"dev": {"exec": {"command": ["certify"]}}}, {})
    assert "key_type" in check(good, {CART: {"source": {"generate": {"issuer": "dev", "key_type": "dsa"}}}})


def test_metrics(generating: Generating) -> None:
    generating.setup(generating.local_ca())
    generating.start()
    wait_for("the identity", lambda: generating.events("identity in force"))
    address = generating.events("serving")[0]["metrics"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'offload_certificate_requests_total{issuer="dev",result="issued"} 1.0' in text
    assert f'offload_certificate_renewal_seconds{{identity="{CART}"}}' in text
    assert f'identity="{CART}"' in text.split("offload_certificate_expiry_seconds", 1)[1]
    assert json.dumps(CART) in generating.log_file.read_text()
