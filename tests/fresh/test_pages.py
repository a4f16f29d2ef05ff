"""docs/start/own-envoy.md and docs/start/systemd.md from their first command to their last, in a bare Debian root.

Minutes, most of them for the compiler: `make test-pages` runs them. The second uses the build of the first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fresh import own_envoy
from tests.fresh.own_envoy import CHECKOUT, USER
from tests.fresh.page import PROJECT, blocks, broken_links, script_of
from tests.fresh.root import FreshRoot, fresh_root, missing

PAGES = PROJECT / "docs" / "start"
BOOTED = ["systemd", "systemd-sysv"]
REASON = missing()

in_a_root = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def root() -> Iterator[FreshRoot]:
    with fresh_root("pages", ["bash", "passwd", *BOOTED]) as made:
        own_envoy.add_user(made)
        copy_checkout(made)
        yield made


def copy_checkout(root: FreshRoot) -> None:
    """What git knows of this tree, with what is not committed yet, as the user's own."""
    listed = ["git", "-c", f"safe.directory={PROJECT}", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listed, cwd=PROJECT, capture_output=True, check=True).stdout
    target = root.path / CHECKOUT.lstrip("/")
    target.mkdir()
    for name in files.decode().split("\0"):
        if name and (PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, target / name)
    root.run(["chown", "-R", f"{USER}:{USER}", CHECKOUT])


@in_a_root
@pytest.mark.long
@pytest.mark.envoy
@pytest.mark.root
@pytest.mark.timeout(3000)
def test_own_envoy_as_a_fresh_user(root: FreshRoot, envoy_binary: Path) -> None:
    own_envoy.walk(root, envoy_binary)


@in_a_root
@pytest.mark.long
@pytest.mark.envoy
@pytest.mark.root
@pytest.mark.timeout(3000)
@pytest.mark.skipif(
    shutil.which("systemd-nspawn") is None, reason="systemd-nspawn is missing: apt-get install systemd-container"
)
def test_services_of_a_system_that_systemd_booted(root: FreshRoot, envoy_binary: Path) -> None:
    first, *rest = blocks(PAGES / "systemd.md")
    assert "pip install" in first.text, "what needs the network of the host"
    installed = root.run(["bash", "-euxc", first.text], folder=CHECKOUT, timeout=2400, check=False)
    assert installed.returncode == 0, installed.stdout[-5000:]
    ran, said = boot(root, script_of(rest), envoy_binary)
    assert ran.returncode == 0, said[-6000:] + ran.stdout[-2000:]
    assert said.count("verified with the certificate") == 2, "before and after the restart"
    assert "root is not user envoy" in said
    assert "connected by mutual TLS" in said
    assert "TLS: Offload" in said
    assert said.count("\nactive") == 3


def boot(root: FreshRoot, script: str, envoy_binary: Path) -> tuple[subprocess.CompletedProcess[str], str]:
    """Runs a script at the end of the system's start; the system then ends with the script's exit status."""
    failed = "trap '[ $? = 0 ] || journalctl --no-pager -n 200 -u offload -u mesh -u \"mesh-dataplane@*\"' EXIT\n"
    (root.path / "page.sh").write_text(failed + script)
    hosts = root.path / "etc/hosts"
    hosts.write_text(hosts.read_text() + "127.0.0.1 control.example\n")
    unit = root.path / "etc/systemd/system/page.service"
    unit.write_text(
        "[Unit]\nAfter=multi-user.target\nSuccessAction=exit-force\nFailureAction=exit-force\n"
        "[Service]\nType=oneshot\nTimeoutStartSec=400\nEnvironment=HOME=/root\n"
        f"WorkingDirectory={CHECKOUT}\nExecStart=/bin/bash -eux /page.sh\n"
        "StandardOutput=file:/page.log\nStandardError=inherit\n"
    )
    wanted = root.path / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / "page.service").symlink_to("../page.service")
    line = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"]
    # nspawn's own filter forbids to lock memory, which a system that boots by itself allows.
    line += ["--system-call-filter=@memlock memfd_secret"]
    line += ["--link-journal=no", f"--directory={root.path}", f"--machine=pages-{os.getpid()}"]
    ran = subprocess.run(
        [*line, f"--bind-ro={envoy_binary}:/usr/local/bin/envoy"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    log = root.path / "page.log"
    assert log.is_file(), f"the system ended with {ran.returncode} before the page began: {ran.stdout[-4000:]}"
    return ran, log.read_text(errors="replace")


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []
