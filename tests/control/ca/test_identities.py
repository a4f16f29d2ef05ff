"""CAs in the store: made once, published as MeshTrust, rotated; certificates of proxies kept over a restart."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.ca.authority import UnusableAuthority
from control.ca.identities import Identities
from control.ca.issue import RefusedRequest, svid_problems
from control.ca.rotation import Event, Stage, WrongStage
from control.mesh.view import view_of
from control.model.resource import Resource
from control.store.store import Store
from tests.control.ca.made import ID, Clock, Read, from_files, identity, write_ca


def request(name: str = ID.spiffe_id) -> bytes:
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(uri, critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.DER
    )


def test_the_ca_is_made_once_and_published(store: Store, identities: Identities, resource: Resource) -> None:
    trust = identities.authorities.publish_trust(resource)
    assert trust is not None
    assert (trust.name, trust.spec.trust_domain, trust.version) == ("identity", "shop.default.mesh.local", 1)
    again = Identities(store, "default")
    assert (
        again.authorities.rotation(resource).current.fingerprint
        == identities.authorities.rotation(resource).current.fingerprint
    )
    assert again.authorities.publish_trust(resource) == trust


def test_no_trust_where_none_is_wanted(store: Store, identities: Identities, read_resources: Read) -> None:
    wanted = identity(read_resources, "autogenerate: {enabled: true}, meshTrustCreation: Disabled")
    assert identities.authorities.publish_trust(store.put_all(wanted)[1]) is None
    assert store.list("MeshTrust") == []


def test_nodes_get_what_they_ask_for_and_keep_the_key(identities: Identities, resource: Resource) -> None:
    svid = identities.sign("shop", ID, request())
    assert list(svid_problems(svid.certificate)) == []
    svid.certificate.verify_directly_issued_by(identities.authorities.rotation(resource).current.certificate)
    with pytest.raises(RefusedRequest, match=", not spiffe"):
        identities.sign("shop", ID, request("spiffe://shop.default.mesh.local/workload/other"))


@pytest.mark.usefixtures("resource")
def test_a_certificate_is_kept_and_renewed_at_half_of_its_life(
    store: Store, identities: Identities, clock: Clock
) -> None:
    first = identities.credential("shop", "cart-1", ID, "p256")
    assert identities.credential("shop", "cart-1", ID, "p256") is first
    assert Identities(store, "default", clock).credential("shop", "cart-1", ID, "p256") == first
    assert abs(first.renew_at - (clock.now + timedelta(hours=12))) < timedelta(hours=1.5)
    clock.now = first.renew_at
    second = identities.credential("shop", "cart-1", ID, "p256")
    assert second.credential.key_pem != first.credential.key_pem
    identities.forget("shop", "cart-1")
    assert identities.held("shop", "cart-1") is None
    assert store.secret_names("mesh/shop/svid/") == []


@pytest.mark.usefixtures("resource")
def test_who_keeps_a_certificate_is_known_after_a_restart_and_until_its_end(
    store: Store, identities: Identities, clock: Clock
) -> None:
    assert not identities.keeps("shop", "cart-1")
    held = identities.credential("shop", "cart-1", ID, "p256")
    again = Identities(store, "default", clock)
    assert identities.keeps("shop", "cart-1")
    assert again.keeps("shop", "cart-1")
    clock.now = held.not_after
    assert not again.keeps("shop", "cart-1")
    identities.credential("shop", "cart-1", ID, "p256")
    assert identities.keeps("shop", "cart-1")
    identities.forget("shop", "cart-1")
    assert not identities.keeps("shop", "cart-1")
    assert not Identities(store, "default", clock).keeps("shop", "cart-1")


@pytest.mark.usefixtures("resource")
def test_another_key_type_is_another_certificate(identities: Identities) -> None:
    first = identities.credential("shop", "cart-1", ID, "p256")
    rsa = identities.credential("shop", "cart-1", ID, "rsa2048")
    assert first.credential.chain_pem != rsa.credential.chain_pem
    assert "key_pem" not in repr(first)


def test_a_rotation_in_the_store(store: Store, identities: Identities, resource: Resource) -> None:
    before = identities.credential("shop", "cart-1", ID, "p256")
    rotation = identities.authorities.begin(resource)
    assert rotation.stage is Stage.DISTRIBUTING
    bundle = view_of("shop", store.list()).trust_bundles
    assert bundle[0][1].count("BEGIN CERTIFICATE") == 2
    assert identities.credential("shop", "cart-1", ID, "p256") is before
    identities.authorities.step(resource, Event.DISTRIBUTED)
    assert view_of("shop", store.list()).trust_bundles == bundle
    after = identities.credential("shop", "cart-1", ID, "p256")
    assert after.authority != before.authority
    identities.authorities.step(resource, Event.REPLACED)
    assert view_of("shop", store.list()).trust_bundles[0][1].count("BEGIN CERTIFICATE") == 1
    assert Identities(store, "default").authorities.rotation(resource).stage is Stage.RETIRING
    assert identities.authorities.step(resource, Event.RETIRED).stage is Stage.STABLE
    with pytest.raises(WrongStage):
        identities.authorities.step(resource, Event.RETIRED)


def test_a_ca_from_files(
    store: Store, identities: Identities, read_resources: Read, clock: Clock, tmp_path: Path
) -> None:
    resource = store.put_all(identity(read_resources, from_files(tmp_path)))[1]
    authorities = identities.authorities
    with pytest.raises(UnusableAuthority, match="cannot read"):
        authorities.ensure(resource)
    pem = write_ca(tmp_path, clock.now)
    assert authorities.ensure(resource).current.certificate_pem == pem
    with pytest.raises(WrongStage, match="still contain the CA in force"):
        authorities.begin(resource)
