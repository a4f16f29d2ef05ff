"""Tokens: what they let their bearer be, expiry, revocation, rotation of the keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from control.kinds import KINDS
from control.model.resource import Resource
from control.store.database import StoreKey
from control.store.errors import Conflict, NotFound
from control.store.store import FORGOTTEN_AFTER_S, KEPT_AFTER_S, Store
from control.tokens.tokens import MAX_NEW_KEYS, MAX_TOKEN_BYTES, InvalidToken, Tokens

Read = Callable[[str], list[Resource]]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    yield opened
    opened.close()


@pytest.fixture
def tokens(store: Store, clock: Clock) -> Tokens:
    return Tokens(store, clock)


def dataplane(read: Read, name: str, mesh: str = "shop", labels: str = "app: cart") -> Resource:
    text = f"type: Dataplane\nname: {name}\nmesh: {mesh}\nlabels: {{{labels}}}\n"
    return read(text + "spec: {networking: {address: 10.0.0.1}}")[0]


def test_a_token_lets_its_bearer_be_what_it_says(tokens: Tokens, read_resources: Read) -> None:
    named = tokens.check(tokens.issue("dataplane", 60, "shop", name="cart-1"), "dataplane", "shop")
    assert named.refusal(dataplane(read_resources, "cart-1")) is None
    assert named.refusal(dataplane(read_resources, "cart-2")) == "the token is for the dataplane 'cart-1', not 'cart-2'"
    labelled = tokens.check(tokens.issue("dataplane", 60, "shop", labels={"app": "cart"}), "dataplane", "shop")
    assert labelled.refusal(dataplane(read_resources, "any")) is None
    assert "the token is for dataplanes with app: cart; 'x' has web" in str(
        labelled.refusal(dataplane(read_resources, "x", labels="app: web"))
    )
    assert "has no such label" in str(labelled.refusal(dataplane(read_resources, "x", labels="")))
    assert "for the mesh 'shop', not 'other'" in str(labelled.refusal(dataplane(read_resources, "x", "other")))


def test_expiry(tokens: Tokens, clock: Clock) -> None:
    token = tokens.issue("node", 60, name="n")
    clock.now += 59
    assert tokens.check(token, "node").name == "n"
    clock.now += 1
    with pytest.raises(InvalidToken, match="has expired: generate a new one"):
        tokens.check(token, "node")
    clock.now -= 1000
    with pytest.raises(InvalidToken, match="not valid yet"):
        tokens.check(token, "node")


def test_kinds_and_meshes_do_not_mix(tokens: Tokens) -> None:
    tokens.issue("node", 60)
    tokens.issue("dataplane", 60, "other")
    token = tokens.issue("dataplane", 60, "shop")
    for kind, mesh in (("node", ""), ("dataplane", "other"), ("admin", "")):
        with pytest.raises(InvalidToken):
            tokens.check(token, kind, mesh)  # type: ignore[arg-type]


def test_a_token_of_another_kind_by_the_same_key_is_refused(tokens: Tokens, store: Store) -> None:
    tokens.issue("node", 60)
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(store.secret("token-keys/node/1") or b"", None)
    claims = {"kind": "admin", "exp": 2**40, "nbf": 0, "jti": "x"}
    forged = jwt.encode(claims, key, "ES256", headers={"kid": "1"})  # type: ignore[arg-type]
    with pytest.raises(InvalidToken, match="this is a admin token"):
        tokens.check(forged, "node")


@pytest.mark.parametrize("broken", ["", "x", "a.b.c", "e30.e30.", "x" * (MAX_TOKEN_BYTES + 1)])
def test_garbage(tokens: Tokens, broken: str) -> None:
    with pytest.raises(InvalidToken):
        tokens.check(broken, "node")


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_other_algorithms_are_refused(tokens: Tokens, algorithm: str) -> None:
    tokens.issue("node", 60)
    claims = {"kind": "node", "exp": 2**40, "nbf": 0, "jti": "x"}
    key = None if algorithm == "none" else "x" * 32
    forged = jwt.encode(claims, key, algorithm, headers={"kid": "1"})  # type: ignore[arg-type]
    with pytest.raises(InvalidToken, match="the token is not valid"):
        tokens.check(forged, "node")


def test_signed_by_somebody_else(tokens: Tokens) -> None:
    tokens.issue("node", 60)
    key = ec.generate_private_key(ec.SECP256R1())
    claims = {"kind": "node", "exp": 2**40, "nbf": 0, "jti": "x"}
    with pytest.raises(InvalidToken, match="the token is not valid"):
        tokens.check(jwt.encode(claims, key, "ES256", headers={"kid": "1"}), "node")
    with pytest.raises(InvalidToken, match=r"a key that is not .* in force"):
        tokens.check(jwt.encode(claims, key, "ES256", headers={"kid": "2"}), "node")


def test_revocation_by_token_and_by_id(tokens: Tokens) -> None:
    first, second = tokens.issue("node", 60), tokens.issue("node", 60)
    tokens.revoke(first, "lost")
    with pytest.raises(InvalidToken, match="was revoked"):
        tokens.check(first, "node")
    tokens.revoke(tokens.check(second, "node").jti)
    with pytest.raises(InvalidToken, match="was revoked"):
        tokens.check(second, "node")


def test_what_is_nothing_is_not_revoked(tokens: Tokens, store: Store) -> None:
    for wrong in ("a.b.c", "x" * 65, "", "blah", "A" * 32):
        with pytest.raises(InvalidToken, match=r"not a token of a control plane|neither a token nor the id of one"):
            tokens.revoke(wrong)
    unknown = "0123456789abcdef" * 2
    with pytest.raises(NotFound, match=f"with the id {unknown} was issued here"):
        tokens.revoke(unknown)
    assert not store.is_revoked(unknown)
    assert tokens.revoke(unknown, force=True).what == "whatever has that id"
    assert store.is_revoked(unknown)
    assert tokens.revoke(unknown).jti == unknown, "once more changes nothing"


def test_a_token_of_somebody_else_is_not_revoked(tokens: Tokens, store: Store) -> None:
    """Nor is the id in it: whoever makes a token with the id of another could have that one revoked."""
    mine = tokens.make("node", 60, name="n1")
    key = ec.generate_private_key(ec.SECP256R1())
    claims = {"kind": "node", "exp": 2**40, "nbf": 0, "jti": mine.claims.jti}
    for key_id, reason in (("1", "the token is not valid"), ("2", r"not \(or no longer\) in force")):
        with pytest.raises(InvalidToken, match=reason):
            tokens.revoke(jwt.encode(claims, key, "ES256", headers={"kid": key_id}))
    with pytest.raises(InvalidToken, match="not a token of a control plane"):
        tokens.revoke(jwt.encode({**claims, "kind": "other"}, key, "ES256", headers={"kid": "1"}))
    assert not store.is_revoked(mine.claims.jti)


def test_what_was_revoked_is_said(tokens: Tokens) -> None:
    made = [
        tokens.make("node", -1, name="n1"),  # its certificates may still be good
        tokens.make("dataplane", 60, "shop", "web-1"),
        tokens.make("dataplane", 60, "shop", labels={"app": "web"}),
        tokens.make("dataplane", 60, "shop"),
        tokens.make("admin", 60),
    ]
    whats = [
        "node token of 'n1'",
        "dataplane token of 'web-1' in mesh 'shop'",
        "dataplane token of dataplanes with app: web in mesh 'shop'",
        "dataplane token of any dataplane in mesh 'shop'",
        "admin token",
    ]
    assert [tokens.revoke(one.claims.jti).what for one in made] == whats
    assert [tokens.revoke(one.token).what for one in made] == whats


def test_ids_are_forgotten_when_they_are_of_no_use(store: Store) -> None:
    now = int(time.time())
    store.record_issued("old", now - KEPT_AFTER_S - 10, "x", now)
    store.record_issued("node", now - KEPT_AFTER_S - 10, "a node's", now, FORGOTTEN_AFTER_S)
    store.record_issued("ended", now - 10, "two words", now)
    assert store.issued("old") is None
    assert store.issued("node") == (now - KEPT_AFTER_S - 10, "a node's")
    assert store.issued("ended") == (now - 10, "two words")
    assert store.generation() == 0


def test_rotation_of_the_signing_key(tokens: Tokens, store: Store) -> None:
    old = tokens.issue("dataplane", 600, "shop")
    assert tokens.add_key("dataplane", "shop") == "2"
    new = tokens.issue("dataplane", 600, "shop")
    other = Tokens(store, tokens._clock)
    for token in (old, new):
        assert other.check(token, "dataplane", "shop").mesh == "shop"
    with pytest.raises(Conflict, match="2 is the key that signs: add a new one first"):
        tokens.remove_key("2", "dataplane", "shop")
    with pytest.raises(Conflict, match="there is no signing key 9; there are 1, 2"):
        tokens.remove_key("9", "dataplane", "shop")
    tokens.remove_key("1", "dataplane", "shop")
    with pytest.raises(InvalidToken, match=r"not \(or no longer\) in force"):
        tokens.check(old, "dataplane", "shop")
    assert tokens.check(new, "dataplane", "shop").jti


def test_a_key_of_another_replica_is_found_at_once(tokens: Tokens, store: Store, clock: Clock) -> None:
    tokens.check(tokens.issue("node", 60), "node")
    other = Tokens(store, clock)
    other.add_key("node")
    assert tokens.check(other.issue("node", 60), "node").kind == "node"


def test_a_mesh_that_is_made_again_knows_no_token_of_the_one_before(
    tokens: Tokens, store: Store, read_resources: Callable[[str], list[Resource]]
) -> None:
    mesh = read_resources("type: Mesh\nname: shop")
    store.put_all(mesh)
    old = tokens.issue("dataplane", 600, "shop")
    tokens.check(old, "dataplane", "shop")
    store.delete("Mesh", "", "shop")
    store.put_all(mesh)
    new = tokens.issue("dataplane", 600, "shop")
    with pytest.raises(InvalidToken):
        tokens.check(old, "dataplane", "shop")
    assert tokens.check(new, "dataplane", "shop").mesh == "shop"


def test_a_mesh_may_be_made_again_often(
    tokens: Tokens, store: Store, read_resources: Callable[[str], list[Resource]]
) -> None:
    mesh = read_resources("type: Mesh\nname: shop")
    for _ in range(MAX_NEW_KEYS + 1):
        store.put_all(mesh)
        tokens.issue("dataplane", 600, "shop")
        store.delete("Mesh", "", "shop")
    store.put_all(mesh)
    tokens.issue("dataplane", 600, "shop")
    assert tokens.add_key("dataplane", "shop") == "2"


def test_it_is_told_which_tokens_are_void(tokens: Tokens, store: Store) -> None:
    told: list[str] = []
    tokens.watch(lambda: told.append("now"))
    texts = [tokens.issue("dataplane", 600, "shop", name=name) for name in ("a", "b")]
    tokens.add_key("dataplane", "shop")
    texts.append(tokens.issue("dataplane", 600, "shop", name="c"))
    first, second, third = (tokens.check(text, "dataplane", "shop") for text in texts)
    assert tokens.void({first, second, third}) == {}
    store.revoke(first.jti, 2**40, "by another replica")
    assert tokens.void({first, second, third}) == {first: "the token was revoked"}
    tokens.remove_key("1", "dataplane", "shop")
    tokens.revoke(first.jti)
    assert told == ["now", "now"]
    void = tokens.void({first, second, third})
    assert void.keys() == {first, second}
    assert void[second] == "the key that signed the token is no longer in force"
