"""Bad files in a keys directory: refused with a reason, and nothing else goes with them."""

from __future__ import annotations

import base64
import os
import shutil
import string
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offload.identities.directory import KeysDirectory
from offload.identities.in_force import changes, rule_of
from offload.v1 import private_key_pb2
from tests.offload.key_files import DAY, NOW, Authority, key_pem, pem, shared_key, spki, write_pair
from tests.offload.node import EVERYBODY, Node, algorithms


def broken_names(folder: Path) -> None:
    """Names that are not UTF-8, on both levels."""
    for name in (b"\xff.pem", b"\x1b.pem", b"other/\xfe.pem"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(b"garbage")


Break = Callable[[Path, Authority], object]


def _write(name: str, content: bytes) -> Break:
    return lambda folder, _: (folder / name).write_bytes(content)


def _chain(*make: Callable[[Authority], x509.Certificate]) -> Break:
    return lambda folder, authority: (folder / "tls.crt").write_bytes(pem(*(m(authority) for m in make)))


def _mutated(before: bytes, after: bytes) -> Break:
    """The leaf with other bytes in it, signature and all as they were."""

    def write(folder: Path, authority: Authority) -> None:
        der = authority.issue(_KEY).public_bytes(Encoding.DER)
        assert before in der
        text = base64.encodebytes(der.replace(before, after, 1))
        (folder / "tls.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n")

    return write


def _another(make: Callable[[Path], object]) -> Break:
    """Another thing in the place of the key."""

    def in_its_place(folder: Path, _: Authority) -> None:
        (folder / "tls.key").unlink()
        make(folder / "tls.key")

    return in_its_place


_KEY = shared_key("p256")
_OTHER = shared_key("p256", 1)
_NO_SIGNATURE = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
_GOOD_PEM_LINES = key_pem(_KEY).splitlines(keepends=True)

BROKEN: dict[str, tuple[Break, str]] = {
    "empty certificate": (_write("tls.crt", b""), "tls.crt: holds neither a certificate nor a private key"),
    "garbage certificate": (_write("tls.crt", os.urandom(500)), "tls.crt: holds neither a certificate nor"),
    "cut-off certificate": (
        lambda f, a: (f / "tls.crt").write_bytes(pem(a.issue(_KEY))[:-40]),
        "tls.crt: a PEM block has no END line: the file is truncated",
    ),
    "certificate not base64": (
        _write("tls.crt", b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"),
        "tls.crt: certificate 1 is not valid base64",
    ),
    "certificate not DER": (
        _write("tls.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "tls.crt: certificate 1 cannot be parsed",
    ),
    "a version that there is not": (
        _mutated(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x18"),
        "tls.crt: certificate 1 cannot be parsed: 24 is not a valid X509 version",
    ),
    "a subject that is no text": (_mutated(b"\x0c\x03www", b"\x0c\x03\xff\xff\xff"), "tls.crt: certificate 1 "),
    "another key's certificate": (
        _chain(lambda a: a.issue(_OTHER)),
        "tls.crt: no private key in its folder matches its leaf certificate (CN=www)",
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
        lambda f, a: (f / "tls.crt").write_bytes(pem(*[a.issue(_KEY)] * 11)),
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
    "another key": (_write("tls.key", key_pem(_OTHER)), "tls.key: no certificate in its folder matches it"),
    "a folder there": (_another(Path.mkdir), "not a regular file"),
    "a pipe there": (_another(os.mkfifo), "not a regular file"),
    "a symlink to nothing": (_another(lambda key: key.symlink_to("none")), "tls.key: a symlink to nothing"),
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
    assert node.warnings() == []
    assert node.warnings(NOW + 5 * DAY) == [f"{keys}/www.crt expires within 5 days"]
    late = NOW + 11 * DAY
    assert list(node.look(late).identities) == ["www"]
    assert node.warnings(late) == [f"{keys}/www.crt has expired; peers reject it"]


def test_warnings(keys: Path, authority: Authority) -> None:
    write_pair(keys, "www", _KEY, authority.issue(_KEY, dns=()))
    write_pair(keys, "xxx", _KEY, authority.issue(_KEY))
    assert Node(keys, www={"selectors": EVERYBODY}, xxx={"selectors": EVERYBODY}).warnings() == [
        f"{keys}/www.crt has no DNS name and no URI, so peers cannot match it",
        "has the same key as 'www': whoever may use one may use the other",
    ]


def test_a_key_that_every_user_can_read(authority: Authority) -> None:
    """In a folder that others reach, as those that pytest makes are not."""
    with tempfile.TemporaryDirectory() as name:
        keys = Path(name)
        keys.chmod(0o755)
        if any(not folder.stat().st_mode & 0o001 for folder in keys.parents):
            pytest.skip("the temporary folder is closed to other users: nothing in it is exposed")
        write_pair(keys, "xxx", _KEY, authority.issue(_KEY))
        (keys / "xxx.key").chmod(0o644)
        warnings = Node(keys, xxx={"selectors": EVERYBODY}).warnings()
        assert warnings == [f"{keys}/xxx.key can be read by every user: chmod o-r {keys}/xxx.key"]


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


@pytest.mark.slow(seconds=8)
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
    import offload.identities.directory as module

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


def test_an_identity_that_is_too_large_is_refused_alone(
    keys: Path, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the size of its message; with what was in force before, as far as its keys are still there."""
    monkeypatch.setattr("offload.identities.sealing.MESSAGE_MAX", 8000)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.pem)
    for name in ("www", "other"):
        key = shared_key("p256", len(name))
        write_pair(keys / name, "tls", key, authority.issue(key, name))
    rule = {"selectors": EVERYBODY, "trust_bundles": [{"file": str(bundle), "trust_domain": "a.test"}]}
    node = Node(keys, www=rule, other={"selectors": EVERYBODY})
    before = node.look().identities["www"]
    bundle.write_bytes(b"".join(Authority.make(f"CA {n}").pem for n in range(40)))
    now = node.look()
    assert now.identities["www"] is before
    (problem,) = now.problems
    assert (problem.identity, problem.path, problem.previous_kept) == ("www", str(bundle), True)
    assert "the identity is too large" in problem.reason
    assert "other" in now.identities
    # Another key: it is in force with the bundle of before.
    fresh = shared_key("p256", 77)
    write_pair(keys / "www", "tls", fresh, authority.issue(fresh, "www"))
    after = node.look().identities["www"]
    assert after.pairs[0].key.public_key_der == spki(fresh)
    assert [len(b.authorities) for b in node.message("www").trust_bundles] == [1]
    # Without anything before there is nothing to keep.
    new = Node(keys, www=rule, other={"selectors": EVERYBODY})
    plan = new.look()
    assert set(plan.identities) == {"other"}
    assert not plan.problems[0].previous_kept
    bundle.write_bytes(authority.pem)
    assert set(new.look().identities) == {"www", "other"}
