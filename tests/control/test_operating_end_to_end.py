"""What is done to a control plane that runs, by its commands: what is refused, what is written of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.mesh_process import ControlPlane


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    control_plane = ControlPlane(tmp_path_factory.mktemp("mesh"))
    control_plane.start()
    control_plane.output("apply", "-f", "-", stdin="type: Mesh\nname: default\n")
    yield control_plane
    control_plane.stop()


def audit(mesh: ControlPlane) -> list[dict[str, Any]]:
    """It is in the server's log, among other lines."""
    text = (mesh.folder / "serve.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"time":')]


def test_only_what_is_a_token_is_revoked(mesh: ControlPlane) -> None:
    token = mesh.output("generate", "node-token", "--name", "n1")
    for wrong in ("blah", "a.b.c", "0" * 32):
        refused = mesh.run("revoke", wrong)
        assert refused.returncode == 1
        assert "revoked" not in refused.stdout
    assert "'blah' is neither a token nor the id of one" in mesh.run("revoke", "blah").stderr
    said = mesh.run("revoke", "-", "--reason", "lost", stdin=token + "\n")
    assert said.stdout.endswith(": node token of 'n1'\n")
    assert said.stderr == ""
    jti = said.stdout.split()[1].rstrip(":")
    assert mesh.output("revoke", jti) == said.stdout, "once more changes nothing"
    shown = mesh.run("revoke", mesh.output("generate", "node-token", "--name", "n2"))
    assert "every user of this host can read a token on the command line" in shown.stderr
    assert mesh.output("revoke", "f" * 32, "--force").startswith("revoked")


def test_a_node_token_is_of_a_node(mesh: ControlPlane) -> None:
    refused = mesh.run("generate", "node-token")
    assert (refused.returncode, "Missing option '--name'" in refused.stderr, refused.stdout) == (2, True, "")
    for name in ("", "x" * 65, "a\x1b"):
        refused = mesh.run("generate", "node-token", "--name", name)
        assert (refused.returncode, "name: " in refused.stderr, refused.stdout) == (1, True, ""), name


def test_who_did_what_is_in_the_log(mesh: ControlPlane) -> None:
    token = mesh.output("generate", "admin-token", "--name", "alice")
    mesh.output("apply", "-f", "-", stdin="type: Mesh\nname: other\n", MESH_TOKEN=token)
    mesh.output("delete", "meshes", "other", MESH_TOKEN=token)
    files = [str(mesh.folder / name) for name in ("bob.pem", "bob.key")]
    mesh.output("generate", "admin-certificate", "--name", "bob", "--certificate", files[0], "--key", files[1])
    by_certificate = {"MESH_CERTIFICATE": files[0], "MESH_KEY": files[1], "MESH_TOKEN_FILE": "/none"}
    mesh.output("generate", "dataplane-token", "--name", "web-1", **by_certificate)
    found = audit(mesh)[-5:]
    events = [(one["event"], one["by"].get("name"), one["by"]["kind"]) for one in found]
    assert events == [
        ("token_issued", "local", "token"),
        ("resource_stored", "alice", "token"),
        ("resource_deleted", "alice", "token"),
        ("certificate_issued", "local", "token"),
        ("token_issued", "bob", "certificate"),
    ]
    assert all(one["from"].startswith("127.0.0.1:") for one in found)
    assert found[1]["by"]["id"] == found[0]["id"]
    assert found[4]["by"]["id"] == found[3]["id"]
    started = audit(mesh)[0]
    assert (started["event"], started["by"], started["name"]) == ("token_issued", {"kind": "control plane"}, "local")
    assert token not in (mesh.folder / "serve.log").read_text()


def test_a_lost_store_is_brought_back_without_a_restart(mesh: ControlPlane, tmp_path: Path) -> None:
    """There is nothing that could be lost any more, so the control plane that waits for it is no obstacle."""
    copy = tmp_path / "backup.db"
    mesh.output("backup", str(copy))
    for file in mesh.data.glob("mesh.db*"):
        if file.suffix != ".lock":
            file.unlink()
    assert mesh.run("get", "meshes").returncode != 0
    mesh.output("restore", str(copy))
    deadline = time.monotonic() + 60
    while not (there := [one for one in audit(mesh) if one["event"] == "store_restored"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert there[-1]["what"] == str(copy)
    assert "default" in mesh.output("get", "meshes")


@pytest.mark.slow(seconds=9)
def test_a_store_in_use_is_not_replaced(mesh: ControlPlane, tmp_path: Path) -> None:
    copy = tmp_path / "backup.db"
    mesh.output("backup", str(copy))
    mesh.output("apply", "-f", "-", stdin="type: Mesh\nname: later\n")
    refused = mesh.run("restore", str(copy), "--replace")
    assert mesh.process is not None
    assert refused.returncode == 1
    assert f"is in use by the process {mesh.process.pid}: stop the control plane first" in refused.stderr
    assert "later" in mesh.output("get", "meshes")
    mesh.process.kill()
    mesh.process.wait(20)
    assert "1 resources restored to" in mesh.output("restore", str(copy), "--replace"), "a lock ends with its process"
    mesh.start()
    assert "later" not in mesh.output("get", "meshes")
    restored = [one for one in audit(mesh) if one["event"] == "store_restored"][-1]
    assert (restored["by"]["kind"], restored["what"], restored["from"]) == ("local", str(copy), "this host")
    assert mesh.stop() == 0
    mesh.start()
    written = [one["what"] for one in audit(mesh) if one["event"] == "store_restored"]
    assert written.count(str(copy)) == 1, "it is written once"
