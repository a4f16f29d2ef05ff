"""Which tests `make test-unit` runs, and that none of them can start Envoy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.node import envoy
from deploy.node.processes import NodeError
from tests.conftest import ROOT


def collected(markers: str) -> list[str]:
    line = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", markers]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout + done.stderr
    return [name for name in done.stdout.splitlines() if "::" in name]


@pytest.mark.slow(seconds=24)
def test_each_part_has_unit_tests_and_none_of_them_is_one_that_needs_envoy() -> None:
    unit = collected("unit")
    assert not collected("unit and (envoy or root or valgrind or slow or long)")
    parts = {"tests/kernels", "tests/offload", "tests/control", "tests/envoy_ext", "tests/deploy", "tests/benchmarks"}
    assert parts <= {"/".join(name.split("/")[:2]) for name in unit}
    assert not [name for name in unit if name.startswith(("tests/envoy_ext/test_http.py", "tests/fresh/test_root.py"))]


def test_a_unit_test_finds_no_envoy() -> None:
    with pytest.raises(NodeError, match="a-unit-test-has-no-envoy"):
        envoy.binary()


@pytest.mark.envoy
def test_another_test_finds_envoy() -> None:
    assert envoy.binary().is_file()
