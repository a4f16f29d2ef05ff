"""`--help`, `--version` and completion."""

from __future__ import annotations

import subprocess

import pytest

from offload import __version__
from offload.reporting import exit_codes
from tests.offload.cli.invoke import good, run
from tests.offload.daemon_process import command, environment

COMMANDS = [
    "serve",
    "check-config",
    "keys list",
    "sign",
    "status",
    "reload",
    "drain",
    "log-level",
    "envoy-config",
    "bench",
]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_teaches_with_an_example(name: str) -> None:
    text = good(run(*name.split(), "--help"))
    assert "Example" in text
    assert f"offload {name}" in " ".join(text.split())


def test_help_names_every_command_and_exit_code() -> None:
    text = good(run("--help"))
    assert all(name.split()[0] in text for name in COMMANDS)
    assert all(str(code) in text for code in (3, 69, 77, 78))


def test_version() -> None:
    assert good(run("--version")) == f"offload {__version__}\n"
    assert run("--no-such-option").exit_code == exit_codes.USAGE


def test_completion() -> None:
    """What the shell asks after `offload --install-completion`."""
    asked = {"_OFFLOAD_COMPLETE": "complete_bash", "COMP_WORDS": "offload ke", "COMP_CWORD": "1"}
    shown = subprocess.run(command(), env=environment(**asked), capture_output=True, text=True, timeout=60, check=False)
    assert shown.stdout.split() == ["keys"]
