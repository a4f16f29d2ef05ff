"""The search must find what is there, in every form, and nothing else."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from deploy.node import certificates, envoy, memory_search
from deploy.node.processes import Processes
from envoy_ext import render

KEY_TYPES = ("rsa2048", "p256", "p384")


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_patterns_are_secret_and_long(key_type: str) -> None:
    key = certificates.make_key(key_type)
    patterns = memory_search.patterns(key)
    assert all(len(pattern) >= 28 for pattern in patterns.values()), "short ones would be found by chance"
    public = {
        key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        for encoding in (serialization.Encoding.DER, serialization.Encoding.PEM)
    }
    assert not any(pattern in text for pattern in patterns.values() for text in public)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_pem_lines_are_of_the_private_part(key_type: str) -> None:
    key = certificates.make_key(key_type)
    pem = certificates.pem_of(key)
    lines = [pattern for name, pattern in memory_search.patterns(key).items() if name.startswith("PEM")]
    assert lines
    assert all(line in pem for line in lines)


HOLDER = """
import sys
held = sys.stdin.buffer.read(int(sys.argv[1]))
print("holding", flush=True)
sys.stdin.buffer.read()
"""


@pytest.fixture
def holder() -> Iterator[Callable[[bytes], int]]:
    """A process that has these bytes in its memory, and nowhere else; gives its pid."""
    running: list[subprocess.Popen[bytes]] = []

    def hold(secret: bytes) -> int:
        line = [sys.executable, "-c", HOLDER, str(len(secret))]
        child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(child)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(secret)
        child.stdin.flush()
        assert child.stdout.readline() == b"holding\n"
        return child.pid

    yield hold
    for child in running:
        with child:
            child.kill()


def test_finds_what_a_process_holds(holder: Callable[[bytes], int]) -> None:
    secret, other = os.urandom(48), os.urandom(48)
    search = memory_search.search(holder(secret), {"whole": secret, "inner part": secret[5:40], "other": other})
    assert {finding.pattern for finding in search.findings} == {"whole", "inner part"}
    assert search.bytes_read > 1_000_000


@pytest.mark.parametrize("form", ["little-endian", "big-endian in DER"])
@pytest.mark.parametrize("which", ["p", "q"])
def test_finds_a_factor_of_a_modulus(holder: Callable[[bytes], int], form: str, which: str) -> None:
    keys = [rsa.generate_private_key(65537, 2048) for _ in range(3)]
    moduli = [key.public_key().public_numbers().n for key in keys]
    factor = getattr(keys[1].private_numbers(), which)
    held = (
        factor.to_bytes(128, "little")
        if form == "little-endian"
        else b"odd\x02\x81\x81\x00" + factor.to_bytes(128, "big")
    )
    pid = holder(held)
    search = memory_search.search_for_factors(pid, moduli)
    assert {finding.pattern for finding in search.findings} == {f"RSA factor {form.partition(' ')[0]}"}
    assert search.bytes_read > 1_000_000
    assert memory_search.search_for_factors(pid, [moduli[0], moduli[2]]).findings == ()


def test_a_pattern_across_two_chunks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 64
    monkeypatch.setattr(memory_search, "CHUNK", 4096)
    area = ctypes.create_string_buffer(64 * 1024)
    secret = os.urandom(size)
    address = ctypes.addressof(area)
    boundary = -address % 4096 + 4 * 4096
    ctypes.memmove(address + boundary - size // 2, secret, size)
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        chunks = list(memory_search._chunks(memory, address, address + len(area), size - 1))
    finally:
        os.close(memory)
    assert sum(secret in chunk for _, chunk in chunks) >= 1
    assert sum(len(chunk) for _, chunk in chunks) >= len(area)


@pytest.mark.envoy
def test_finds_the_keys_in_a_stock_envoy_that_has_them(tmp_path: Path) -> None:
    authority = certificates.Authority(tmp_path / "ca")
    leaves = [authority.issue(key_type, key_type, tmp_path / "keys") for key_type in KEY_TYPES]
    routes = [render.direct_response("ok")]
    with Processes(tmp_path) as processes:
        listeners = [envoy.https_listener(leaf.name, envoy.stock_tls(leaf), routes) for leaf in leaves]
        running = envoy.start(processes, "envoy", render.bootstrap(listeners, admin_port=0))
        assert set(running.ports) == set(KEY_TYPES)
        for leaf in leaves:
            assert memory_search.search(running.pid, memory_search.patterns(leaf.key)).findings, leaf.key_type
            if isinstance(leaf.key, rsa.RSAPrivateKey):
                modulus = leaf.key.public_key().public_numbers().n
                assert memory_search.search_for_factors(running.pid, [modulus]).findings
        stranger = memory_search.patterns(certificates.make_key("rsa2048"))
        assert memory_search.search(running.pid, stranger).findings == ()
