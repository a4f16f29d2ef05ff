"""A real core dump of the daemon: there is none, and if there were, no key would be in it."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.offload.daemon_process import DaemonProcess, sign_request
from tests.offload.key_files import key_id, key_pem, make_key, secret_forms, shared_key

PATTERN = Path("/proc/sys/kernel/core_pattern")
KEYS = (shared_key("p256"), shared_key("rsa2048"))
LIMIT = -1 if os.getuid() == 0 else resource.getrlimit(resource.RLIMIT_CORE)[1]  # root may raise it
MAY_DUMP = ("prlimit", "--core=unlimited:unlimited" if LIMIT == -1 else f"--core={LIMIT}:{LIMIT}")
WWW, RSA = (key_id(key) for key in KEYS)


@pytest.fixture
def cores(tmp_path: Path) -> Iterator[Path]:
    """A folder into which processes dump core that have it as their working directory."""
    if LIMIT == 0:
        pytest.skip("nobody may dump core here: the hard limit of its size is 0")
    before = PATTERN.read_text()
    if before.startswith(("|", "/")):  # a program, or another folder
        try:
            PATTERN.write_text("core")
        except OSError as error:
            pytest.skip(f"cores go to '{before.strip()}' here, and that cannot be changed: {error.strerror}")
    folder = tmp_path / "cores"
    folder.mkdir()
    yield folder
    if PATTERN.read_text() != before:
        PATTERN.write_text(before)


def _signs(daemon: DaemonProcess) -> None:
    with daemon.client() as stub:
        for _ in range(20):
            assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
            assert stub.Sign(sign_request(RSA, 0x0804), timeout=10).signature


def _crash(daemon: DaemonProcess) -> bool:
    """Whether the kernel says that it has dumped core."""
    os.kill(daemon.pid, signal.SIGABRT)
    _, status = os.waitpid(daemon.pid, 0)
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert daemon.process is not None
    daemon.process.returncode = -signal.SIGABRT  # its Popen could not know
    return os.WCOREDUMP(status)


@pytest.mark.slow(seconds=3)
def test_the_daemon_dumps_no_core(daemon: DaemonProcess, cores: Path) -> None:
    """Even where everybody else may."""
    daemon.working_directory = cores
    daemon.start(prefix=MAY_DUMP)
    _signs(daemon)
    assert not _crash(daemon)
    assert list(cores.iterdir()) == []


@pytest.mark.slow(seconds=27)
@pytest.mark.parametrize("kind", ["memfd_secret", "mlock"])
def test_no_key_would_be_in_it(daemon: DaemonProcess, cores: Path, kind: str) -> None:
    """The two ways that secret memory is kept, without the defences above it."""
    control = make_key("rsa2048")
    assert isinstance(control, rsa.RSAPrivateKey)
    (cores.parent / "control.key").write_bytes(key_pem(control))
    daemon.working_directory, daemon.module = cores, "tests.offload.undefended_daemon"
    daemon.start(prefix=MAY_DUMP, CONTROL=str(cores.parent / "control.key"), TESTING_SECRET_MEMORY_KIND=kind)
    used = daemon.events("backend")[0]["secret_memory"]["kind"]
    if used != kind:
        pytest.skip(f"no {kind} here, but {used}")
    _signs(daemon)
    assert _crash(daemon)
    (core,) = cores.iterdir()
    dumped = core.read_bytes()
    assert WWW in dumped, "public key ids are there"
    assert key_pem(control) in dumped, "a key in ordinary memory is there, and the search finds it"
    for secret in secret_forms(*KEYS):
        assert secret not in dumped
    core.unlink()
