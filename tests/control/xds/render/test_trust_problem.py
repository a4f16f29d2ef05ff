"""A proxy whose certificate nobody can verify says so."""

from __future__ import annotations

from collections.abc import Callable

import yaml

from control.mesh.view import view_of
from control.model.resource import Resource
from control.xds.render import proxy
from tests.control.resources import MESH_WITH_IDENTITY

WEB = "---\ntype: Dataplane\nname: web-1\nlabels: {kuma.io/workload: web}\nspec: {networking: {address: 127.0.0.1}}\n"


def problems(read: Callable[[str], list[Resource]], pem: str, *domains: str) -> list[str]:
    bundles = [{"type": "Pem", "pem": {"value": pem}}]
    trusts = [
        {"type": "MeshTrust", "name": f"t{number}", "spec": {"trustDomain": domain, "caBundles": bundles}}
        for number, domain in enumerate(domains)
    ]
    text = "---\n".join([MESH_WITH_IDENTITY + WEB, *map(yaml.safe_dump, trusts)])
    view = view_of("default", read(text))
    [dataplane] = view.dataplanes
    return proxy.render(view, dataplane).problems


def test_an_identity_whose_trust_domain_nobody_trusts_is_shown(
    read_resources: Callable[[str], list[Resource]], authority: tuple[str, object]
) -> None:
    assert problems(read_resources, authority[0]) == ["the mesh has no MeshTrust: no peer can be verified"]
    [problem] = problems(read_resources, authority[0], "elsewhere.example")
    assert problem.startswith("there is no MeshTrust of default.default.mesh.local")
    assert problems(read_resources, authority[0], "elsewhere.example", "default.default.mesh.local") == []
