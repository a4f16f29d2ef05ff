"""Fixtures of the daemon's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import Authority, shared_key, write_pair

ME = {"selectors": [{"uid": os.getuid()}]}


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    return folder


@pytest.fixture
def daemon(tmp_path: Path, keys: Path, authority: Authority) -> Iterator[DaemonProcess]:
    """Configured with the identities "www" (P-256, TLS 1.3 only) and "rsa" (RSA-2048, anything) for us; not started."""
    for name, algorithm in (("www", "p256"), ("rsa", "rsa2048")):
        key = shared_key(algorithm)
        write_pair(keys, name, key, authority.issue(key, name))
    made = DaemonProcess(tmp_path)
    made.configure(identities={"www": ME, "rsa": ME | {"usage": "any"}})
    yield made
    made.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[DaemonProcess]:
    """The same, running, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("daemon")
    for name, algorithm in (("www", "p256"), ("rsa", "rsa2048")):
        key = shared_key(algorithm)
        write_pair(folder / "keys", name, key, authority.issue(key, name))
    made = DaemonProcess(folder)
    made.configure(identities={"www": ME, "rsa": ME | {"usage": "any"}})
    yield made.start()
    made.stop()
