"""Peers with intermediates, revocation lists about them, and sessions that end with what the peer was verified by."""

from __future__ import annotations

import datetime
import signal
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.node.certificates import named, unsigned, uri_names
from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from tests.envoy_ext import mesh, node
from tests.envoy_ext.mesh import Services
from tests.envoy_ext.node import ME, TLS12, TLS13, EnvoyNode
from tests.envoy_ext.test_verification import ALICE, BOB, HOUR, NOW, Certificate, revocation_list
from tests.envoy_ext.tls_clients import Client
from tests.offload.key_files import Authority

pytestmark = pytest.mark.envoy

REVOKED = 0xBAD


def authority(
    name: str,
    parent: Authority | None = None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    uris: Sequence[str] = (),
    permitted: Sequence[str] = (),
    serial: int | None = None,
) -> Authority:
    """A CA, or (`ca` false) who would like to be one."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = unsigned(
        named(name),
        parent.certificate.subject if parent else named(name),
        key.public_key(),
        begins=NOW - HOUR,
        ends=NOW + HOUR,
        serial=serial,
        is_ca=ca,
        path_length=path_length,
        names=uri_names(uris),
    )
    if permitted:
        builder = builder.add_extension(x509.NameConstraints(uri_names(permitted), None), critical=True)
    return Authority(key, builder.sign(parent.key if parent else key, hashes.SHA256()))


@dataclass(frozen=True)
class Chains:
    envoy: EnvoyNode
    services: Services
    other: Authority
    crl: Path

    def client(self, listener: str) -> Client:
        return Client(self.envoy.running.ports[listener], self.services.bundle("prices"), "prices.test")

    def get(self, listener: str, certificate: Path, version: ssl.TLSVersion = TLS13) -> str:
        client = self.client(listener)
        with client.connect(client.context(version, certificate=certificate)) as connection:
            return client.get(connection).decode()

    def refuses(self, listener: str, certificate: Path, alert: str, reason: str, counter: str) -> None:
        for version in (TLS12, TLS13):
            before = self.envoy.stats()
            with pytest.raises(ssl.SSLError, match=alert):
                self.get(listener, certificate, version)
            after = self.envoy.stats()
            for each in ("peers_rejected", f"peers_rejected_{counter}"):
                assert after[each] == before[each] + 1, each
        self.envoy.wait_failure(listener, reason)


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chains]:
    """Listeners that require client certificates of mesh.test or of the federated other.test."""
    folder = tmp_path_factory.mktemp("chains")
    services, other = Services.make(folder), authority("CA of other.test")
    (folder / "other.pem").write_bytes(other.pem)
    bundles = [
        {"file": str(services.bundle("prices")), "trust_domain": "mesh.test"},
        {"file": str(folder / "other.pem"), "trust_domain": "other.test"},
    ]
    services.daemon.configure(identities={"prices": ME | {"trust_bundles": bundles}})
    services.daemon.start()
    crl = folder / "revoked.pem"
    crl.write_bytes(revocation_list(services.authority, [REVOKED]))
    facts = {**render.direct_response("ok\n"), "response_headers_to_add": mesh.published()}
    listeners = [
        node.http(folder, "any", services.server_tls(), [facts]),
        node.http(folder, "crl", services.server_tls(crl_file=crl), [facts]),
    ]
    with Processes(folder) as processes:
        envoy = node.start_envoy(processes, "envoy", folder, services.bundle("prices"), render.bootstrap(listeners))
        yield Chains(envoy, services, other, crl)
        processes.check()
    services.daemon.stop()


# ---- intermediates ----


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"path_length": 0},
        {"uris": ["spiffe://mesh.test"]},
        {"uris": ["spiffe://root.test"]},  # a CA may be of another trust domain
        {"uris": ["https://ca.test/"]},
        {"permitted": ["mesh.test"]},
    ],
    ids=str,
)
def test_intermediates_that_may_sign(chains: Chains, tmp_path: Path, made: dict[str, object]) -> None:
    between = authority("between", chains.services.authority, **made)  # type: ignore[arg-type]
    alice = Certificate().write(tmp_path / "alice.pem", between, [between.certificate])
    assert f"x-peer_spiffe_id: {ALICE}" in chains.get("any", alice)


@pytest.mark.parametrize(
    ("made", "alert", "reason", "counter"),
    [
        ({"ca": False}, "UNSUPPORTED_CERTIFICATE", "invalid CA certificate", "unsuitable"),
        ({"permitted": ["other.test"]}, "UNSUPPORTED_CERTIFICATE", "permitted subtree violation", "unsuitable"),
        ({"uris": ["spiffe://mesh.test/ca"]}, "BAD_CERTIFICATE", "has a SPIFFE id with a path", "spiffe_id"),
        ({"uris": ["spiffe://MESH.test"]}, "BAD_CERTIFICATE", "in its trust domain", "spiffe_id"),
        ({"uris": ["spiffe://mesh.test", "https://a"]}, "BAD_CERTIFICATE", "not its only URI", "spiffe_id"),
    ],
)
def test_intermediates_that_may_not(
    chains: Chains, tmp_path: Path, made: dict[str, object], alert: str, reason: str, counter: str
) -> None:
    between = authority("between", chains.services.authority, **made)  # type: ignore[arg-type]
    alice = Certificate().write(tmp_path / "alice.pem", between, [between.certificate])
    chains.refuses("any", alice, alert, reason, counter)


def test_a_path_longer_than_its_ca_allows(chains: Chains, tmp_path: Path) -> None:
    first = authority("first", chains.services.authority, path_length=0)
    second = authority("second", first)
    alice = Certificate().write(tmp_path / "alice.pem", second, [second.certificate, first.certificate])
    chains.refuses("any", alice, "UNSUPPORTED_CERTIFICATE", "path length", "unsuitable")


def test_a_missing_intermediate(chains: Chains, tmp_path: Path) -> None:
    between = authority("between", chains.services.authority)
    alice = Certificate().write(tmp_path / "alice.pem", between)
    chains.refuses("any", alice, "UNKNOWN_CA", "unable to get local issuer", "unknown_ca")


def test_a_leaf_cannot_sign_another(chains: Chains, tmp_path: Path) -> None:
    """Alice's own key signs a certificate for somebody else."""
    leaf = authority("alice", chains.services.authority, ca=False, uris=[ALICE])
    eve = Certificate(uris=("spiffe://mesh.test/eve",)).write(tmp_path / "eve.pem", leaf, [leaf.certificate])
    chains.refuses("any", eve, "UNSUPPORTED_CERTIFICATE", "invalid CA certificate", "unsuitable")


def test_a_ca_of_the_same_name(chains: Chains, tmp_path: Path) -> None:
    namesake = Authority.make()
    assert namesake.certificate.subject == chains.services.authority.certificate.subject
    alice = Certificate().write(tmp_path / "alice.pem", namesake)
    chains.refuses("any", alice, "UNKNOWN_CA", "signature failure", "unknown_ca")


def test_federation_is_no_merger(chains: Chains, tmp_path: Path) -> None:
    bob = Certificate(uris=(BOB,)).write(tmp_path / "bob.pem", chains.other)
    assert f"x-peer_spiffe_id: {BOB}" in chains.get("any", bob)
    forged = Certificate().write(tmp_path / "forged.pem", chains.other)
    chains.refuses("any", forged, "UNKNOWN_CA", f"peer certificate of {ALICE}", "unknown_ca")


@pytest.mark.parametrize(
    ("certificate", "alert", "reason", "counter"),
    [
        # With TLS 1.3 BoringSSL refuses it before the module sees it, and has its own alert for it.
        (
            Certificate(usage=("key_encipherment",)),
            r"UNSUPP|ILLEGAL",
            "does not allow digital signatures",
            "unsuitable",
        ),
        (Certificate(usage=("digital_signature", "crl_sign")), "UNSUPPORTED_CERT", "may sign", "unsuitable"),
        (Certificate(uris=("spiffe://u@mesh.test/a",)), "BAD_CERTIFICATE", "in its trust domain", "spiffe_id"),
        (Certificate(uris=("spiffe://mesh.test/a#b",)), "BAD_CERTIFICATE", "character in its path", "spiffe_id"),
        (Certificate(uris=("spiffe://mesh.test/%61",)), "BAD_CERTIFICATE", "character in its path", "spiffe_id"),
        (Certificate(uris=("spiffe:///a",)), "BAD_CERTIFICATE", "has no trust domain", "spiffe_id"),
        (Certificate(uris=(ALICE + "x" * 2048,)), "BAD_CERTIFICATE", "longer than 2048", "spiffe_id"),
        (Certificate(uris=("https://mesh.test/a",)), "UNKNOWN_CA", "has no SPIFFE id", "unknown_ca"),
    ],
)
def test_more_leaves(
    chains: Chains, tmp_path: Path, certificate: Certificate, alert: str, reason: str, counter: str
) -> None:
    chains.refuses("any", certificate.write(tmp_path / "a.pem", chains.services.authority), alert, reason, counter)


def test_nobody_without_a_certificate(chains: Chains) -> None:
    for version, alert in ((TLS12, "HANDSHAKE_FAILURE"), (TLS13, "CERTIFICATE_REQUIRED")):
        before = chains.envoy.stats()["peers_rejected_no_certificate"]
        client = chains.client("any")
        with (
            pytest.raises(ssl.SSLError, match=alert),
            client.connect(client.context(version)) as connection,
        ):
            client.get(connection)
        assert chains.envoy.stats()["peers_rejected_no_certificate"] == before + 1


# ---- revocation ----


def publish_lists(chains: Chains, *lists: bytes) -> None:
    """Replaces the file and waits until it is in force: a handshake looks at it once a second at most."""
    updates = chains.envoy.stats()["revocation_updates"]
    fresh = chains.crl.with_suffix(".new")
    fresh.write_bytes(b"".join(lists))
    fresh.rename(chains.crl)
    probe = Certificate(serial=REVOKED).write(chains.crl.with_suffix(".probe"), chains.services.authority)

    def taken_up() -> bool:
        with pytest.raises(ssl.SSLError):
            chains.get("crl", probe)
        return chains.envoy.stats()["revocation_updates"] > updates

    wait_for("the new lists", taken_up)


def test_revocation_of_an_intermediate(chains: Chains, tmp_path: Path) -> None:
    root = chains.services.authority
    good, bad = authority("good", root), authority("bad", root, serial=REVOKED + 1)
    publish_lists(
        chains, revocation_list(root, [REVOKED, REVOKED + 1]), revocation_list(good, []), revocation_list(bad, [])
    )
    alice = Certificate().write(tmp_path / "alice.pem", good, [good.certificate])
    assert ALICE in chains.get("crl", alice)
    eve = Certificate().write(tmp_path / "eve.pem", bad, [bad.certificate])
    chains.refuses("crl", eve, "CERTIFICATE_REVOKED", "certificate revoked", "revoked")


def test_an_issuer_without_a_usable_list(chains: Chains, tmp_path: Path) -> None:
    root = chains.services.authority
    between, namesake = authority("between", root), authority("between")
    alice = Certificate().write(tmp_path / "alice.pem", between, [between.certificate])
    for lists, reason in (
        ((), "unable to get certificate CRL"),
        ((revocation_list(between, [], NOW - HOUR),), "CRL has expired"),
        ((revocation_list(namesake, []),), "CRL signature failure"),
    ):
        publish_lists(chains, revocation_list(root, [REVOKED]), *lists)
        chains.refuses("crl", alice, "CERTIFICATE_UNKNOWN", reason, "revocation_unknown")


def test_lists_that_cannot_be_read_change_nothing(chains: Chains, tmp_path: Path) -> None:
    publish_lists(chains, revocation_list(chains.services.authority, [REVOKED]))
    alice = Certificate().write(tmp_path / "alice.pem", chains.services.authority)
    revoked = Certificate(serial=REVOKED).write(tmp_path / "revoked.pem", chains.services.authority)
    for spoil in (lambda: chains.crl.write_bytes(b"nonsense"), chains.crl.unlink):
        failures = chains.envoy.stats()["revocation_failures"]
        spoil()

        def noticed(failures: int = failures) -> bool:
            assert ALICE in chains.get("crl", alice)
            return chains.envoy.stats()["revocation_failures"] > failures

        wait_for("a word about the file", noticed)
        chains.refuses("crl", revoked, "CERTIFICATE_REVOKED", "certificate revoked", "revoked")


# ---- sessions ----


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_ticket_ends_with_the_certificate(chains: Chains, tmp_path: Path, version: ssl.TLSVersion) -> None:
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
    client = chains.client("any")
    for certificate, most in ((Certificate(ends=ends), 310), (Certificate(ends=ends + 5 * HOUR), 7200)):
        file = certificate.write(tmp_path / "alice.pem", chains.services.authority)
        context, session = client.context(version, certificate=file), None
        for resumed in (False, True):  # the new ticket of a resumed session ends no later
            with client.connect(context, session) as connection:
                client.get(connection)
                session = connection.session
                assert connection.session_reused == resumed
            assert session is not None
            assert most - 200 < session.ticket_lifetime_hint <= most


def test_lists_that_change_end_sessions(chains: Chains, tmp_path: Path) -> None:
    """The ticket is good and so is its certificate's time; but the certificate was revoked meanwhile."""
    root = chains.services.authority
    publish_lists(chains, revocation_list(root, [REVOKED]))
    client = chains.client("crl")
    alice = Certificate(serial=0xA11CE).write(tmp_path / "alice.pem", root)
    context = client.context(TLS13, certificate=alice)
    with client.connect(context) as connection:
        client.get(connection)
        session = connection.session
    with client.connect(context, session) as connection:
        assert connection.session_reused
        client.get(connection)
        session = connection.session
    publish_lists(chains, revocation_list(root, [REVOKED, 0xA11CE]))
    with (
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REVOKED"),
        client.connect(context, session) as connection,
    ):
        client.get(connection)


def test_a_session_from_before_the_new_ca_costs_no_connection(tmp_path: Path, processes: Processes) -> None:
    """Who renewed its certificate in time is let in by a full handshake, though it still offers the old session."""
    services, new = Services.make(tmp_path), Authority.make("new CA")
    services.daemon.start()
    server = mesh.start_server(processes, services)
    client = server.client("server-mtls", "prices.test")
    context = client.context(TLS13, certificate=Certificate().write(tmp_path / "old.pem", services.authority))
    with client.connect(context) as connection:
        client.get(connection)
        session = connection.session
    updates = server.stats()["identity_updates"]
    services.trust(new)
    services.daemon.signal(signal.SIGHUP)
    wait_for("the new trust", lambda: server.stats()["identity_updates"] > updates)
    context.load_cert_chain(Certificate().write(tmp_path / "new.pem", new))
    with client.connect(context, session) as connection:
        assert f"x-peer_spiffe_id: {ALICE}" in client.get(connection).decode()
        assert not connection.session_reused
    services.daemon.stop()
