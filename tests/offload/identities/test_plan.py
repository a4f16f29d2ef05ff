"""What is made of a keys directory: layouts, messages, versions, trust bundles."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from offload.identities.in_force import rule_of
from offload.identities.sealing import RETIREMENT_SECONDS
from tests.offload.key_files import (
    DAY,
    NOW,
    Authority,
    key_id,
    key_pem,
    make_key,
    pem,
    shared_key,
    spki,
    write_pair,
)
from tests.offload.node import EVERYBODY, Node, algorithms


def test_every_layout(keys: Path, authority: Authority) -> None:
    key = shared_key("p256")
    write_pair(keys / "folder", "tls", key, authority.issue(key))
    write_pair(keys, "flat", key, authority.issue(key, "flat"))
    (keys / "combined.pem").write_bytes(pem(authority.issue(key, "combined")) + key_pem(key))
    (keys / "key-first.pem").write_bytes(key_pem(key) + pem(authority.issue(key, "key-first")))
    (keys / "crossed").mkdir()
    (keys / "crossed" / "a.pem").write_bytes(key_pem(key))
    (keys / "crossed" / "z.cer").write_bytes(pem(authority.issue(key, "crossed")))
    (keys / "README.txt").write_text("not looked at")
    (keys / ".hidden.pem").write_text("not looked at")
    found = Node(keys).look()
    assert found.problems == ()
    assert sorted(found.identities) == ["combined", "crossed", "flat", "folder", "key-first"]


def test_a_kubernetes_secret_and_its_update(keys: Path, authority: Authority) -> None:
    """A mounted secret: <name>/tls.crt -> ..data/tls.crt, ..data -> ..2026; an update swaps ..data."""
    volume = keys / "www"
    key = shared_key("p256")
    write_pair(volume / "..2026", "tls", key, authority.issue(key))
    (volume / "..data").symlink_to("..2026")
    for name in ("tls.crt", "tls.key"):
        (volume / name).symlink_to(f"..data/{name}")
    node = Node(keys)
    first = node.look()
    assert first.problems == ()
    new = shared_key("p256", 1)
    write_pair(volume / "..2027", "tls", new, authority.issue(new))
    (volume / "..new").symlink_to("..2027")
    (volume / "..new").rename(volume / "..data")
    second = node.look()
    assert second.problems == ()
    assert first.identities["www"].version != second.identities["www"].version
    assert second.identities["www"].pairs[0].key.public_key_der == spki(new)


@pytest.mark.parametrize("algorithm", ["p256", "p384", "ed25519", "rsa2048", "rsa3072", "rsa4096"])
def test_the_message(keys: Path, authority: Authority, algorithm: str) -> None:
    key = shared_key(algorithm)
    leaf = authority.issue(key, dns=("www.example.com", "*.Example.com"))
    write_pair(keys, "www", key, leaf, authority.certificate)
    node = Node(keys, www={"usage": "any", "selectors": EVERYBODY})
    node.look()
    assert node.reasons() == []
    (credential,) = node.message("www").credentials
    assert list(credential.certificate_chain) == [c.public_bytes(Encoding.DER) for c in (leaf, authority.certificate)]
    assert list(credential.dns_names) == ["www.example.com", "*.example.com"]
    assert credential.tls12
    assert credential.not_after == int(leaf.not_valid_after_utc.timestamp())
    rsa = ([0x0804, 0x0805, 0x0806], [0x0401, 0x0501, 0x0601])
    others = {"p256": ([0x0403], [0x0503, 0x0603]), "p384": ([0x0503], [0x0403, 0x0603]), "ed25519": ([0x0807], [])}
    tls13, only_tls12 = others.get(algorithm, rsa)
    assert list(credential.signature_schemes) == tls13 + only_tls12
    node.configure({}, www={"usage": "tls13", "selectors": EVERYBODY})
    node.look()
    (credential,) = node.message("www").credentials
    assert list(credential.signature_schemes) == tls13
    assert not credential.tls12


def test_several_keys_of_one_identity_cheapest_first(keys: Path, authority: Authority) -> None:
    for algorithm in ("rsa2048", "p384", "p256", "ed25519"):
        key = shared_key(algorithm)
        write_pair(keys / "www", algorithm, key, authority.issue(key))
    identity = Node(keys).look().identities["www"]
    assert algorithms(identity) == ["p256", "ed25519", "p384", "rsa2048"]


def test_of_two_certificates_for_one_key_the_longer_lasting_is_served(keys: Path, authority: Authority) -> None:
    key = shared_key("p256")
    old, new = authority.issue(key, end=10 * DAY), authority.issue(key, end=20 * DAY)
    other = authority.issue(key, dns=("other.example.com",))
    write_pair(keys / "www", "a", key, new)
    (keys / "www" / "b.crt").write_bytes(pem(old))
    (keys / "www" / "c.crt").write_bytes(pem(other))
    node = Node(keys)
    node.look()
    assert node.reasons() == []
    assert [list(c.dns_names) for c in node.message("www").credentials] == [["other.example.com"], ["www.example.com"]]
    assert {c.not_after for c in node.message("www").credentials} >= {int(new.not_valid_after_utc.timestamp())}
    assert len(rule_of(node.plan.identities["www"])["keys"]) == 1


def test_the_rule_says_who_and_for_what(keys: Path, authority: Authority) -> None:
    for algorithm in ("p256", "rsa2048"):
        key = shared_key(algorithm)
        write_pair(keys / "www", algorithm, key, authority.issue(key))
    node = Node(keys, www={"usage": "tls12+13", "decrypt": True, "selectors": [{"uid": 7}, {"cgroup": "/a"}]})
    rule = rule_of(node.look().identities["www"])
    assert rule["selectors"] == [{"uid": 7}, {"cgroup": "/a"}]
    assert [(k["key"].algorithm, k["usage"], k["decrypt"]) for k in rule["keys"]] == [
        ("p256", "tls12+13", False),
        ("rsa2048", "tls12+13", True),
    ]


def test_without_selectors_nobody_may_use_it_and_that_is_said(keys: Path, authority: Authority) -> None:
    key = shared_key("p256")
    write_pair(keys, "www", key, authority.issue(key))
    node = Node(keys)
    assert rule_of(node.look().identities["www"])["selectors"] == []
    assert node.warnings() == ["has no selectors, so nobody may use it; add some under 'identities'"]


def test_an_identity_with_a_name_that_no_file_can_have(keys: Path, authority: Authority) -> None:
    key = shared_key("p256")
    write_pair(keys, "cart", key, authority.issue(key))
    name = "spiffe://mesh.example/ns/shop/sa/cart"
    rule: dict[str, object] = {"source": {"files": "cart"}, "selectors": EVERYBODY}
    node = Node(keys, **{name: rule})
    assert list(node.look().identities) == [name]
    assert node.warnings() == []


def test_the_version_depends_on_the_content_only(keys: Path, authority: Authority) -> None:
    key = shared_key("p256")
    write_pair(keys, "www", key, authority.issue(key))
    node = Node(keys)
    first = node.look().identities["www"]
    assert node.look().identities["www"] is first
    assert Node(keys).look().identities["www"].version == first.version
    node.configure({}, www={"selectors": EVERYBODY})
    second = node.look()
    assert second.identities["www"] is not first
    assert second.identities["www"].version == first.version, "selectors are not public"
    write_pair(keys, "www", key, authority.issue(key))
    assert node.look().identities["www"].version != first.version


def test_trust_bundles(keys: Path, tmp_path: Path, authority: Authority) -> None:
    key = shared_key("p256")
    other = Authority.make("other CA")
    write_pair(keys / "www", "tls", key, authority.issue(key))
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.pem + other.pem + other.pem)
    node = Node(keys)
    node.configure({"trust_bundles": [{"file": str(bundle), "trust_domain": "mesh.example"}]})
    node.look()
    (served,) = node.message("www").trust_bundles
    assert served.trust_domain == "mesh.example"
    ders = [a.certificate.public_bytes(Encoding.DER) for a in (authority, other)]
    assert list(served.authorities) == ders
    (keys / "www" / "ca.crt").write_bytes(other.pem)
    node.look()
    (served,) = node.message("www").trust_bundles
    assert (served.trust_domain, list(served.authorities)) == ("", ders[1:]), "what stands beside the pair goes first"
    node.configure({}, www={"trust_bundles": []})
    node.look()
    assert list(node.message("www").trust_bundles) == [], "and what the configuration says of the identity before that"
    assert [r for r in node.reasons() if "ca.crt" in r] == []


def test_a_broken_trust_bundle_keeps_the_previous_one(keys: Path, authority: Authority) -> None:
    key = shared_key("p256")
    write_pair(keys / "www", "tls", key, authority.issue(key))
    (keys / "www" / "ca.crt").write_bytes(authority.pem)
    node = Node(keys)
    node.look()
    for broken, reason in (
        (b"garbage", "holds neither"),
        (pem(authority.issue(key)), "is not a CA certificate"),
    ):
        (keys / "www" / "ca.crt").write_bytes(broken)
        node.look()
        assert reason in node.plan.problems[0].reason
        assert node.plan.problems[0].previous_kept
        assert len(node.message("www").trust_bundles) == 1
    node.configure({"trust_bundles": [{"file": str(keys / "none.pem")}]})
    (keys / "www" / "ca.crt").unlink()
    node.look()
    assert node.reasons() == ["none.pem: trust bundle: the file does not exist"]
    assert len(node.message("www").trust_bundles) == 0


# ---- keys that others take the place of ----


def key_ids(node: Node, name: str = "www") -> list[bytes]:
    return [rule["key"].key_id for rule in rule_of(node.plan.identities[name])["keys"]]


def test_a_superseded_key_goes_on_for_a_while(tmp_path: Path, authority: Authority) -> None:
    old, new = make_key("p256"), make_key("p256")
    write_pair(tmp_path, "www", old, authority.issue(old))
    node = Node(tmp_path)
    node.look()
    assert node.plan.next_retirement is None
    write_pair(tmp_path, "www", new, authority.issue(new))
    node.look()
    assert set(key_ids(node)) == {key_id(old), key_id(new)}
    (credential,) = node.message("www").credentials
    assert credential.key_id == key_id(new), "nobody is told of the old one"
    assert node.plan.next_retirement == NOW.timestamp() + RETIREMENT_SECONDS
    node.look(NOW + timedelta(seconds=RETIREMENT_SECONDS - 1))
    assert len(key_ids(node)) == 2
    node.look(NOW + timedelta(seconds=RETIREMENT_SECONDS))
    assert key_ids(node) == [key_id(new)]
    assert node.plan.next_retirement is None


def test_a_key_that_comes_back_is_not_retired(tmp_path: Path, authority: Authority) -> None:
    old, new = make_key("p256"), make_key("p256")
    node = Node(tmp_path)
    for key in (old, new, old):
        write_pair(tmp_path, "www", key, authority.issue(key))
        node.look()
    assert set(key_ids(node)) == {key_id(old), key_id(new)}
    node.look(NOW + timedelta(seconds=RETIREMENT_SECONDS))
    assert key_ids(node) == [key_id(old)]


def test_a_removed_key_ends_at_once(tmp_path: Path, authority: Authority) -> None:
    one, two = make_key("p256"), make_key("p384")
    write_pair(tmp_path / "www", "one", one, authority.issue(one))
    write_pair(tmp_path / "www", "two", two, authority.issue(two))
    node = Node(tmp_path)
    node.look()
    (tmp_path / "www" / "one.key").unlink()
    (tmp_path / "www" / "one.crt").unlink()
    node.look()
    assert key_ids(node) == [key_id(two)]
