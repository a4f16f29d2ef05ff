"""What a control plane's message means for a daemon; the rest is tested with a real one (tests/control)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from offload.config import Config
from offload.mesh.client import BACKOFF_MAX_S, backoff_seconds
from offload.mesh.configuration import read_configuration
from offload.v1 import node_pb2
from tests.offload.key_files import Authority

CART = "spiffe://mesh.test/workload/cart"
SOCKET = "/run/offload/offload.sock"
CONFIG = Config()


def wanted(**changes: Any) -> node_pb2.MeshIdentity:
    fields = {
        "spiffe_id": CART,
        "mesh": "default",
        "selectors": [node_pb2.Selector(uid=101), node_pb2.Selector(uid=102, gid=7)],
        "key_type": "p256",
        "usage": "tls13",
        "socket": SOCKET,
        "software": node_pb2.MeshIdentity.ALLOW,
        "issuer": b"ca",
    }
    return node_pb2.MeshIdentity(**(fields | changes))


def read(*identities: node_pb2.MeshIdentity, config: Config = CONFIG, vector: bool = True, **more: Any) -> Any:
    message = node_pb2.Configuration(version="v1", identities=identities, **more)
    return read_configuration(message, config, vector)


def test_an_identity() -> None:
    ca = Authority.make().certificate.public_bytes(Encoding.DER)
    found = read(wanted(), trusted_domains=[node_pb2.TrustedDomain(trust_domain="mesh.test", authorities=[ca])])
    assert found.problems == ()
    identity = found.identities[CART]
    assert [s.rule() for s in identity.settings.selectors] == [{"uid": 101}, {"uid": 102, "gid": 7}]
    assert identity.settings.generate.key_type == "p256"
    assert (identity.mesh, identity.issuer, identity.settings.usage) == ("default", b"ca", "tls13")
    (bundle,) = identity.bundles
    assert (bundle.trust_domain, bundle.authorities) == ("mesh.test", (ca,))


def test_nobody_may_use_one_without_selectors() -> None:
    assert read(wanted(selectors=[])).identities[CART].settings.selectors == ()


@pytest.mark.parametrize(
    ("identity", "vector", "reason"),
    [
        (wanted(socket="/run/other.sock"), True, "is none of this daemon's (/run/offload/offload.sock)"),
        (wanted(software=node_pb2.MeshIdentity.FORBID), False, "this host has no vector kernels in use"),
        (wanted(software=node_pb2.MeshIdentity.REQUIRE), True, "set data_plane.backend: software"),
        (wanted(key_type="dsa"), True, "Input should be 'p256'"),
        (wanted(usage="everything"), True, "Input should be 'tls13'"),
        (wanted(selectors=[node_pb2.Selector()]), True, "at least one field"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_rest_is_taken(
    identity: node_pb2.MeshIdentity, vector: bool, reason: str
) -> None:
    other = wanted(spiffe_id="spiffe://mesh.test/workload/web")
    found = read(identity, other, vector=vector)
    assert set(found.identities) == {other.spiffe_id}
    (problem,) = found.problems
    assert problem.startswith(CART + ": ")
    assert reason in problem


def test_our_own_configuration_goes_first() -> None:
    config = Config.model_validate({"identities": {CART: {"source": {"files": "cart"}}}})
    found = read(wanted(), config=config)
    assert not found.identities
    assert "the daemon's own configuration" in found.problems[0]


def test_a_bundle_that_is_none() -> None:
    found = read(trusted_domains=[node_pb2.TrustedDomain(trust_domain="mesh.test", authorities=[b"nonsense"])])
    assert found.problems[0].startswith("trust domain mesh.test: certificate 1 cannot be parsed")


def test_backoff() -> None:
    assert [backoff_seconds(n, 1) for n in range(4)] == [0.5, 1, 2, 4]
    assert backoff_seconds(1000, 1) == BACKOFF_MAX_S
    assert backoff_seconds(3, 0) == 2


@pytest.mark.parametrize("address", ["control", "control:", "http://control:1", "::1:5678", ":5678"])
def test_addresses_that_are_none(address: str, tmp_path: Path) -> None:
    mesh = {"control_plane": address, "ca_file": str(tmp_path / "ca"), "token_file": str(tmp_path / "token")}
    with pytest.raises(ValueError, match="control_plane"):
        Config.model_validate({"mesh": mesh})
    Config.model_validate({"mesh": mesh | {"control_plane": "[::1]:5678"}})
    Config.model_validate({"mesh": mesh | {"control_plane": "control.example:5678"}})
