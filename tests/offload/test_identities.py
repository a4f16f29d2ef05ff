"""What is made of a keys directory: good and bad ones, and what stays in force when something breaks."""

from __future__ import annotations

import datetime
import os
import shutil
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offload.certificates import CertificateError, read_authorities, read_chain
from offload.config import Config
from offload.identities import IdentityInForce, Plan, bundle_files, changes, plan, rule_of
from offload.keys_directory import KeysDirectory
from offload.v1 import private_key_pb2
from tests.offload.key_files import DAY, NOW, Authority, build_certificate, key_pem, pem, shared_key, spki, write_pair

EVERYBODY = [{"uid": 0}]


class Node:
    """A keys directory and what is in force because of it."""

    def __init__(self, folder: Path, **identities: dict[str, object]) -> None:
        self.folder = folder
        self.directory = KeysDirectory(folder)
        self.plan = Plan()
        self.configure({}, **identities)

    def configure(self, keys: dict[str, object], **identities: dict[str, object]) -> None:
        self.config = Config.model_validate({"keys": {"directory": str(self.folder)} | keys, "identities": identities})

    def look(self, now: datetime.datetime = NOW) -> Plan:
        self.plan = plan(self.plan.identities, self.directory.look(bundle_files(self.config)), self.config, now)
        return self.plan

    def reasons(self) -> list[str]:
        return [f"{Path(p.path).name}: {p.reason}" for p in self.plan.problems]

    def message(self, name: str) -> private_key_pb2.Identity:
        return private_key_pb2.Identity.FromString(self.plan.identities[name].message)


def algorithms(identity: IdentityInForce) -> list[str]:
    return [pair.key.algorithm for pair in identity.pairs]


def broken_names(folder: Path) -> None:
    """Names that are not UTF-8, on both levels."""
    for name in (b"\xff.pem", b"\x1b.pem", b"other/\xfe.pem"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(b"garbage")


# ---- good directories ----


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
    rsa = [0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601]
    expected = {"p256": [0x0403], "p384": [0x0503], "ed25519": [0x0807]}.get(algorithm, rsa)
    assert list(credential.signature_schemes) == expected
    node.configure({}, www={"usage": "tls13", "selectors": EVERYBODY})
    node.look()
    (credential,) = node.message("www").credentials
    assert list(credential.signature_schemes) == [s for s in expected if s not in (0x0401, 0x0501, 0x0601)]
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
    found = Node(keys).look()
    assert rule_of(found.identities["www"])["selectors"] == []
    assert [r.text for r in found.remarks] == ["has no selectors, so nobody may use it; add some under 'identities'"]


def test_an_identity_with_a_name_that_no_file_can_have(keys: Path, authority: Authority) -> None:
    key = shared_key("p256")
    write_pair(keys, "cart", key, authority.issue(key))
    name = "spiffe://mesh.example/ns/shop/sa/cart"
    found = Node(keys, **{name: {"source": {"files": "cart"}, "selectors": EVERYBODY}}).look()
    assert list(found.identities) == [name]
    assert found.remarks == ()


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
    assert node.reasons() == ["none.pem: trust bundle: there is no such file"]
    assert len(node.message("www").trust_bundles) == 0


# ---- bad directories ----

Break = Callable[[Path, Authority], None]


def _write(name: str, content: bytes) -> Break:
    return lambda folder, _: (folder / name).write_bytes(content) and None


def _chain(*make: Callable[[Authority], x509.Certificate]) -> Break:
    return lambda folder, authority: (folder / "tls.crt").write_bytes(pem(*(m(authority) for m in make))) and None


_KEY = shared_key("p256")
_OTHER = shared_key("p256", 1)
_NO_SIGNATURE = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
_GOOD_PEM_LINES = key_pem(_KEY).splitlines(keepends=True)

BROKEN: dict[str, tuple[Break, str]] = {
    "empty certificate": (_write("tls.crt", b""), "tls.crt: holds neither a certificate nor a private key"),
    "garbage certificate": (_write("tls.crt", os.urandom(500)), "tls.crt: holds neither a certificate nor"),
    "cut-off certificate": (
        lambda f, a: (f / "tls.crt").write_bytes(pem(a.issue(_KEY))[:-40]) and None,
        "tls.crt: a PEM block has no END line: the file is cut off",
    ),
    "certificate not base64": (
        _write("tls.crt", b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"),
        "tls.crt: certificate 1 is not valid base64",
    ),
    "certificate not DER": (
        _write("tls.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "tls.crt: certificate 1 cannot be parsed",
    ),
    "another key's certificate": (
        _chain(lambda a: a.issue(_OTHER)),
        "tls.crt: no private key beside it has the public key of its leaf (CN=www)",
    ),
    "expired": (_chain(lambda a: a.issue(_KEY, begin=-3 * DAY, end=-2 * DAY)), "certificate 1 (CN=www) expired on"),
    "not yet valid": (_chain(lambda a: a.issue(_KEY, begin=DAY)), "certificate 1 (CN=www) is not valid before"),
    "root first": (
        _chain(lambda a: a.certificate, lambda a: a.issue(_KEY)),
        "tls.crt: certificate 1 (CN=test CA) was not issued by certificate 2 (CN=www): put the leaf first",
    ),
    "a stranger's issuer": (
        _chain(lambda a: a.issue(_KEY), lambda _: Authority.make("stranger").certificate),
        "was not issued by certificate 2 (CN=stranger)",
    ),
    "an issuer of the same name with another key": (
        _chain(lambda a: a.issue(_KEY), lambda _: Authority.make("test CA").certificate),
        "was not issued by certificate 2 (CN=test CA)",
    ),
    "too long a chain": (
        lambda f, a: (f / "tls.crt").write_bytes(pem(*[a.issue(_KEY)] * 11)) and None,
        "tls.crt: 11 certificates",
    ),
    "may not sign": (_chain(lambda a: a.issue(_KEY, usage=_NO_SIGNATURE)), "does not allow digital signatures"),
    "empty key": (_write("tls.key", b""), "tls.key: holds neither a certificate nor a private key"),
    "garbage key": (
        _write("tls.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "tls.key: ",
    ),
    "cut-off key": (_write("tls.key", b"".join(_GOOD_PEM_LINES[:-1])), "tls.key: a PEM block has no END line"),
    "encrypted key": (
        _write("tls.key", _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))),
        "tls.key: ",
    ),
    "two keys in one file": (_write("tls.key", key_pem(_KEY) + key_pem(_OTHER)), "tls.key: holds 2 private keys"),
    "another key": (_write("tls.key", key_pem(_OTHER)), "tls.key: no certificate beside it has its public key"),
    "a folder there": (lambda f, _: (f / "tls.key").unlink() or (f / "tls.key").mkdir(), "not a regular file"),
    "a pipe there": (lambda f, _: (f / "tls.key").unlink() or os.mkfifo(f / "tls.key"), "not a regular file"),
    "a symlink to nothing": (
        lambda f, _: (f / "tls.key").unlink() or (f / "tls.key").symlink_to("none"),
        "tls.key: a symlink to nothing",
    ),
    "far too large": (_write("tls.crt", b"x" * (1024 * 1024 + 1)), "tls.crt: larger than 1048576 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_file_is_refused_with_its_reason_and_the_rest_serves(keys: Path, authority: Authority, case: str) -> None:
    break_it, reason = BROKEN[case]
    write_pair(keys / "www", "tls", _KEY, authority.issue(_KEY))
    write_pair(keys, "other", _OTHER, authority.issue(_OTHER))
    break_it(keys / "www", authority)
    node = Node(keys)
    found = node.look()
    assert list(found.identities) == ["other"]
    assert any(reason in r for r in node.reasons()), node.reasons()
    assert not any(p.previous_kept for p in found.problems)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_replacement_keeps_the_previous_one(keys: Path, authority: Authority, case: str) -> None:
    break_it, reason = BROKEN[case]
    write_pair(keys / "www", "tls", _KEY, authority.issue(_KEY))
    node = Node(keys)
    before = node.look().identities["www"]
    break_it(keys / "www", authority)
    for _ in range(2):
        found = node.look()
        after = found.identities["www"]
        assert after.message == before.message
        assert [p.kept for p in after.pairs] == [True]
        assert any(reason in r for r in node.reasons()), node.reasons()
        assert any(p.previous_kept for p in found.problems)
    shutil.rmtree(keys / "www")
    write_pair(keys / "www", "tls", _KEY, authority.issue(_KEY))
    assert [p.kept for p in node.look().identities["www"].pairs] == [False]
    assert node.reasons() == []


def test_a_pair_written_one_file_after_the_other(keys: Path, authority: Authority) -> None:
    write_pair(keys, "www", _KEY, authority.issue(_KEY))
    node = Node(keys)
    before = node.look().identities["www"]
    (keys / "www.crt").write_bytes(pem(authority.issue(_OTHER)))
    assert node.look().identities["www"].message == before.message
    (keys / "www.key").write_bytes(key_pem(_OTHER))
    after = node.look().identities["www"]
    assert node.reasons() == []
    assert after.pairs[0].key.public_key_der == spki(_OTHER)


def test_removing_the_key_removes_the_identity(keys: Path, authority: Authority) -> None:
    write_pair(keys, "www", _KEY, authority.issue(_KEY))
    write_pair(keys, "other", _OTHER, authority.issue(_OTHER))
    node = Node(keys)
    before = node.look()
    (keys / "www.key").unlink()
    after = node.look()
    assert list(after.identities) == ["other"]
    difference = changes(before.identities, after.identities)
    assert (difference.added, difference.changed, difference.removed) == ((), (), ("www",))


def test_names_that_are_not_utf8(keys: Path, authority: Authority) -> None:
    write_pair(keys / "other", "tls", _KEY, authority.issue(_KEY))
    broken_names(keys)
    node = Node(keys)
    assert list(node.look().identities) == ["other"]
    assert node.reasons() == [
        "?.pem: its name is not printable UTF-8",
        "\\xff.pem: its name is not printable UTF-8",
        "\\xfe.pem: holds neither a certificate nor a private key in PEM form",
    ]


def test_one_of_two_pairs_breaks(keys: Path, authority: Authority) -> None:
    rsa = shared_key("rsa2048")
    write_pair(keys / "www", "ec", _KEY, authority.issue(_KEY))
    write_pair(keys / "www", "rsa", rsa, authority.issue(rsa))
    (keys / "www" / "rsa.key").write_text("garbage")
    assert algorithms(Node(keys).look().identities["www"]) == ["p256"]


def test_a_directory_that_goes_away_takes_nothing_with_it(keys: Path, authority: Authority) -> None:
    write_pair(keys, "www", _KEY, authority.issue(_KEY))
    node = Node(keys)
    before = node.look()
    shutil.move(keys, keys.with_name("away"))
    after = node.look()
    assert after.identities == before.identities
    assert after.problems[0].reason == "cannot be listed: No such file or directory"
    assert after.problems[0].previous_kept
    node.configure({}, www={"selectors": EVERYBODY})
    assert rule_of(node.look().identities["www"])["selectors"] == EVERYBODY
    node.configure({})
    assert rule_of(node.look().identities["www"])["selectors"] == [], "what is taken away is taken away"


def test_a_configured_identity_without_files(keys: Path) -> None:
    node = Node(keys, www={"selectors": EVERYBODY})
    node.look()
    assert node.reasons() == [
        "www: no usable key pair; expected certificate and key in this folder or in www.crt and www.key or www.pem"
    ]


def test_expiry_while_it_serves_is_said_and_goes_on(keys: Path, authority: Authority) -> None:
    write_pair(keys, "www", _KEY, authority.issue(_KEY, end=10 * DAY))
    node = Node(keys, www={"selectors": EVERYBODY})
    assert node.look().remarks == ()
    assert [r.text for r in node.look(NOW + 5 * DAY).remarks] == [f"{keys}/www.crt expires within 5 days"]
    late = node.look(NOW + 11 * DAY)
    assert list(late.identities) == ["www"]
    assert [r.text for r in late.remarks] == [f"{keys}/www.crt has expired and peers refuse it"]


def test_remarks(keys: Path, authority: Authority) -> None:
    write_pair(keys, "www", _KEY, authority.issue(_KEY, dns=()))
    write_pair(keys, "xxx", _KEY, authority.issue(_KEY))
    (keys / "xxx.key").chmod(0o644)
    texts = [r.text for r in Node(keys, www={"selectors": EVERYBODY}, xxx={"selectors": EVERYBODY}).look().remarks]
    assert texts == [
        f"{keys}/www.crt names nobody: no DNS name or URI in it",
        "has the same key as 'www': whoever may use one may use the other",
        f"{keys}/xxx.key can be read by every user",
    ]


_files = st.dictionaries(
    st.tuples(
        st.sampled_from(["", "bad", "good", "new"]),
        st.text(string.ascii_lowercase, min_size=1, max_size=3),
        st.sampled_from([".pem", ".crt", ".key", ".cer", ".txt"]),
    ),
    st.one_of(
        st.binary(max_size=200),
        st.sampled_from(
            [
                key_pem(_KEY),
                key_pem(_KEY)[:-30],
                key_pem(_OTHER),
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                pem(Authority.make("someone").certificate),
            ]
        ),
    ),
    max_size=6,
)


@given(_files)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bad_files_never_take_anything_else_down(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, files: dict[tuple[str, str, str], bytes]
) -> None:
    keys = tmp_path_factory.mktemp("keys")
    third = shared_key("p384")
    write_pair(keys / "good", "tls", third, authority.issue(third))
    write_pair(keys, "flat-good", third, authority.issue(third))
    node = Node(keys)
    before = node.look()
    for (folder, stem, suffix), content in files.items():
        (keys / folder).mkdir(exist_ok=True)
        (keys / folder / (stem + suffix)).write_bytes(content)
    for looked in (node.look(), Node(keys).look()):
        for name in ("good", "flat-good"):
            credentials = private_key_pb2.Identity.FromString(looked.identities[name].message).credentials
            old = private_key_pb2.Identity.FromString(before.identities[name].message).credentials
            assert [c for c in credentials if c.key_id == old[0].key_id] == list(old)


def test_only_changed_files_are_read_again(keys: Path, authority: Authority) -> None:
    write_pair(keys, "www", _KEY, authority.issue(_KEY))
    long_ago = 1_000_000_000
    os.utime(keys / "www.key", (long_ago, long_ago))
    directory = KeysDirectory(keys)
    first = directory.look().entries["www"]
    assert all(a is not b for a, b in zip(first, directory.look().entries["www"], strict=True)), "changed just now"
    directory = KeysDirectory(keys)
    import offload.keys_directory as module

    before, module.SETTLED_NS = module.SETTLED_NS, -(10**18)
    try:
        first = directory.look().entries["www"]
        second = directory.look().entries["www"]
        assert all(a is b for a, b in zip(first, second, strict=True))
        (keys / "www.crt").write_bytes(pem(authority.issue(_KEY)))
        third = directory.look().entries["www"]
        assert [a is b for a, b in zip(second, third, strict=True)] == [False, True]
    finally:
        module.SETTLED_NS = before


# ---- chains ----


def test_chain_of_three(authority: Authority) -> None:
    intermediate = Authority.make("intermediate", authority)
    leaf = intermediate.issue(_KEY)
    ders = [c.public_bytes(Encoding.DER) for c in (leaf, intermediate.certificate, authority.certificate)]
    chain = read_chain(ders, NOW)
    assert chain.der == tuple(ders)
    assert chain.subject == "CN=www"
    with pytest.raises(CertificateError, match=r"certificate 1 .* was not issued by certificate 2"):
        read_chain([ders[0], ders[2]], NOW)
    with pytest.raises(CertificateError, match="no certificate"):
        read_chain([], NOW)


def test_a_clock_that_is_a_little_behind_is_forgiven(authority: Authority) -> None:
    leaf = authority.issue(_KEY, begin=datetime.timedelta(minutes=4)).public_bytes(Encoding.DER)
    assert read_chain([leaf], NOW).subject == "CN=www"


def test_the_chain_ends_when_its_first_certificate_does(authority: Authority) -> None:
    intermediate_key = shared_key("p256", 2)
    intermediate = build_certificate(
        "short", intermediate_key, authority.key, authority.certificate.subject, end=5 * DAY, ca=True
    )
    leaf = build_certificate("www", _KEY, intermediate_key, intermediate.subject, end=50 * DAY)
    chain = read_chain([c.public_bytes(Encoding.DER) for c in (leaf, intermediate)], NOW)
    assert chain.chain_not_after == int((NOW + 5 * DAY).timestamp())
    assert chain.not_after == int((NOW + 50 * DAY).timestamp())


def test_authorities(authority: Authority) -> None:
    der = authority.certificate.public_bytes(Encoding.DER)
    assert read_authorities([der, der]) == (der,)
    with pytest.raises(CertificateError, match="no certificate"):
        read_authorities([])
