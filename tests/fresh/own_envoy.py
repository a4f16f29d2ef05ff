"""docs/start/own-envoy.md from its first command to its last, as a fresh ordinary user of a bare root."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.fresh.page import PROJECT, blocks, script_of
from tests.fresh.root import FreshRoot

PAGE = PROJECT / "docs" / "start" / "own-envoy.md"
USER = "alice"
CHECKOUT = f"/home/{USER}/tls-offload"


def add_user(root: FreshRoot) -> None:
    root.run(f"useradd --create-home --shell /bin/bash {USER}")


def walk(root: FreshRoot, envoy_binary: Path) -> None:
    """The root has the user, and the user has a checkout. AssertionError, with the output, where the page is wrong."""
    found = blocks(PAGE)
    install = [block for block in found if block.section == "Install"]
    root.run(script_of([block for block in install if block.account == "root"]), timeout=900)
    own = script_of([block for block in install if not block.account])
    installed = root.run(["bash", "-euxc", own], user=USER, folder=CHECKOUT, timeout=2400, check=False)
    assert installed.returncode == 0, installed.stdout[-5000:]

    rest = [block for block in found if block.section != "Install"]
    assert not any(block.account for block in rest), "root is asked once"
    exports = [line for line in own.splitlines() if line.startswith("export ")]
    script = "\n".join(["trap 'kill $(jobs -p) 2> /dev/null || true; cat *.log' EXIT", *exports, script_of(rest)])
    line = root.command(["bash", "-euxc", script], user=USER, binds=[(envoy_binary, "/usr/local/bin/envoy")])
    # In a network of its own: the page's ports may be taken on this host.
    apart = ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *line]
    ran = subprocess.run(
        apart,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:]
    assert "verified with the certificate" in ran.stdout
    assert "hello from behind the offload" in ran.stdout
    assert "it will not start" not in ran.stdout
    assert "libtls_offload.so" in ran.stdout
