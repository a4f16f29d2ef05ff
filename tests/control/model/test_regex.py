"""Regular expressions: what is refused is what Envoy refuses, and the size of a program is what Envoy says it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.model import regex
from tests.control.xds.encoding.test_api_rules import envoy_takes, http

GOOD = [r"/\pL+", r"\z", "(?<n>a)", r"\Q.\E", "(?U)a", "/api/v[0-9]+/.*", "/a{0,47}", "/é+", "/.{0,30}"]
BAD = ["/a++", "(?>ab)", r"\Z", "x{1001}", r"\u0041", "(?a:b)", r"\N{DASH}", "x*+", "", "/a{0,49}", r"/\x{100}+", "("]


@pytest.mark.parametrize("pattern", GOOD)
def test_accepted(pattern: str) -> None:
    assert regex.problem(pattern) is None


@pytest.mark.parametrize("pattern", BAD)
def test_refused(pattern: str) -> None:
    assert regex.problem(pattern) is not None


def test_what_is_too_large_says_how_large() -> None:
    reason = regex.problem("/static/[a-z]{0,200}/[a-z]{0,200}")
    assert reason is not None
    assert reason.startswith("its program has size 813, and Envoy takes 100: ")


@pytest.mark.parametrize("length", [1, 100, 4096])
def test_a_prefix_may_be_as_long_as_it_likes(length: int) -> None:
    assert regex.problem(regex.prefix("/" + "a?" * length)) is None


@pytest.mark.envoy
@pytest.mark.parametrize("pattern", [*GOOD, *BAD])
def test_envoy_says_the_same(pattern: str, envoy_binary: Path, tmp_path: Path) -> None:
    route = {"match": {"safe_regex": {"regex": pattern}}, "direct_response": {"status": 200}}
    assert envoy_takes(envoy_binary, tmp_path, http(route)) == (regex.problem(pattern) is None)
