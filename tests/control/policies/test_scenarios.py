"""Golden files: the whole configuration of web-1 in a small mesh, one scenario for each form of each policy.

Each scenario is the base mesh with its own resources added or replaced. Every one of them also has to pass
`envoy --mode validate`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.mesh.view import MeshView
from control.model.identity import Credential
from control.policies import POLICIES
from tests.control.rendered import Rendered, rendered

FOLDER = Path(__file__).parent / "scenarios"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.endswith(".golden"))
MODULE = Path(__file__).parents[3] / "envoy_ext" / "libtls_offload.so"


def text_of(name: str) -> str:
    """The base mesh, with what the scenario has of the same type and name replaced."""
    documents = {(d["type"], d["name"]): d for d in yaml.safe_load_all((FOLDER / "base.yaml").read_text())}
    documents |= {(d["type"], d["name"]): d for d in yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text())}
    return "---\n".join(yaml.safe_dump(document) for document in documents.values())


def config_of(view: MeshView, credential: Credential | None = None) -> Rendered:
    dataplane = view.get("Dataplane", "web-1")
    assert dataplane is not None
    return rendered(view, dataplane, credential)


@pytest.mark.parametrize("name", NAMES)
def test_golden(
    name: str,
    scenario: Callable[[str], MeshView],
    golden: Callable[[Path, object], None],
    golden_form: Callable[[Rendered], dict[str, Any]],
) -> None:
    golden(FOLDER / f"{name}.golden.yaml", golden_form(config_of(scenario(text_of(name)))))


@pytest.mark.envoy
@pytest.mark.parametrize("name", NAMES)
def test_envoy_takes_it(
    name: str,
    scenario: Callable[[str], MeshView],
    authority: tuple[str, Credential],
    validate_with_envoy: Callable[[Rendered], None],
) -> None:
    if name.startswith("meshoffload") and not MODULE.is_file():
        pytest.skip("the module is not built: make build")
    validate_with_envoy(config_of(scenario(text_of(name)), authority[1]))


@pytest.mark.envoy
def test_envoy_is_really_asked(
    scenario: Callable[[str], MeshView],
    authority: tuple[str, Credential],
    validate_with_envoy: Callable[[Rendered], None],
) -> None:
    config = config_of(scenario(text_of("base")), authority[1])
    config.clusters["self_inbound_http"]["no_such_field"] = 1
    with pytest.raises(AssertionError, match="no_such_field"):
        validate_with_envoy(config)


def test_every_policy_has_a_scenario() -> None:
    types = {d["type"] for name in NAMES for d in yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text())}
    assert {policy.type for policy in POLICIES} <= types
