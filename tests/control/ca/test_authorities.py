"""A CA that ends, is damaged, cannot be used, or was made by a clock that was wrong."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509

from control.ca.authorities import Authorities
from control.ca.authority import AUTHORITY_LIFETIME, UnusableAuthority, generate
from control.ca.identities import Identities
from control.ca.rotation import Event, Rotation, Stage, WrongStage
from control.mesh.view import view_of
from control.model.resource import Resource
from control.model.violation import InvalidResource
from control.store.errors import WrongStoreKey
from control.store.store import Store
from tests.control.ca.made import ID, Clock, Read, from_files, identity, write_ca

# --- a CA that fails --------------------------------------------------------------------------------------------------


def end_of(identities: Identities, resource: Resource) -> datetime:
    return identities.authorities.ensure(resource).issuer.certificate.not_valid_after_utc


def make_it_end_soon(store: Store, clock: Clock, left: timedelta) -> None:
    """Of the CA of the MeshIdentity, as it is kept."""
    made = generate("shop.default.mesh.local", clock.now + left - AUTHORITY_LIFETIME)
    store.put_secret("mesh/shop/ca/identity", Rotation(Stage.STABLE, made).to_json().encode())


def damage(store: Store) -> None:
    store.put_secret("mesh/shop/ca/identity", b'{"stage": "Stable", "authorities": [["x", "y"]]}')


@pytest.mark.parametrize("how", ["ended", "damaged", "sealed with another key"])
def test_a_certificate_is_served_to_its_end_whatever_becomes_of_the_ca(
    store: Store, identities: Identities, resource: Resource, clock: Clock, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resource
    first = identities.credential("shop", "cart-1", ID, "p256")
    again = Identities(store, "default", clock)  # which has to ask
    if how == "ended":
        make_it_end_soon(store, clock, timedelta(0))
    elif how == "damaged":
        damage(store)
    else:
        secret = store.secret

        def sealed(name: str) -> bytes | None:
            if "/ca/" in name:
                raise WrongStoreKey("it cannot be opened")
            return secret(name)

        monkeypatch.setattr(store, "secret", sealed)
    for moment in (clock.now, first.renew_at, first.not_after - timedelta(seconds=1)):
        clock.now = moment
        assert again.credential("shop", "cart-1", ID, "p256") == first
        assert again.credential("shop", "cart-1", ID, "p384") == first, "better than none"
    assert again.authorities.trouble("shop", "identity")
    clock.now = first.not_after
    with pytest.raises(UnusableAuthority):
        again.credential("shop", "cart-1", ID, "p256")


def test_a_certificate_of_another_name_is_not_served_for_want_of_a_ca(
    store: Store, identities: Identities, resource: Resource, clock: Clock
) -> None:
    assert resource
    identities.credential("shop", "cart-1", ID, "p256")
    again, renamed = Identities(store, "default", clock), replace(ID, spiffe_id=ID.spiffe_id + "2")
    damage(store)
    with pytest.raises(UnusableAuthority, match="PEM form"):
        again.credential("shop", "cart-1", renamed, "p256")


def test_a_damaged_certificate_is_made_anew(
    store: Store, identities: Identities, resource: Resource, clock: Clock
) -> None:
    assert resource
    identities.credential("shop", "cart-1", ID, "p256")
    store.put_secret("mesh/shop/svid/cart-1", b"{")
    assert Identities(store, "default", clock).credential("shop", "cart-1", ID, "p256").is_valid(clock.now)


def test_a_failing_ca_is_asked_at_growing_intervals_and_noticed_when_it_works(
    store: Store, resource: Resource, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resource
    steady = [1000.0]
    authorities = Authorities(store, "default", clock, lambda: steady[0])
    authorities.issuing("shop", "identity")
    good = store.secret("mesh/shop/ca/identity")
    assert good is not None
    damage(store)
    reads: list[float] = []
    secret = store.secret

    def counted(name: str) -> bytes | None:
        reads.append(steady[0])
        return secret(name)

    monkeypatch.setattr(store, "secret", counted)
    steady[0] += 10
    for _ in range(3000):  # ten minutes
        with contextlib.suppress(UnusableAuthority):
            authorities.issuing("shop", "identity")
        assert authorities.retry() == set()
        steady[0] += 0.2
    pauses = [round(b - a) for a, b in pairwise(reads)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert set(pauses[6:]) == {60}
    assert "next attempt in" in (authorities.trouble("shop", "identity") or "")
    assert authorities.troubles() == [("shop", "identity")]
    store.put_secret("mesh/shop/ca/identity", good)
    steady[0] += 60
    assert authorities.retry() == {"shop"}
    assert authorities.troubles() == []


@pytest.mark.parametrize("stage", [*Stage, None])
def test_there_is_a_way_out_of_every_stage_for_a_ca_that_has_ended(
    store: Store, identities: Identities, resource: Resource, clock: Clock, stage: Stage | None
) -> None:
    """None: the secret is damaged."""
    authorities = identities.authorities
    old = authorities.ensure(resource).issuer
    begun = stage in (Stage.DISTRIBUTING, Stage.ISSUING, Stage.RETIRING)
    if begun:
        clock.now = old.certificate.not_valid_after_utc - timedelta(days=1)
        authorities.begin(resource)
    steps = {Stage.ISSUING: [Event.DISTRIBUTED], Stage.RETIRING: [Event.DISTRIBUTED, Event.REPLACED]}
    for event in steps.get(stage or Stage.STABLE, []):
        authorities.step(resource, event)
    good = authorities.rotation(resource).handed_out
    if stage is None:
        damage(store)
    else:
        with pytest.raises(WrongStage, match="can still sign"):
            authorities.reset(resource, force=False)
        clock.now = authorities.rotation(resource).issuer.certificate.not_valid_after_utc
    after = authorities.reset(resource, force=False)
    assert after.stage is Stage.RETIRING
    assert after.bundle == (after.issuer,)
    assert good is None or after.issuer.fingerprint == good.fingerprint, "what was handed out is not thrown away"
    assert identities.credential("shop", "cart-1", ID, "p256").authority == after.issuer.fingerprint
    assert view_of("shop", store.list()).trust_bundles[0][1] == after.issuer.certificate_pem
    assert authorities.step(resource, Event.RETIRED).stage is Stage.STABLE


def test_a_ca_that_has_ended_can_also_be_rotated_step_by_step(
    identities: Identities, resource: Resource, clock: Clock
) -> None:
    authorities = identities.authorities
    clock.now = end_of(identities, resource)
    new = authorities.begin(resource).handed_out
    for event in (Event.DISTRIBUTED, Event.REPLACED, Event.RETIRED):
        after = authorities.step(resource, event)
    assert new is not None
    assert (after.stage, after.issuer.fingerprint) == (Stage.STABLE, new.fingerprint)


def test_a_new_ca_that_cannot_sign_does_not_take_over(
    store: Store, identities: Identities, read_resources: Read, clock: Clock, tmp_path: Path
) -> None:
    write_ca(tmp_path, clock.now)
    resource = store.put_all(identity(read_resources, from_files(tmp_path)))[1]
    identities.authorities.ensure(resource)
    write_ca(tmp_path, clock.now + timedelta(days=1) - AUTHORITY_LIFETIME)
    identities.authorities.begin(resource)
    clock.now += timedelta(days=2)
    with pytest.raises(WrongStage, match=r"the new CA cannot sign .*: abort, or reset"):
        identities.authorities.step(resource, Event.DISTRIBUTED)
    assert identities.authorities.step(resource, Event.ABORT).stage is Stage.STABLE


def test_a_reset_of_a_ca_that_can_sign_has_to_be_forced(identities: Identities, resource: Resource) -> None:
    before = identities.authorities.ensure(resource).issuer
    after = identities.authorities.reset(resource, force=True)
    assert after.issuer.fingerprint != before.fingerprint
    assert after.bundle == (after.issuer,)


def test_a_deleted_identity_takes_its_ca_along(store: Store, identities: Identities, resource: Resource) -> None:
    before = identities.authorities.ensure(resource).issuer.fingerprint
    store.delete("MeshIdentity", "shop", "identity")
    assert store.secret_names("mesh/shop/ca/") == []
    again = store.put(replace(resource, version=0))
    assert Identities(store, "default").authorities.ensure(again).issuer.fingerprint != before


def test_an_identity_that_is_made_again_at_once_has_its_new_ca_at_once(
    store: Store, identities: Identities, resource: Resource
) -> None:
    """Nothing that was remembered of the one before counts; nobody has to tell."""
    before = identities.issuer("shop", "identity", resource.creation_time).fingerprint
    store.delete("MeshIdentity", "shop", "identity")
    again = store.put(replace(resource, version=0))
    assert identities.issuer("shop", "identity", again.creation_time).fingerprint != before


def test_a_certificate_of_a_minute_lasts_half_of_it(
    store: Store, identities: Identities, read_resources: Read, clock: Clock
) -> None:
    short = "autogenerate: {enabled: true}, certificateParameters: {expiry: 1m}"
    store.put_all(identity(read_resources, short))
    made = set()
    for _ in range(30):
        made.add(identities.credential("shop", "cart-1", ID, "p256").credential.chain_pem)
        clock.now += timedelta(seconds=1)
    assert len(made) <= 2


# --- an identity whose CA cannot be used -----------------------------------------------------------------------------


def test_ca_files_that_cannot_be_used_are_refused_before_they_are_stored(
    store: Store, identities: Identities, read_resources: Read, clock: Clock, tmp_path: Path
) -> None:
    mesh, wanted = identity(read_resources, from_files(tmp_path))
    with pytest.raises(InvalidResource, match=r"spec\.provider\.bundled\.ca.*cannot read"):
        identities.authorities.check(wanted)
    write_ca(tmp_path, clock.now - AUTHORITY_LIFETIME)
    with pytest.raises(InvalidResource, match="expired on"):
        identities.authorities.check(wanted)
    write_ca(tmp_path, clock.now + timedelta(days=1))
    with pytest.raises(InvalidResource, match="not valid before"):
        identities.authorities.check(wanted)
    write_ca(tmp_path, clock.now)
    identities.authorities.check(wanted)
    stored = store.put_all([mesh, wanted])[1]
    identities.authorities.ensure(stored)
    (tmp_path / "ca.key").unlink()
    identities.authorities.check(wanted)  # the CA is kept: its files are for the next one
    (elsewhere := tmp_path / "other").mkdir()
    with pytest.raises(InvalidResource, match=r"other/ca\.pem"):
        identities.authorities.check(identity(read_resources, from_files(elsewhere))[1])


def test_an_identity_that_never_had_a_ca_is_not_in_force(
    store: Store, identities: Identities, read_resources: Read, clock: Clock, tmp_path: Path
) -> None:
    resource = store.put_all(identity(read_resources, from_files(tmp_path)))[1]
    assert "cannot read" in identities.authorities.without([resource])["identity"]
    write_ca(tmp_path, clock.now)
    fresh = Identities(store, "default", clock).authorities
    assert fresh.without([resource]) == {}
    make_it_end_soon(store, clock, timedelta(0))
    assert Identities(store, "default", clock).authorities.without([resource]) == {}, "it had one: it stays in force"
    damage(store)
    assert Identities(store, "default", clock).authorities.without([resource]) == {}


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_what_a_fast_clock_made_is_replaced_when_the_clock_is_right(
    store: Store, identities: Identities, resource: Resource, clock: Clock
) -> None:
    right = clock.now
    clock.now = right + timedelta(days=30)
    fast = identities.credential("shop", "cart-1", ID, "p256")
    clock.now = right
    assert not fast.is_valid(right)
    assert identities.is_due("shop", "cart-1")
    held = identities.credential("shop", "cart-1", ID, "p256")
    assert held.is_valid(right)
    rotation = identities.authorities.rotation(resource)
    assert rotation.issuer.problem_at(right) is None
    [(_, bundle)] = view_of("shop", store.list()).trust_bundles
    assert bundle == rotation.issuer.certificate_pem
    leaf = x509.load_pem_x509_certificate(held.credential.chain_pem.encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(bundle.encode()))
