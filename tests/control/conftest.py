"""Scenarios (YAML files of resources), golden files, and what `envoy --mode validate` says to a configuration."""

from __future__ import annotations

import asyncio
import copy
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.kinds import KINDS
from control.mesh.view import MeshView, view_of
from control.model import documents
from control.model.identity import Credential
from control.model.resource import Resource
from control.xds.encoding import encode
from deploy.node.certificates import named, unsigned, uri_names
from tests.control.rendered import Rendered

MESH = """
type: Mesh
name: default
"""


@pytest.fixture(scope="session", autouse=True)
def keep_grpc_running() -> None:
    """gRPC's asyncio side ends with its last object, which may be collected in any later test, without the loop that it
    belongs to; it then waits for its poller for ever. One reference more, and it never ends.
    """
    # It asks for the thread's loop, which tests elsewhere may have ended.
    asyncio.set_event_loop(asyncio.new_event_loop())
    grpc.aio.init_grpc_aio()


class PlainDumper(yaml.SafeDumper):
    """Without anchors: a golden file is read by people."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


class GoldenFile:
    """Compares with the file beside the test; UPDATE_GOLDEN=1 writes it anew, for a look at the difference in git."""

    def __call__(self, path: Path, data: object) -> None:
        text = yaml.dump(data, Dumper=PlainDumper, sort_keys=True, width=110)
        if os.environ.get("UPDATE_GOLDEN") == "1":
            path.write_text(text)
        assert path.is_file(), f"{path} is missing: run with UPDATE_GOLDEN=1 and look at what it writes"
        assert yaml.safe_load(path.read_text()) == yaml.safe_load(text), f"differs from {path}"


@pytest.fixture(scope="session")
def golden() -> GoldenFile:
    return GoldenFile()


@pytest.fixture(scope="session")
def read_resources() -> Callable[[str], list[Resource]]:
    return lambda text: documents.read(text, "test", KINDS, default_mesh="default")


@pytest.fixture(scope="session")
def authority() -> tuple[str, Credential]:
    """(PEM of a CA, a certificate of it for spiffe://default.default.mesh.local/workload/web)."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name, names = named("test CA"), uri_names(["spiffe://default.default.mesh.local/workload/web"])
    root = unsigned(name, name, ca_key.public_key(), is_ca=True).sign(ca_key, hashes.SHA256())
    builder = unsigned(x509.Name([]), name, key.public_key(), names=names, names_are_critical=True)
    leaf = builder.sign(ca_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    credential = Credential(leaf.public_bytes(pem).decode(), key_pem)
    return root.public_bytes(pem).decode(), credential


@pytest.fixture(scope="session")
def scenario(
    read_resources: Callable[[str], list[Resource]], authority: tuple[str, Credential]
) -> Callable[[str], MeshView]:
    """A view of the mesh `default`: the resources of a YAML text, and a MeshTrust if they have a MeshIdentity."""

    def build(text: str) -> MeshView:
        resources = read_resources(MESH + "---\n" + text)
        if any(resource.kind.type == "MeshIdentity" for resource in resources):
            bundle = [{"type": "Pem", "pem": {"value": authority[0]}}]
            spec = {"trustDomain": "default.default.mesh.local", "caBundles": bundle}
            resources += read_resources(yaml.safe_dump({"type": "MeshTrust", "name": "identity", "spec": spec}))
        return view_of("default", resources)

    return build


def without_secrets(config: Rendered) -> dict[str, Any]:
    """For golden files: certificates differ from run to run."""
    parts = ("listeners", "clusters", "routes", "endpoints")
    data: dict[str, Any] = {part: copy.deepcopy(getattr(config, part)) for part in parts if getattr(config, part)}
    if config.secrets:
        data["secrets"] = sorted(config.secrets)
    if config.problems:
        data["problems"] = config.problems
    return data


@pytest.fixture(scope="session")
def golden_form() -> Callable[[Rendered], dict[str, Any]]:
    return without_secrets


def static_bootstrap(config: Rendered) -> dict[str, Any]:
    """The same configuration as a static file: what ADS would bring stands where it is used."""
    config = copy.deepcopy(config)
    for listener in config.listeners.values():
        for chain in listener["filter_chains"]:
            for filter_ in chain["filters"]:
                rds = filter_["typed_config"].pop("rds", None)
                if rds is not None:
                    filter_["typed_config"]["route_config"] = config.routes[rds["route_config_name"]]
    for name, cluster in config.clusters.items():
        if cluster.pop("eds_cluster_config", None) is not None:
            cluster |= {"type": "STATIC", "load_assignment": config.endpoints[name]}
    static = {
        "listeners": list(config.listeners.values()),
        "clusters": list(config.clusters.values()),
        "secrets": list(config.secrets.values()),
    }
    return {"node": {"id": "test", "cluster": "test"}, "static_resources": _without_sds_sources(static)}


def _without_sds_sources(value: Any) -> Any:
    """A secret reference without a source means a static secret."""
    if isinstance(value, list):
        return [_without_sds_sources(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_sds_sources(item) for key, item in value.items() if key != "sds_config"}


@pytest.fixture
def validate_with_envoy(envoy_binary: Path, tmp_path: Path) -> Callable[[Rendered], None]:
    """Through our own messages (so with TypedStruct where Envoy will see it), then `envoy --mode validate`."""

    def validate(config: Rendered) -> None:
        path = tmp_path / "bootstrap.json"
        bootstrap = encode.with_typed_structs(static_bootstrap(config))
        path.write_text(yaml.safe_dump(bootstrap))
        path = path.rename(path.with_suffix(".yaml"))
        environment = dict(os.environ)
        module = Path(__file__).parents[2] / "envoy_ext"
        environment["ENVOY_DYNAMIC_MODULES_SEARCH_PATH"] = str(module)
        result = subprocess.run(
            [envoy_binary, "--mode", "validate", "-c", path, "--log-level", "warning", "--base-id-path", "/dev/null"],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
        assert result.returncode == 0, result.stdout + result.stderr

    return validate
