"""A newcomer's machine: a minimal Debian 12 with what the README asks for, a clone, `make demo`, a part of `make test`.

    python -m tests.fresh [--demo-only]

Clones the last commit, so what is not committed is not tested. What the demo and the tests say goes to the terminal.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from deploy.node.processes import interruptible
from tests.fresh.root import fresh_root, missing

PROJECT = Path(__file__).resolve().parents[2]

# What the README asks for; everything else has to come from the project's own set-up.
PACKAGES = ("python3", "python3-venv", "gcc", "make", "git")

# Tests that need programs of the system, a compiler, or what a build leaves: they would fail if set-up forgot it.
TESTS = (
    "tests/offload/test_documentation.py",
    "tests/offload/test_cli.py",
    "tests/offload/test_metrics.py",
    "tests/envoy_ext/test_http.py",
    "tests/envoy_ext/test_library.py",
    "tests/control/rest/test_admin_certificates.py",
    "tests/kernels/test_key.py",
    "tests/kernels/constant_time/test_disassembly.py",
    "tests/deploy/test_processes.py",
)


def main() -> int:
    if (reason := missing()) is not None:
        print(f"[fresh] {reason}", file=sys.stderr)
        return 1
    status = ["git", "-C", str(PROJECT), "status", "--porcelain"]
    if subprocess.run(status, capture_output=True, text=True, check=True).stdout:
        print("[fresh] this tree has changes that are not committed; the last commit is tested without them")
    steps = [("make demo", "make demo")]
    if "--demo-only" not in sys.argv:
        steps.append(("a part of make test", f"make test ARGS='-p no:cacheprovider {' '.join(TESTS)}'"))
    with interruptible(), fresh_root("newcomer", PACKAGES) as root:
        print(f"[fresh] a minimal Debian with {', '.join(PACKAGES)}", flush=True)
        root.run("git -c safe.directory=/source clone --quiet file:///source tls-offload", binds=[(PROJECT, "/source")])
        for name, command in steps:
            began = time.monotonic()
            print(f"[fresh] {name}", flush=True)
            done = root.run(command, folder="/root/tls-offload", timeout=2400, check=False, show=True)
            print(f"[fresh] {name}: exit status {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)
            if done.returncode:
                return 1
        root.keep_archives()
    return 0


if __name__ == "__main__":
    sys.exit(main())
