"""The command `mesh` against a real `mesh serve` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from control.kinds import KINDS
from control.settings import Address, parse_address
from control.store.database import StoreKey
from control.store.store import Store
from tests.control.another_version import NEW_LOG, write
from tests.control.mesh_process import MESH, ROOT, ControlPlane

RESOURCES = """
type: Dataplane
name: web-1
labels: {app: web, kuma.io/workload: web}
spec:
  networking:
    address: 127.0.0.1
    inbound: [{port: 21350, servicePort: 21351, name: http, protocol: http}]
---
type: Mesh
name: default
---
type: MeshIdentity
name: identity
spec:
  selector: {dataplane: {matchLabels: {}}}
  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}
---
type: MeshTrafficPermission
name: web
spec: {rules: [{default: {allow: [{spiffeID: {type: Exact, value: spiffe://a/web}}]}}]}
"""

OFFLOAD = "type: MeshOffload\nname: all\nmesh: default\nspec: {default: {mode: %s}}\n"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    running = ControlPlane(tmp_path_factory.mktemp("mesh"))
    running.start()
    running.output("apply", "-m", "default", "-f", "-", stdin=RESOURCES)
    yield running
    if running.process is not None and running.process.poll() is None:
        assert running.stop() == 0


def test_get_in_every_form(mesh: ControlPlane) -> None:
    table = mesh.output("get", "dp")
    assert "web-1" in table
    assert "app=web" in table
    assert json.loads(mesh.output("get", "Dataplane", "web-1", "-o", "json"))["name"] == "web-1"
    assert yaml.safe_load(mesh.output("get", "dataplanes", "-o", "yaml"))["mesh"] == "default"
    assert "identity" in mesh.output("get", "meshtrusts")


def test_what_is_exported_can_be_applied(mesh: ControlPlane) -> None:
    exported = mesh.output("export")
    types = [document["type"] for document in yaml.safe_load_all(exported)]
    assert sorted(types) == ["Dataplane", "Mesh", "MeshIdentity", "MeshTrafficPermission"]
    assert mesh.output("apply", "-f", "-", stdin=exported).count("version 1") == 4


def test_what_a_newer_version_stored_is_shown_and_exported_as_it_is(mesh: ControlPlane) -> None:
    store = Store(f"sqlite:///{mesh.data}/mesh.db", StoreKey(file=mesh.data / "store.key"), KINDS)
    write(store, "MeshAccessLog", "newer", NEW_LOG)
    shown = mesh.run("get", "mal")
    assert (shown.returncode, "newer" in shown.stdout) == (0, True)
    assert "warning: MeshAccessLog newer is left out: this version cannot read it" in shown.stderr
    exported = mesh.run("export")
    assert NEW_LOG in [document.get("spec") for document in yaml.safe_load_all(exported.stdout)]
    assert ("problem" in exported.stdout, "warning: MeshAccessLog newer" in exported.stderr) == (False, True)
    assert "MeshAccessLog newer is left out" in mesh.output("inspect", "overview", "web-1")
    mesh.output("delete", "mal", "newer")
    store.close()


def test_exit_codes(mesh: ControlPlane, tmp_path: Path) -> None:
    assert mesh.run("get", "pods").returncode == 2
    refused = mesh.run("apply", "-f", "-", stdin="type: Mesh\nname: A")
    assert (refused.returncode, "name: must be an RFC 1035 label" in refused.stderr) == (1, True)
    assert mesh.run("get", "dp", "none").returncode == 1
    assert mesh.run("apply", "-f", str(tmp_path / "none")).returncode == 1
    gone = mesh.run("get", "meshes", MESH_API="https://127.0.0.1:1")
    assert (gone.returncode, "does not answer" in gone.stderr) == (3, True)
    lost = mesh.run("get", "meshes", MESH_TOKEN_FILE=str(tmp_path / "none"))
    assert (lost.returncode, "set MESH_TOKEN" in lost.stderr) == (3, True)
    wrong = mesh.run("get", "meshes", MESH_TOKEN="x")
    assert (wrong.returncode, "this is not a token" in wrong.stderr) == (1, True)


def test_validate_needs_no_control_plane(mesh: ControlPlane) -> None:
    nowhere = {"MESH_API": "https://127.0.0.1:1", "MESH_DATA": "/nowhere"}
    text = mesh.output("validate", "-m", "default", "-f", "-", stdin=RESOURCES, **nowhere)
    assert text == "4 resources, all valid\n"
    old = mesh.run("validate", "-f", "-", stdin="type: TrafficPermission\nname: a", **nowhere)
    assert (old.returncode, "use MeshTrafficPermission" in old.stderr) == (1, True)
    assert "valid" in mesh.output("apply", "--dry-run", "-f", "-", stdin="type: Mesh\nname: a", **nowhere)


def test_inspect(mesh: ControlPlane) -> None:
    overview = mesh.output("inspect", "overview", "web-1")
    assert "spiffe id: spiffe://default.default.mesh.local/workload/web" in overview
    assert "not connected" in overview
    assert "MeshTrafficPermission" in mesh.output("inspect", "policies", "web-1")
    assert yaml.safe_load(mesh.output("inspect", "config", "web-1"))["listeners"][0]["name"] == "self_inbound_http"
    assert "allowed" in mesh.output("inspect", "access", "web-1", "spiffe://a/web")
    denied = mesh.run("inspect", "access", "web-1", "spiffe://a/other")
    assert (denied.returncode, "the default is deny" in denied.stdout) == (1, True)


def test_tokens_and_bootstrap(mesh: ControlPlane, tmp_path: Path) -> None:
    token = mesh.output("generate", "dataplane-token", "--name", "web-1", "--valid-for", "10m")
    path = tmp_path / "token"
    path.write_text(token + "\n")
    common = ["--name", "web-1", "--token-file", str(path), "--ca-file", str(mesh.data / "ca.pem")]
    found = json.loads(mesh.output("dataplane", "bootstrap", *common, "--control-plane", f"127.0.0.1:{mesh.xds}"))
    assert found["node"]["id"] == "default.web-1"
    assert token not in json.dumps(found)
    assert str(path) in json.dumps(found)
    assert path.read_text() == token, "Envoy sends the file as it is"
    assert f"put a newer one into {path} before" in mesh.run("dataplane", "bootstrap", *common).stderr
    copied = mesh.run("dataplane", "bootstrap", *common, CREDENTIALS_DIRECTORY=str(tmp_path)).stderr
    assert "LoadCredential=token of the unit takes it from, and restart the unit before" in copied
    path.write_text("nothing")
    refused = mesh.run("dataplane", "bootstrap", *common)
    assert (refused.returncode, "there is no token in" in refused.stderr) == (2, True)
    assert mesh.run("generate", "dataplane-token", "--label", "x").returncode == 2
    assert mesh.output("revoke", token.strip()).startswith("revoked ")
    admin = mesh.output("generate", "admin-token")
    assert "default" in mesh.output("get", "m", MESH_TOKEN=admin.strip())


def test_secrets_that_others_can_read_are_said(mesh: ControlPlane) -> None:
    """Tokens and keys that commands are told to read; they are used all the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if any(not one.stat().st_mode & 0o001 for one in folder.parents):
            pytest.skip("the temporary folder is closed to other users: nothing in it is exposed")
        token, admin, chain, key = (folder / name for name in ("token", "admin", "admin.pem", "admin.key"))
        token.write_text(mesh.output("generate", "dataplane-token", "--name", "web-1"))
        admin.write_text(mesh.output("generate", "admin-token"))
        mesh.output("generate", "admin-certificate", "--name", "a", "--certificate", str(chain), "--key", str(key))
        assert key.stat().st_mode & 0o777 == 0o600
        given = {
            token: (["dataplane", "bootstrap", "--name", "web-1", "--token-file", str(token)], {}),
            admin: (["get", "meshes"], {"MESH_TOKEN_FILE": str(admin)}),
            key: (["get", "meshes"], {"MESH_CERTIFICATE": str(chain), "MESH_KEY": str(key)}),
        }
        given[token][0].extend(["--ca-file", str(mesh.data / "ca.pem")])
        for path, (command, environment) in given.items():
            for mode, is_said in ((0o644, True), (0o600, False)):
                path.chmod(mode)
                done = mesh.run(*command, **environment)
                assert done.returncode == 0, done.stderr
                assert (f"chmod o-r {path}" in done.stderr) is is_said, (path, oct(mode), done.stderr)


@pytest.mark.slow(seconds=2)
def test_an_address_that_is_taken_is_said(mesh: ControlPlane, tmp_path: Path) -> None:
    other = ControlPlane(tmp_path)
    other.api = mesh.api
    refused = other.serve_to_its_end()
    assert (refused.returncode, "Traceback" in refused.stderr) == (78, False), refused.stderr
    assert f"error: the API cannot be served at 127.0.0.1:{mesh.api}: Address already in use" in refused.stderr


def test_the_files_of_the_control_plane_are_private(mesh: ControlPlane) -> None:
    for name in ("store.key", "admin.token"):
        assert (mesh.data / name).stat().st_mode & 0o077 == 0
    assert mesh.data.stat().st_mode & 0o077 == 0


def test_an_identity_whose_ca_files_cannot_be_used_is_refused(mesh: ControlPlane, tmp_path: Path) -> None:
    sources = ", ".join(
        f"{name}: {{type: File, file: {{path: {tmp_path}/x}}}}" for name in ("certificate", "privateKey")
    )
    spec = f"{{selector: {{dataplane: {{}}}}, provider: {{type: Bundled, bundled: {{ca: {{{sources}}}}}}}}}"
    refused = mesh.run("apply", "-f", "-", stdin=f"type: MeshIdentity\nname: own\nmesh: default\nspec: {spec}\n")
    assert refused.returncode == 1
    assert "spec.provider.bundled.ca" in refused.stderr
    assert "cannot be used by the control plane" in refused.stderr
    assert mesh.run("get", "meshidentities", "own").returncode == 1


def test_ca_rotation(mesh: ControlPlane) -> None:
    assert "Stable" in mesh.output("ca", "status", "identity")
    assert "Distributing" in mesh.output("ca", "rotate", "identity")
    late = mesh.run("ca", "rotate", "identity", "distributed")
    assert (late.returncode, "some proxies have not reached this stage: web-1" in late.stderr) == (1, True)
    assert "Stable" in mesh.output("ca", "rotate", "identity", "abort")


@pytest.mark.slow(seconds=7)
def test_backup_restart_and_restore(mesh: ControlPlane, tmp_path: Path) -> None:
    copy = tmp_path / "backup.db"
    before = mesh.output("get", "dataplanes", "web-1", "-o", "json")
    mesh.output("backup", str(copy))
    assert "deleted" in mesh.output("delete", "dataplanes", "web-1")
    assert mesh.stop() == 0
    assert mesh.run("restore", str(copy)).returncode == 1
    assert "resources restored to" in mesh.output("restore", str(copy), "--replace")
    ca = (mesh.data / "ca.pem").read_text()
    mesh.start()
    assert mesh.output("get", "dataplanes", "web-1", "-o", "json") == before
    assert (mesh.data / "ca.pem").read_text() == ca


@pytest.mark.envoy
@pytest.mark.parametrize("mode", ["EnvoyTLS", "Offload"])
def test_dataplane_run(mesh: ControlPlane, tmp_path: Path, envoy_binary: Path, mode: str) -> None:
    """Also over ADS, where messages of dynamic modules come as TypedStruct, Envoy takes all of it."""
    if mode == "Offload" and not (ROOT / "envoy_ext" / "libtls_offload.so").is_file():
        pytest.skip("the module is not built: make build")
    mesh.output("apply", "-f", "-", stdin=OFFLOAD % mode)
    path = tmp_path / "token"
    path.write_text(mesh.output("generate", "dataplane-token", "--name", "web-1"))
    command = [*MESH, "dataplane", "run", "--name", "web-1", "--token-file", str(path), "--envoy", str(envoy_binary)]
    command += ["--ca-file", str(mesh.data / "ca.pem"), "--control-plane", f"127.0.0.1:{mesh.xds}"]
    command += ["--runtime-folder", str(tmp_path / "run")]
    with (tmp_path / "envoy.log").open("wb") as log:
        envoy = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        for _ in range(100):
            overview = mesh.output("inspect", "overview", "web-1", "-o", "json")
            types = [state for connection in json.loads(overview)["connections"] for state in [connection["types"]]]
            if types and all(state["state"] == "settled" for state in types[0].values()) and "LDS" in types[0]:
                break
            time.sleep(0.2)
        else:
            raise AssertionError(overview + (tmp_path / "envoy.log").read_text())
        assert types[0].keys() == {"CDS", "LDS", "RDS"} | ({"SDS"} if mode == "EnvoyTLS" else set())
    finally:
        envoy.terminate()
        envoy.wait(20)
        mesh.output("delete", "moff", "all")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("localhost", Address("localhost", 7)),
        ("[::1]:80", Address("::1", 80)),
        ("[::1]", Address("::1", 7)),
        ("::1", Address("::1", 7)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text, 7) == address


@pytest.mark.parametrize("text", ["", ":80", "a:b", "a:70000"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="use host:port"):
        parse_address(text, 7)
