"""docs/start/mesh.md from its first command to its last, with real stock Envoys, in a network of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from envoy_ext.location import SEARCH_PATH_VARIABLE
from tests.fresh.page import PROJECT, blocks, broken_links
from tests.offload.daemon_process import environment

PAGES = [
    PROJECT / "docs" / "start" / "mesh.md",
    PROJECT / "docs" / "guide" / "services.md",
    PROJECT / "docs" / "start" / "systemd.md",
]


def programs(folder: Path, envoy: Path) -> str:
    """A PATH on which `offload`, `mesh` and `envoy` are those of this tree."""
    folder.mkdir()
    for name, module in (("offload", "offload"), ("mesh", "control.cli")):
        line = f"from {module if name == 'mesh' else 'offload.cli'} import main; main()"
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(line)} "$@"\n')
        (folder / name).chmod(0o755)
    (folder / "envoy").symlink_to(envoy)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.envoy
@pytest.mark.root
@pytest.mark.timeout(500)
def test_every_command_of_the_quick_start_runs(tmp_path: Path, envoy_binary: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="mesh-") as session:  # a socket's path is short
        _run_the_page(tmp_path, envoy_binary, session)


def _run_the_page(tmp_path: Path, envoy_binary: Path, session: str) -> None:
    script = "".join(block.text for block in blocks(PAGES[0]))
    variables = environment(HOME=str(tmp_path), XDG_RUNTIME_DIR=session, PATH=programs(tmp_path / "bin", envoy_binary))
    variables.pop(SEARCH_PATH_VARIABLE, None)
    trap = "trap 'kill $(jobs -p) 2> /dev/null || true; tail -n 5 ~/mesh/*.log' EXIT\n"
    apart = ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    ran = subprocess.run(
        [*apart, "bash", "-euxc", trap + script],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=450,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:]
    said = ran.stdout.splitlines()
    assert "RBAC: access denied" in said
    assert said.count("hello from the backend") >= 2, "with keys in the Envoys, and with keys in the daemon"
    assert "no plaintext" in said
    assert "TLS: Offload" in said
    assert "spiffe://default.default.mesh.local/workload/web" in ran.stdout


@pytest.mark.slow(seconds=2)
def test_the_example_of_the_manual_is_valid(tmp_path: Path) -> None:
    """And the dataplane that its quick start starts is in it."""
    page = PAGES[1].read_text()
    [example] = [text for text in re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S) if "type: Dataplane" in text]
    (tmp_path / "mesh.yaml").write_text(example)
    line = [sys.executable, "-c", "from control.cli import main; main()", "validate", "-f", str(tmp_path / "mesh.yaml")]
    ran = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout.endswith("resources, all valid\n")) == (0, True), ran.stderr
    for started in re.findall(r"mesh dataplane run --name (\S+)", page):
        assert f"name: {started}\n" in example


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []
