"""A newcomer's machine: a minimal Debian 12 with what the README asks for, a clone, `make demo`, a part of `make test`;
then docs/start/own-envoy.md from its first command to its last, as an ordinary user.

    python -m tests.fresh [--demo-only]
    python -m tests.fresh --what-is-missing    says why no root can be made on this host, and ends with 77 then

Clones the last commit, so what is not committed is not tested. What the demo and the tests say goes to the terminal.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from deploy.node.processes import interruptible
from deploy.setup import envoy
from tests.fresh import own_envoy
from tests.fresh.page import PROJECT
from tests.fresh.root import FreshRoot, fresh_root, missing

CHECKOUT = "/root/tls-offload"
MISSING = 77  # the exit code of a test that cannot be done here, as automake and Meson have it

# What the README asks for; everything else has to come from the project's own set-up.
PACKAGES = ("python3", "python3-venv", "gcc", "make", "git")

# Tests that need programs of the system, a compiler, or what a build leaves: they would fail if set-up forgot it.
TESTS = (
    "tests/offload/test_documentation.py",
    "tests/offload/cli",
    "tests/offload/interfaces/test_metrics.py",
    "tests/envoy_ext/test_http.py",
    "tests/envoy_ext/test_library.py",
    "tests/control/own_certificates/test_administrators.py",
    "tests/kernels/test_key.py",
    "tests/kernels/constant_time/test_disassembly.py",
    "tests/deploy/test_processes.py",
)


def clone(root: FreshRoot, user: str, folder: str) -> None:
    """Whoever owns this tree on the host: Git takes it from a file, not from its command line, whom to serve it to."""
    trusting = "export GIT_CONFIG_GLOBAL=/tmp/for-the-clone\ngit config --global safe.directory '*'\n"
    line = f"git clone --quiet file:///source {folder}\nchown -R {user}:{user} {folder}"
    root.run(trusting + line, binds=[(PROJECT, "/source")])


def make(root: FreshRoot, arguments: str) -> None:
    root.run(f"make {arguments}", folder=CHECKOUT, timeout=2400, show=True)


def follow_own_envoy(root: FreshRoot) -> None:
    own_envoy.add_user(root)
    clone(root, own_envoy.USER, own_envoy.CHECKOUT)
    own_envoy.walk(root, envoy.install())


STEPS: list[tuple[str, Callable[[FreshRoot], None]]] = [
    ("make demo", lambda root: make(root, "demo")),
    ("a part of make test", lambda root: make(root, f"test ARGS='-p no:cacheprovider {' '.join(TESTS)}'")),
    ("docs/start/own-envoy.md as an ordinary user", follow_own_envoy),
]


def main() -> int:
    if (reason := missing()) is not None:
        print(f"[fresh] {reason}", file=sys.stderr)
        return MISSING
    if "--what-is-missing" in sys.argv:
        return 0
    status = ["git", "-C", str(PROJECT), "status", "--porcelain"]
    if subprocess.run(status, capture_output=True, text=True, check=True).stdout:
        print("[fresh] this tree has changes that are not committed; the last commit is tested without them")
    with interruptible(), fresh_root("newcomer", PACKAGES) as root:
        print(f"[fresh] a minimal Debian with {', '.join(PACKAGES)}", flush=True)
        clone(root, "root", CHECKOUT)
        for name, step in STEPS[:1] if "--demo-only" in sys.argv else STEPS:
            began = time.monotonic()
            print(f"[fresh] {name}", flush=True)
            try:
                step(root)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired, AssertionError) as failure:
                print(f"[fresh] {name} failed after {time.monotonic() - began:.0f} s: {failure}")
                print(*getattr(failure, "__notes__", []), sep="\n", flush=True)
                return 1
            print(f"[fresh] {name}: done after {time.monotonic() - began:.0f} s", flush=True)
        root.keep_archives()
    return 0


if __name__ == "__main__":
    sys.exit(main())
