"""SPIFFE ids of dataplanes, which identity governs which, and what may stand in a trust bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.ca.identities import Identities
from control.kinds import KINDS
from control.mesh.view import view_of
from control.model import documents
from control.model.mesh_identity import MeshIdentitySpec, best_matched
from control.model.resource import parse
from control.model.target_ref import spiffe_id_problem
from control.model.violation import InvalidResource
from control.store.database import StoreKey
from control.store.store import Store
from deploy.node.certificates import named, unsigned
from tests.control.resources import MESH_WITH_IDENTITY


def identity(labels: dict[str, str], **spiffe_id: str) -> MeshIdentitySpec:
    return MeshIdentitySpec.model_validate(
        {
            "selector": {"dataplane": {"matchLabels": labels}},
            "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": True}}},
            **({"spiffeID": spiffe_id} if spiffe_id else {}),
        }
    )


def test_the_default_id_names_the_workload() -> None:
    labels = {"kuma.io/workload": "cart"}
    assert identity({}).spiffe_id_of("shop", "east", labels) == "spiffe://shop.east.mesh.local/workload/cart"
    # The zone is the control plane's, since the CA is: that of a label is for load balancing only.
    assert identity({}).spiffe_id_of("shop", "east", {**labels, "kuma.io/zone": "west"}) == (
        "spiffe://shop.east.mesh.local/workload/cart"
    )


def test_the_zone_is_the_mesh_identitys_own_else_the_control_planes(tmp_path: Path) -> None:
    text = MESH_WITH_IDENTITY.replace("name: identity\n", "name: identity\nlabels: {kuma.io/zone: west}\n")
    text += "---\ntype: Dataplane\nname: cart-1\nlabels: {kuma.io/workload: cart, kuma.io/zone: north}\n"
    text += "spec: {networking: {address: 10.0.0.1, inbound: [{port: 80}]}}\n"
    for written, zone in ((text, "west"), (text.replace("labels: {kuma.io/zone: west}\n", ""), "east")):
        resources = documents.read(written, "test", KINDS, default_mesh="default")
        view = view_of("default", resources, "east")
        dataplane = view.get("Dataplane", "cart-1")
        assert dataplane is not None
        found = view.identity_of(dataplane)
        assert found is not None
        assert found.spiffe_id == f"spiffe://default.{zone}.mesh.local/workload/cart"
        # And its CA speaks for that domain.
        store = Store(f"sqlite:///{tmp_path}/{zone}.db", StoreKey(file=tmp_path / "key"), KINDS)
        for resource in resources:
            store.put(resource)
        issuer = Identities(store, "east").issuer("default", "identity")
        names = issuer.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://default.{zone}.mesh.local"]
        store.close()


def test_templates_take_labels() -> None:
    spec = identity({}, trustDomain="{{.Mesh}}.example", path='/ns/{{ label "ns" }}/sa/{{ .Workload }}')
    assert spec.spiffe_id_of("shop", "z", {"ns": "a", "kuma.io/workload": "b"}) == "spiffe://shop.example/ns/a/sa/b"


def test_a_missing_label_is_named() -> None:
    with pytest.raises(KeyError, match=r"kuma\.io/workload"):
        identity({}).spiffe_id_of("shop", "z", {})


def test_the_most_specific_identity_governs_then_the_smaller_name() -> None:
    wide, narrow, same = identity({}), identity({"app": "cart"}), identity({"app": "cart"})
    found = best_matched([("a", wide), ("c", same), ("b", narrow)], {"app": "cart"})
    assert found == ("b", narrow)
    assert best_matched([("b", narrow)], {"app": "web"}) is None


@pytest.mark.parametrize(
    ("spiffe_id", "problem"),
    [
        ("spiffe://a", None),
        ("spiffe://a.b-c_d/x/Y.z", None),
        ("http://a", "begin with"),
        ("spiffe://", "1 to 255"),
        ("spiffe://a/", "empty"),
        ("spiffe://a/../b", "'..'"),
        ("spiffe://a/b?c", "only letters"),
        ("spiffe://a:80/b", "lower-case"),
        ("spiffe://" + "a" * 256, "1 to 255"),
        ("spiffe://a/" + "b" * 2048, "2048 bytes"),
    ],
)
def test_spiffe_ids(spiffe_id: str, problem: str | None) -> None:
    found = spiffe_id_problem(spiffe_id)
    assert (found is None) if problem is None else (found is not None and problem in found)


def certificate(is_authority: bool, constraints: bool = True) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = named("test")
    builder = unsigned(name, name, key.public_key(), is_ca=is_authority if constraints else None)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def trust(pem: str) -> dict[str, Any]:
    bundle = {"type": "Pem", "pem": {"value": pem}}
    return {"type": "MeshTrust", "name": "t", "mesh": "m", "spec": {"trustDomain": "a.b", "caBundles": [bundle]}}


def test_a_bundle_of_authorities_is_taken() -> None:
    assert parse(trust(certificate(True) + certificate(True)), KINDS).spec.trust_domain == "a.b"


@pytest.mark.parametrize("constraints", [True, False])
def test_a_certificate_that_is_no_authority_is_refused(constraints: bool) -> None:
    with pytest.raises(InvalidResource, match="certificate 2 is not a CA certificate"):
        parse(trust(certificate(True) + certificate(False, constraints)), KINDS)
