"""Whoever writes one identity's folder shall not sign with another identity's key: symlinks, hard links, owners."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from offload.config.settings import Config
from offload.identities.directory import KeysDirectory
from tests.offload.key_files import Authority, key_id, pem, shared_key, write_pair
from tests.offload.node import Node

WWW, CART = shared_key("p256"), shared_key("p256", 1)
TENANT = 12345


@pytest.fixture
def node(authority: Authority) -> Iterator[Node]:
    """Outside pytest's folder, which is closed to others. "www" is in force; what "cart" has is the test's."""
    with tempfile.TemporaryDirectory(prefix="offload-test-") as name:
        Path(name).chmod(0o755)
        keys = Path(name) / "keys"
        write_pair(keys / "www", "tls", WWW, authority.issue(WWW))
        (keys / "cart").mkdir()
        yield Node(keys, www={}, cart={})


def link(node: Node, target: str | Path, name: str = "tls.key") -> None:
    """Certificate of www, which is public, and its key by a symlink."""
    (node.folder / "cart" / "tls.crt").write_bytes((node.folder / "www" / "tls.crt").read_bytes())
    (node.folder / "cart" / name).symlink_to(target)


def refused(node: Node, says: str) -> None:
    found = [f"{p.path}: {p.reason}" for p in node.look().problems if p.identity == "cart"]
    assert any(says in reason for reason in found), found
    assert set(node.plan.identities) == {"www"}, "and www is not harmed"


@pytest.mark.parametrize("target", ["../www/tls.key", "../../keys/www/../www/tls.key", "around/tls.key"])
def test_a_key_of_another_identity(node: Node, target: str) -> None:
    (node.folder / "cart" / "around").symlink_to("../www")
    link(node, target)
    refused(node, "its private key is another identity's, in ")
    refused(node, f"{node.folder.resolve()}/www/tls.key")


def test_a_key_of_another_identity_by_its_whole_path(node: Node) -> None:
    link(node, node.folder / "www" / "tls.key")
    refused(node, "keys are taken from their identity's own folder only")


def test_a_key_outside_the_directory(node: Node, authority: Authority) -> None:
    write_pair(node.folder.parent / "elsewhere", "tls", CART, authority.issue(CART))
    link(node, "../../elsewhere/tls.key")
    refused(node, "its private key lies outside the keys directory, in ")


def test_a_folder_that_is_another_identitys(node: Node) -> None:
    (node.folder / "cart").rmdir()
    (node.folder / "cart").symlink_to("www")
    refused(node, "its private key is another identity's")


def test_a_folder_named_like_another_identitys_file(node: Node, authority: Authority) -> None:
    write_pair(node.folder / "cart.key", "tls", CART, authority.issue(CART))
    link(node, "../cart.key/tls.key")
    assert any("another identity's" in p.reason for p in node.look().problems if p.identity == "cart")
    assert "cart" not in node.plan.identities


def test_a_pair_in_the_directory_itself(node: Node, authority: Authority) -> None:
    (node.folder / "shop.crt").write_bytes(pem(authority.issue(WWW)))
    (node.folder / "shop.key").symlink_to("www/tls.key")
    assert any("another identity's" in p.reason for p in node.look().problems if p.identity == "shop")
    assert set(node.plan.identities) == {"www"}


def test_a_certificate_may_lie_anywhere(node: Node, authority: Authority) -> None:
    """It is public."""
    write_pair(node.folder.parent / "elsewhere", "tls", CART, authority.issue(CART))
    (node.folder / "cart" / "tls.crt").symlink_to("../../elsewhere/tls.crt")
    (node.folder.parent / "elsewhere" / "tls.key").rename(node.folder / "cart" / "tls.key")
    assert set(node.look().identities) == {"www", "cart"}
    assert node.plan.problems == ()


@pytest.mark.parametrize("where", ["identity", "directory"])
def test_the_versions_of_a_mounted_secret_are_its_own(node: Node, authority: Authority, where: str) -> None:
    """As Kubernetes has it: for one identity, and for several in one volume."""
    base = node.folder / "cart" if where == "identity" else node.folder
    inner = base / "..2026_11_30" if where == "identity" else base / "..2026_11_30" / "cart"
    write_pair(inner, "tls", CART, authority.issue(CART))
    (base / "..data").symlink_to("..2026_11_30")
    if where == "identity":
        for name in ("tls.crt", "tls.key"):
            (base / name).symlink_to(f"..data/{name}")
    else:
        (base / "cart").rmdir()
        (base / "cart").symlink_to("..data/cart")
    assert node.look().problems == ()
    assert node.plan.identities["cart"].pairs[0].key.key_id == key_id(CART)


@pytest.mark.root
def test_the_folder_of_a_tenant_is_refused(node: Node, authority: Authority) -> None:
    write_pair(node.folder / "cart", "tls", CART, authority.issue(CART))
    os.chown(node.folder / "cart", TENANT, TENANT)
    refused(node, "/cart belongs to uid 12345, who could replace it: change its owner to root")


@pytest.mark.root
def test_a_file_of_a_tenant_is_refused(node: Node, authority: Authority) -> None:
    write_pair(node.folder / "cart", "tls", CART, authority.issue(CART))
    os.chown(node.folder / "cart" / "tls.key", TENANT, TENANT)
    refused(node, "tls.key belongs to uid 12345")


@pytest.mark.root
def test_a_hard_link_in_a_folder_of_a_trusted_tenant(node: Node) -> None:
    """Root's own key under another name: its owner says nothing."""
    trust = Config.model_validate({"security": {"trusted_users": [TENANT]}}).security.trust()
    node.directory = KeysDirectory(node.folder, trust)
    os.chown(node.folder / "cart", TENANT, TENANT)
    (node.folder / "cart" / "tls.crt").write_bytes((node.folder / "www" / "tls.crt").read_bytes())
    os.link(node.folder / "www" / "tls.key", node.folder / "cart" / "tls.key")
    refused(node, "its private key has 2 hard links")


@pytest.mark.root
def test_what_is_in_force_stays_when_its_folder_changes_hands(node: Node, authority: Authority) -> None:
    write_pair(node.folder / "cart", "tls", CART, authority.issue(CART))
    assert set(node.look().identities) == {"www", "cart"}
    os.chown(node.folder / "cart", TENANT, TENANT)
    (node.folder / "cart" / "tls.key").unlink()
    (node.folder / "cart" / "tls.key").symlink_to("../www/tls.key")
    node.look()
    assert node.plan.identities["cart"].pairs[0].key.key_id == key_id(CART)
    assert node.plan.problems[0].previous_kept


@pytest.mark.root
def test_a_directory_that_others_write_is_not_taken(node: Node) -> None:
    assert set(node.look().identities) == {"www"}
    node.folder.chmod(0o777)
    assert "every user can write in " in node.look().problems[0].reason
    assert set(node.plan.identities) == {"www"}, "and nothing is lost by it"
    assert not Node(node.folder, www={}).look().identities
