"""What a control plane's message means for a daemon; the rest is tested with a real one (tests/control)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from offload.config.settings import Config
from offload.mesh.client import BACKOFF_MAX_S, backoff_seconds
from offload.mesh.configuration import Bound, Limits, read_configuration
from offload.v1 import node_pb2
from tests.offload.key_files import Authority

CART = "spiffe://mesh.test/workload/cart"
SOCKET = "/run/offload/offload.sock"
CONFIG = Config()


def wanted(**changes: Any) -> node_pb2.MeshIdentity:
    fields: dict[str, Any] = {
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
    found = read(
        wanted(), trusted_domains=[node_pb2.TrustedDomain(trust_domain="mesh.test", authorities=[ca], mesh="default")]
    )
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
        (wanted(socket="/run/other.sock"), True, "is not one of this daemon's (/run/offload/offload.sock)"),
        (wanted(software=node_pb2.MeshIdentity.FORBID), False, "this host has no vector kernels in use"),
        (wanted(software=node_pb2.MeshIdentity.REQUIRE), True, "set data_plane.backend: software"),
        (wanted(key_type="dsa"), True, "Input should be 'p256'"),
        (wanted(usage="everything"), True, "the usage must be tls13 or tls12+13"),
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


@pytest.mark.parametrize("name", ["www", "spiffe://mesh.test/\n", "spiffe://mesh.test/ü", "spiffe://" + "x" * 2100])
def test_names_that_could_be_those_of_files_or_of_nobody(name: str) -> None:
    found = read(wanted(spiffe_id=name))
    assert not found.identities
    assert "its name is not a SPIFFE id" in found.problems[0]


def test_digests_are_not_signed_in_a_mesh() -> None:
    found = read(wanted(usage="any"))
    assert not found.identities
    assert "the usage must be tls13 or tls12+13, not 'any'" in found.problems[0]


def test_meshes_do_not_trust_each_other() -> None:
    cas = [Authority.make(name).certificate.public_bytes(Encoding.DER) for name in ("one", "partner", "two")]
    other = "spiffe://two.test/workload/web"
    trusted = [
        node_pb2.TrustedDomain(trust_domain=domain, authorities=[ca], mesh=mesh)
        for (domain, mesh), ca in zip(
            [("mesh.test", "default"), ("partner.test", "default"), ("two.test", "two")], cas, strict=True
        )
    ]
    found = read(wanted(), wanted(spiffe_id=other, mesh="two"), trusted_domains=trusted)
    assert [b.trust_domain for b in found.identities[CART].bundles] == ["mesh.test", "partner.test"], "federation"
    assert [b.authorities for b in found.identities[other].bundles] == [(cas[2],)]


def test_one_name_in_two_meshes() -> None:
    found = read(wanted(), wanted(mesh="other"))
    assert found.identities[CART].mesh == "default"
    assert "two meshes of this node define it" in found.problems[0]


def test_a_dedicated_socket_is_part_of_the_permission() -> None:
    config = Config.model_validate({"sockets": {"dedicated": [{"name": "cart", "path": "/run/offload/cart.sock"}]}})
    found = read(wanted(socket="/run/offload/cart.sock"), config=config)
    assert [s.rule()["socket"] for s in found.identities[CART].settings.selectors] == ["cart", "cart"]
    empty = read(wanted(socket="/run/offload/cart.sock", selectors=[node_pb2.Selector()]), config=config)
    assert "at least one field" in empty.problems[0], "the socket alone lets nobody in"


def test_the_strictest_bounds_hold_and_never_more_than_the_daemons() -> None:
    other = "spiffe://mesh.test/workload/web"
    found = read(wanted(max_wait_us=500), wanted(spiffe_id=other, max_wait_us=200, max_queue=100))
    policy, own = f"MeshOffload, for {other}", ("data_plane.max_wait_us", "data_plane.queue_limit")
    assert found.limits == Limits(Bound(200, policy), Bound(100, policy))
    assert found.limits.within(1000, 4096) == (Bound(200, policy), Bound(100, policy))
    assert found.limits.within(100, 50) == (Bound(100, own[0]), Bound(50, own[1]))
    assert read().limits.within(1000, 4096) == (Bound(1000, own[0]), Bound(4096, own[1])), "without identities its own"
    refused = wanted(spiffe_id=other, max_queue=1, usage="any")
    limit = read(wanted(max_queue=9), refused).limits.queue_limit
    assert limit is not None
    assert limit.value == 9, "what is not served bounds nothing"


def test_a_wait_that_nobody_has_set_is_the_nodes_own() -> None:
    assert read(wanted()).limits.within(1000, 4096)[0] == Bound(1000, "data_plane.max_wait_us")
    assert read(wanted(max_wait_us=0)).limits.within(1000, 4096)[0] == Bound(0, f"MeshOffload, for {CART}")


@given(st.binary(max_size=400))
def test_whatever_the_bytes_are(data: bytes) -> None:
    message = node_pb2.Configuration()
    try:
        message.ParseFromString(data)
    except DecodeError:  # gRPC ends the stream
        return
    read_configuration(message, CONFIG, True)


@pytest.mark.slow(seconds=2)
@given(
    st.lists(
        st.builds(
            wanted,
            spiffe_id=st.one_of(st.just(CART), st.text(max_size=30), st.text(max_size=30).map("spiffe://".__add__)),
            key_type=st.sampled_from(["p256", "rsa2048", "", "x"]),
            usage=st.sampled_from(["tls13", "tls12+13", "any", ""]),
            software=st.integers(0, 9),
            selectors=st.lists(st.builds(node_pb2.Selector, uid=st.none() | st.integers(0, 2**32 - 1)), max_size=3),
            max_wait_us=st.none() | st.integers(0, 2**32 - 1),
            max_queue=st.integers(0, 2**32 - 1),
        ),
        max_size=4,
    )
)
def test_whatever_it_says_deny_stays_the_default(given_: list[node_pb2.MeshIdentity]) -> None:
    found = read(*given_)
    assert len(found.identities) + len(found.problems) == len(given_)
    for name, one in found.identities.items():
        assert name.startswith("spiffe://")
        assert one.settings.usage != "any"
        assert all(s.rule().keys() & {"uid", "gid"} for s in one.settings.selectors)
    wait, limit = found.limits.within(1000, 4096)
    assert 0 <= wait.value <= 1000
    assert 1 <= limit.value <= 4096


def test_both_sockets_are_open_while_proxies_move() -> None:
    config = Config.model_validate(
        {"sockets": {"dedicated": [{"name": "a", "path": "/run/a.sock"}, {"name": "b", "path": "/run/b.sock"}]}}
    )

    def rules(socket: str, *former: str) -> list[dict[str, object]]:
        one = wanted(socket=socket, former_sockets=former, selectors=[node_pb2.Selector(uid=101)])
        found = read(one, config=config)
        assert found.problems == ()
        return [selector.rule() for selector in found.identities[CART].settings.selectors]

    assert rules("/run/a.sock") == [{"uid": 101, "socket": "a"}]
    assert rules("/run/a.sock", "/run/b.sock") == [{"uid": 101, "socket": "a"}, {"uid": 101, "socket": "b"}]
    # The shared one lets it in through any.
    assert rules("/run/a.sock", SOCKET) == [{"uid": 101}]
