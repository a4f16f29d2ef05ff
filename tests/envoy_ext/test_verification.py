"""Which peers are refused, what they are told (the TLS alert), and what is written down (log, counter)."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from deploy.node.certificates import named, unsigned, uri_names
from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from envoy_ext.settings import SpiffeMatch, TlsSettings
from tests.envoy_ext import mesh, node
from tests.envoy_ext.mesh import Services
from tests.envoy_ext.node import ME, TLS12, TLS13, EnvoyNode
from tests.envoy_ext.tls_clients import Client
from tests.offload.key_files import Authority, key_pem, pem

pytestmark = pytest.mark.envoy

NOW = datetime.datetime.now(datetime.UTC)
SECOND, HOUR = datetime.timedelta(seconds=1), datetime.timedelta(hours=1)
ALICE = "spiffe://mesh.test/ns/shop/sa/alice"
BOB = "spiffe://other.test/ns/shop/sa/bob"


@dataclass(frozen=True)
class Certificate:
    """A client's certificate: a good one, but for what is changed."""

    uris: Sequence[str] = (ALICE,)
    begins: datetime.datetime = NOW - HOUR
    ends: datetime.datetime = NOW + HOUR
    is_ca: bool = False
    usage: Sequence[str] | None = ("digital_signature",)
    purposes: Sequence[ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
    serial: int | None = None

    def write(self, path: Path, issuer: Authority, between: Sequence[x509.Certificate] = ()) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = unsigned(
            named("client"),
            issuer.certificate.subject,
            key.public_key(),
            begins=self.begins,
            ends=self.ends,
            serial=self.serial,
            is_ca=self.is_ca,
            names=uri_names(self.uris),
        ).add_extension(x509.ExtendedKeyUsage(self.purposes), critical=False)
        if self.usage is not None:
            flags = dict.fromkeys(KEY_USAGES, False) | dict.fromkeys(self.usage, True)
            builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
        path.write_bytes(pem(builder.sign(issuer.key, hashes.SHA256()), *between) + key_pem(key))
        return path


KEY_USAGES: tuple[str, ...]
KEY_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
KEY_USAGES += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
REVOKED_SERIAL = 0x7EE7
FOREIGN = Authority.make("nobody's CA")


@dataclass(frozen=True)
class Verifying:
    envoy: EnvoyNode
    services: Services
    other: Authority
    crl: Path

    def client(self, listener: str) -> Client:
        return Client(self.envoy.running.ports[listener], self.services.bundle("prices"), "prices.test")

    def get(self, listener: str, certificate: Path | None, version: ssl.TLSVersion = TLS13) -> bytes:
        client = self.client(listener)
        with client.connect(client.context(version, certificate=certificate)) as connection:
            answer = client.get(connection)
            assert b" 200 " in answer, answer
            return answer


def revocation_list(issuer: Authority, serials: Sequence[int], ends: datetime.datetime = NOW + HOUR) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(NOW - 2 * HOUR)
        .next_update(ends)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - HOUR).build()
        builder = builder.add_revoked_certificate(revoked)
    return pem(builder.sign(issuer.key, hashes.SHA256()))  # type: ignore[arg-type]  # has public_bytes too


@pytest.fixture(scope="module")
def verifying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verifying]:
    """Listeners that require client certificates of mesh.test or of the federated other.test, in several ways."""
    folder = tmp_path_factory.mktemp("verifying")
    other = Authority.make("CA of other.test")
    services = Services.make(folder)
    (folder / "other.pem").write_bytes(other.pem)
    bundles = [
        {"file": str(services.bundle("prices")), "trust_domain": "mesh.test"},
        {"file": str(folder / "other.pem"), "trust_domain": "other.test"},
    ]
    services.daemon.configure(identities={"prices": ME | {"trust_bundles": bundles}})
    services.daemon.start()
    crl = folder / "revoked.pem"
    crl.write_bytes(revocation_list(services.authority, [REVOKED_SERIAL]))
    facts = {**render.direct_response("ok\n"), "response_headers_to_add": mesh.published()}
    shop = (SpiffeMatch("prefix", "spiffe://mesh.test/ns/shop"),)

    def listener(name: str, **tls: object) -> render.Config:
        settings = services.server_tls(session_tickets=False, **tls)
        return node.http(folder, name, settings, [facts])

    plain = render.http_connection_manager([render.direct_response("plaintext\n")], stat_prefix="plain")
    secure = render.http_connection_manager([facts], stat_prefix="secure")
    chains = render.permissive_filter_chains(services.server_tls(), [secure], [plain])
    listeners = [
        listener("any"),
        listener("shop", peer_spiffe_ids=shop),
        listener("strict_clock", clock_skew_s=0),
        listener("wide_clock", clock_skew_s=3600),
        listener("crl", crl_file=crl),
        render.listener("permissive", 0, chains, host="127.0.0.1"),
    ]
    with Processes(folder) as processes:
        ca = services.bundle("prices")
        envoy = node.start_envoy(processes, "envoy", folder, ca, render.bootstrap(listeners))
        yield Verifying(envoy, services, other, crl)
        processes.check()
    services.daemon.stop()


@pytest.mark.parametrize(
    ("listener", "certificate"),
    [
        ("any", Certificate()),
        ("any", Certificate(usage=None)),
        ("any", Certificate(ends=NOW - 2 * SECOND)),  # within the allowance for clocks, 10 s
        ("shop", Certificate()),
        ("wide_clock", Certificate(ends=NOW - HOUR / 2)),
        ("wide_clock", Certificate(begins=NOW + HOUR / 2)),
        ("crl", Certificate()),
    ],
)
def test_accepted(verifying: Verifying, tmp_path: Path, listener: str, certificate: Certificate) -> None:
    if certificate.ends == NOW - 2 * SECOND:
        end = datetime.datetime.now(datetime.UTC) - 2 * SECOND
        certificate = Certificate(ends=end)
    answer = verifying.get(listener, certificate.write(tmp_path / "client.pem", verifying.services.authority))
    assert f"x-peer_spiffe_id: {ALICE}".encode() in answer


def test_a_federated_trust_domain(verifying: Verifying, tmp_path: Path) -> None:
    bob = Certificate(uris=(BOB,)).write(tmp_path / "bob.pem", verifying.other)
    assert f"x-peer_spiffe_id: {BOB}".encode() in verifying.get("any", bob)


def test_an_intermediate_comes_with_the_chain(verifying: Verifying, tmp_path: Path) -> None:
    between = Authority.make("between", verifying.services.authority)
    alice = Certificate().write(tmp_path / "alice.pem", between, [between.certificate])
    assert ALICE.encode() in verifying.get("any", alice)


Refused = tuple[str, Certificate, str, str, str]
REFUSED: Sequence[Refused] = [
    # listener, certificate, alert, reason, counter
    ("any", Certificate(ends=NOW - HOUR / 2), "CERTIFICATE_EXPIRED", "certificate has expired", "expired"),
    ("any", Certificate(begins=NOW + HOUR / 2), "CERTIFICATE_EXPIRED", "not yet valid", "expired"),
    ("strict_clock", Certificate(ends=NOW - SECOND), "CERTIFICATE_EXPIRED", "certificate has expired", "expired"),
    ("any", Certificate(is_ca=True), "UNSUPPORTED_CERTIFICATE", "is a CA certificate", "unsuitable"),
    (
        "any",
        Certificate(usage=("digital_signature", "key_cert_sign")),
        "UNSUPPORTED_CERTIFICATE",
        "may sign certificates",
        "unsuitable",
    ),
    ("any", Certificate(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), "UNSUPPORTED_CERT", "purpose", "unsuitable"),
    ("any", Certificate(uris=(ALICE, "https://a.test/")), "BAD_CERTIFICATE", "not its only URI", "spiffe_id"),
    ("any", Certificate(uris=("spiffe://mesh.test",)), "BAD_CERTIFICATE", "has no path", "spiffe_id"),
    ("any", Certificate(uris=("spiffe://mesh.test/a/",)), "BAD_CERTIFICATE", "empty path segment", "spiffe_id"),
    ("any", Certificate(uris=("spiffe://mesh.test/a/../b",)), "BAD_CERTIFICATE", "segment of dots", "spiffe_id"),
    ("any", Certificate(uris=("spiffe://mesh.test/a?b",)), "BAD_CERTIFICATE", "character in its path", "spiffe_id"),
    ("any", Certificate(uris=("spiffe://mesh.test:80/a",)), "BAD_CERTIFICATE", "in its trust domain", "spiffe_id"),
    ("any", Certificate(uris=("SPIFFE://mesh.test/a",)), "BAD_CERTIFICATE", "begin with spiffe://", "spiffe_id"),
    ("any", Certificate(uris=("spiffe://else.test/a",)), "UNKNOWN_CA", "no trust bundle for", "unknown_ca"),
    # Signed by the CA of mesh.test, and says to be of other.test: that CA does not speak for it.
    ("any", Certificate(uris=(BOB,)), "UNKNOWN_CA", "peer certificate of " + BOB, "unknown_ca"),
    ("any", Certificate(uris=()), "UNKNOWN_CA", "has no SPIFFE id", "unknown_ca"),
    (
        "shop",
        Certificate(uris=("spiffe://mesh.test/ns/shopping",)),
        "ACCESS_DENIED",
        "is not accepted here",
        "not_accepted",
    ),
    ("crl", Certificate(serial=REVOKED_SERIAL), "CERTIFICATE_REVOKED", "certificate revoked", "revoked"),
]


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize(
    ("listener", "certificate", "alert", "reason", "counter"), REFUSED, ids=[f"{r[4]}: {r[3]}" for r in REFUSED]
)
def test_refused(
    verifying: Verifying,
    tmp_path: Path,
    version: ssl.TLSVersion,
    listener: str,
    certificate: Certificate,
    alert: str,
    reason: str,
    counter: str,
) -> None:
    file = certificate.write(tmp_path / "client.pem", verifying.services.authority)
    before = verifying.envoy.stats()
    with pytest.raises(ssl.SSLError, match=alert):
        verifying.get(listener, file, version)
    assert verifying.envoy.wait_failure(listener, reason)
    after = verifying.envoy.stats()
    assert after["peers_rejected"] == before["peers_rejected"] + 1
    assert after[f"peers_rejected_{counter}"] == before[f"peers_rejected_{counter}"] + 1


def test_a_foreign_ca(verifying: Verifying, tmp_path: Path) -> None:
    file = Certificate().write(tmp_path / "client.pem", FOREIGN)
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        verifying.get("any", file)


def test_no_certificate_where_one_is_required(verifying: Verifying) -> None:
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        verifying.get("any", None)


def test_a_new_revocation_list_is_taken_up(verifying: Verifying, tmp_path: Path) -> None:
    authority = verifying.services.authority
    alice = Certificate(serial=0xA11CE).write(tmp_path / "alice.pem", authority)
    verifying.get("crl", alice)

    def replace(content: bytes) -> None:
        fresh = verifying.crl.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.rename(verifying.crl)

    def is_refused() -> bool:
        try:
            verifying.get("crl", alice)
        except ssl.SSLError:
            return True
        return False

    replace(revocation_list(authority, [REVOKED_SERIAL, 0xA11CE]))
    wait_for("the new list", is_refused)
    replace(b"nonsense")
    wait_for("a word about it", lambda: "the lists read before stay in force" in log_after(verifying, is_refused))
    assert is_refused(), "what was read before stays in force"
    replace(revocation_list(authority, [], NOW - HOUR))
    wait_for("the old list to be refused", lambda: is_refused() and expired_list(verifying))
    replace(revocation_list(authority, [REVOKED_SERIAL]))
    wait_for("the first list again", lambda: not is_refused())


def log_after(verifying: Verifying, handshake: Callable[[], bool]) -> str:
    handshake()  # the file is looked at when a peer is judged
    return verifying.envoy.log()


def expired_list(verifying: Verifying) -> bool:
    return any("CRL has expired" in reason for reason in verifying.envoy.failures("crl"))


def test_permissive_takes_tls_and_plaintext(verifying: Verifying, tmp_path: Path) -> None:
    alice = Certificate().write(tmp_path / "alice.pem", verifying.services.authority)
    assert ALICE.encode() in verifying.get("permissive", alice)
    assert mesh.request(verifying.envoy.running.ports["permissive"]).body == b"plaintext\n"


def test_settings_name_what_they_do() -> None:
    settings = TlsSettings(identities=("a",), clock_skew_s=0, crl_file=Path("/x")).socket_config()
    assert settings["clock_skew_s"] == 0
    assert settings["crl_file"] == "/x"
