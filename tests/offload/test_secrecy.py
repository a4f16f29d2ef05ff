"""Who may use a key, and what of it must never be seen, with a real daemon."""

from __future__ import annotations

import base64
import os
import platform
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deploy.node.waiting import wait_for
from offload.reporting import exit_codes
from offload.v1 import admin_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import (
    CERTIFICATE_VERIFY,
    DaemonProcess,
    command,
    environment,
    sign_request,
    status_of,
)
from tests.offload.key_files import Authority, key_id, key_pem, pem, secret_forms, shared_key, write_pair

WWW = key_id(shared_key("p256"))
RSA = key_id(shared_key("rsa2048"))

# ---- who may ----


@pytest.mark.slow(seconds=2)
def test_deny_by_default_and_the_refusal_is_logged(daemon: DaemonProcess) -> None:
    daemon.configure(identities={"www": ME, "rsa": {"selectors": [{"uid": 4_000_000}]}})
    daemon.start()
    with daemon.client() as stub:
        assert status_of(lambda: stub.Sign(sign_request(WWW, 0x0403), timeout=10)) is grpc.StatusCode.OK
        assert status_of(lambda: stub.Sign(sign_request(RSA, 0x0804), timeout=10)) is grpc.StatusCode.NOT_FOUND
        assert (
            status_of(lambda: stub.Sign(sign_request(WWW, 0x0403, b"a JWT"), timeout=10))
            is grpc.StatusCode.PERMISSION_DENIED
        )
    wait_for("both refusals", lambda: len(daemon.events("caller refused")) == 2)
    refusals = {tuple(e["identities"]): e for e in daemon.events("caller refused")}
    assert set(refusals) == {("rsa",), ("www",)}
    assert refusals[("rsa",)]["uid"] == os.getuid()
    assert refusals[("rsa",)]["pid"] == os.getpid()
    assert refusals[("rsa",)]["key_id"] == RSA.hex()
    assert refusals[("rsa",)]["socket"] == "main"


def test_a_dedicated_socket_is_the_permission(daemon: DaemonProcess, tmp_path: Path) -> None:
    cart = tmp_path / "cart.sock"
    sockets = {"main": {"path": str(daemon.socket)}, "dedicated": [{"name": "cart", "path": str(cart)}]}
    daemon.configure(sockets=sockets, identities={"www": {"selectors": [{"socket": "cart"}]}})
    daemon.start()
    request = sign_request(WWW, 0x0403)
    with daemon.client() as main, daemon.client(cart) as dedicated:
        assert status_of(lambda: main.Sign(request, timeout=10)) is grpc.StatusCode.NOT_FOUND
        assert status_of(lambda: dedicated.Sign(request, timeout=10)) is grpc.StatusCode.OK
    assert stat.S_IMODE(cart.stat().st_mode) == 0o600


NOBODY = 65534
BECOME_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@pytest.fixture
def nobodys(authority: Authority) -> Iterator[DaemonProcess]:
    """A daemon in a folder of another user, outside pytest's own, which is closed to others."""
    with tempfile.TemporaryDirectory(prefix="offload-test-") as name:
        folder = Path(name)
        for identity, algorithm in (("www", "p256"), ("rsa", "rsa2048")):
            key = shared_key(algorithm)
            write_pair(folder / "keys", identity, key, authority.issue(key, identity))
        for path in (folder, folder / "keys", *(folder / "keys").iterdir()):
            os.chown(path, NOBODY, NOBODY)
        folder.chmod(0o755)
        made = DaemonProcess(folder)
        yield made
        made.stop()


@pytest.mark.root
def test_as_a_user_of_its_own(nobodys: DaemonProcess) -> None:
    """As the unit runs it: another user without capabilities, whose callers are other users still."""
    tried = subprocess.run([*BECOME_NOBODY, *command("--version")], env=environment(), timeout=60, check=False)
    if tried.returncode != 0:
        pytest.skip("this Python is closed to other users")
    nobodys.configure(
        sockets={"main": {"path": str(nobodys.socket), "mode": "0666"}},
        identities={
            "www": {"selectors": [{"uid": 0, "cgroup": "/"}]},
            "rsa": {"selectors": [{"executable": "/bin/sh", "uid": 0}]},
        },
    )
    nobodys.start(prefix=BECOME_NOBODY)
    with nobodys.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
        assert status_of(lambda: stub.Sign(sign_request(RSA, 0x0804), timeout=10)) is grpc.StatusCode.NOT_FOUND
    (warning,) = [e for e in nobodys.log() if "CAP_SYS_PTRACE" in e["event"]]
    assert warning["identities"] == ["rsa"]
    assert nobodys.stop() == exit_codes.OK


@pytest.mark.root
def test_keys_do_not_go_into_memory_that_can_be_swapped(nobodys: DaemonProcess) -> None:
    no_locked_memory = ("prlimit", "--memlock=0:0", *BECOME_NOBODY)
    if subprocess.run(
        [*no_locked_memory, *command("--version")], env=environment(), timeout=60, check=False
    ).returncode:
        pytest.skip("this Python is closed to other users")
    nobodys.configure(identities={"www": ME})
    nobodys.start(wait=False, prefix=no_locked_memory)
    assert nobodys.wait(60) == exit_codes.CONFIGURATION
    reason = nobodys.events("cannot start")[0]["reason"]
    assert "the limit of locked memory is 0 bytes" in reason
    assert "LimitMEMLOCK=" in reason
    assert not nobodys.socket.exists()
    nobodys.configure(identities={"www": ME}, security={"allow_unlocked_memory": True})
    nobodys.start(prefix=no_locked_memory)
    assert nobodys.events("keys are in unlocked memory, as security.allow_unlocked_memory says")
    with nobodys.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature


# Refuses mlock, mlock2 and memfd_secret with EPERM, as the filters of some containers do, and becomes the command.
WITHOUT_LOCKING = """
import ctypes, os, struct, sys
numbers = (149, 325, 447)
code = [(0x20, 0, 0, 0)]
code += [(0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
code += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050001)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
described = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, described) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter has the numbers of x86-64")
def test_a_filter_that_forbids_to_lock_memory_is_not_taken_for_the_limit(daemon: DaemonProcess) -> None:
    daemon.configure(identities={"www": ME})
    limit = ("prlimit", f"--memlock={8 << 20}:{8 << 20}")
    daemon.start(wait=False, prefix=(*limit, sys.executable, "-c", WITHOUT_LOCKING))
    assert daemon.wait(60) == exit_codes.CONFIGURATION
    reason = daemon.events("cannot start")[0]["reason"]
    assert "the limit of locked memory is 8388608 bytes. The limit suffices" in reason
    assert "blocks mlock: allow it" in reason


# ---- what must not be seen ----


def _memory(pid: int, writable: bool = False, between: bytes = b"\0") -> bytes:
    """Everything of the process that can be read, but not the secret mappings. `writable`: not code and constants."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r\S+ \S+ \S+ \d+\s*(.*)", line)
            if not match or match[3].startswith(("[vvar", "[vsyscall")) or "secretmem" in match[3]:
                continue
            if writable and "w" not in line.split()[1]:
                continue
            begin, end = int(match[1], 16), int(match[2], 16)
            try:
                memory.seek(begin)
                parts.append(memory.read(end - begin))
            except OSError:
                continue
    return between.join(parts)


@pytest.mark.root
def test_no_key_outside_the_secret_mappings(daemon: DaemonProcess, keys: Path, authority: Authority) -> None:
    combined = shared_key("p384")
    (keys / "combined.pem").write_bytes(pem(authority.issue(combined, "combined")) + key_pem(combined))
    daemon.start()
    with daemon.client() as stub:
        for _ in range(20):
            stub.Sign(sign_request(WWW, 0x0403), timeout=10)
            stub.Sign(sign_request(RSA, 0x0804), timeout=10)
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reloaded")
    if daemon.events("backend")[0]["secret_memory"]["kind"] != "memfd_secret":
        pytest.skip("without memfd_secret the secret mappings cannot be told from the others")
    seen = _memory(daemon.pid)
    assert WWW in seen, "the search does not work: public key ids are there"
    keys_of_all = (shared_key("p256"), shared_key("rsa2048"), combined)
    for secret in secret_forms(*keys_of_all):
        assert secret not in seen
    for place in ("environ", "cmdline"):
        content = Path(f"/proc/{daemon.pid}/{place}").read_bytes()
        assert not any(secret in content for secret in secret_forms(*keys_of_all))


def _factors_in(data: bytes, modulus: int) -> list[int]:
    """Offsets of a prime factor of an RSA modulus, at any place, as bytes (DER) or as limbs (BIGNUM).

    What was generated in the daemon is known by its public key only; but whoever finds a factor has the key.
    """
    half = modulus.bit_length() // 16
    memory = np.frombuffer(data, np.uint8)
    if len(memory) < half:
        return []
    first, last = memory[: len(memory) - half + 1], memory[half - 1 :]
    found: list[int] = []
    # Both primes have their two highest bits set, or the modulus were shorter; and they are odd.
    for order, (high, low) in {"big": (first, last), "little": (last, first)}.items():
        step = 8 if order == "little" else 1  # limbs are aligned, and so is what this is called with
        places = np.flatnonzero((high[::step] >= 0xB5) & (low[::step] & 1 == 1)) * step
        # Most memory is pointers, text and nothing: of 16 bytes of a prime, four are zero once in two million times.
        sample = memory[places[:, None] + np.arange(40, 56)]
        places = places[((sample == 0).sum(axis=1) < 4) & (sample > 0x7F).any(axis=1)]
        numbers = ((at, int.from_bytes(data[at : at + half], order)) for at in places.tolist())  # type: ignore[arg-type]
        found += [at for at, number in numbers if modulus % number == 0]
    return found


def test_the_search_for_factors_finds_them() -> None:
    key = shared_key("rsa2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    numbers = key.private_numbers()
    modulus = numbers.public_numbers.n
    for secret in (numbers.p, numbers.q):
        for order in ("big", "little"):
            before = 1001 if order == "big" else 1000
            hidden = os.urandom(before) + secret.to_bytes(128, order) + os.urandom(77)
            assert _factors_in(hidden, modulus) == [before]
    assert _factors_in(os.urandom(5000), modulus) == []


@pytest.mark.root
def test_no_generated_key_outside_the_secret_mappings(tmp_path: Path) -> None:
    """Made, asked a certificate for, signed with, renewed: no factor of its modulus in memory, and none on disk."""
    daemon, authority = DaemonProcess(tmp_path), Authority.make()
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "ca.key").write_bytes(key_pem(authority.key))
    local_ca = {"certificate": str(tmp_path / "ca.crt"), "key": str(tmp_path / "ca.key")}
    name = "spiffe://mesh.test/cart"
    generate = {"source": {"generate": {"issuer": "dev", "key_type": "rsa2048"}}}
    daemon.configure(issuers={"dev": {"local_ca": local_ca}}, identities={name: ME | generate})
    daemon.start()
    try:
        daemon.wait_log("identity in force")
        (credential,) = daemon.identity(name).credentials
        public = x509.load_der_x509_certificate(credential.certificate_chain[0]).public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        modulus = public.public_numbers().n
        with daemon.client() as stub:
            for _ in range(20):
                stub.Sign(sign_request(credential.key_id, 0x0804), timeout=10)
        for file in tmp_path.iterdir():
            if file.is_file():
                assert _factors_in(file.read_bytes(), modulus) == []
        if daemon.events("backend")[0]["secret_memory"]["kind"] != "memfd_secret":
            pytest.skip("without memfd_secret the secret mappings cannot be told from the others")
        seen = _memory(daemon.pid, writable=True, between=bytes(8))
        assert modulus.to_bytes(256) in seen, "the search does not work: the public key is there"
        assert _factors_in(seen, modulus) == []
    finally:
        daemon.stop()


@pytest.mark.slow(seconds=2)
def test_no_key_in_logs_and_errors(daemon: DaemonProcess, keys: Path) -> None:
    """Nor in any other file that the daemon makes."""
    logging = {"level": "debug", "format": "json"}
    audit = {"path": str(daemon.folder / "audit.jsonl")}
    daemon.configure(identities={"www": ME, "rsa": ME}, logging=logging, audit=audit)
    daemon.start()
    with daemon.client() as stub:
        assert stub.Sign(sign_request(RSA, 0x0804), timeout=10).signature
    broken = key_pem(shared_key("p256"))
    (keys / "www.key").write_bytes(broken[:-40])
    daemon.wait_log("key file rejected")
    (keys / "www.key").write_bytes(broken.replace(b"PRIVATE KEY", b"CERTIFICATE"))
    daemon.wait_log("key file rejected", 2)
    with daemon.admin() as admin:
        answer = admin.ListKeys(admin_pb2.ListKeysRequest(), timeout=10)
    said = answer.SerializeToString()
    for tried in (("check-config", "-c", daemon.config_file), ("keys", "list", "--admin-socket", daemon.admin_socket)):
        shown = subprocess.run(command(*tried), env=environment(), capture_output=True, timeout=60, check=False)
        assert b"www" in shown.stdout + shown.stderr, "it spoke of the key"
        said += shown.stdout + shown.stderr
    daemon.stop()
    made = [file for file in daemon.folder.iterdir() if file.is_file()]
    assert {daemon.log_file, daemon.folder / "audit.jsonl"} <= set(made)
    log = said + b"".join(file.read_bytes() for file in made)
    for secret in secret_forms(shared_key("p256"), shared_key("rsa2048")):
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)[:-4], repr(secret).encode()):
            assert form not in log


def test_it_cannot_be_traced_or_dumped(running: DaemonProcess) -> None:
    """PR_SET_DUMPABLE 0 makes root the owner of its /proc files."""
    limits = Path(f"/proc/{running.pid}/limits").read_text() if os.getuid() == 0 else "Max core file size 0 0"
    assert re.search(r"Max core file size\s+0\s+0", limits)
    if os.getuid() != 0:
        assert not os.access(f"/proc/{running.pid}/environ", os.R_OK)


def test_what_it_signs_is_a_handshake(running: DaemonProcess) -> None:
    with running.client() as stub:
        answer = stub.Sign(sign_request(WWW, 0x0403), timeout=10)
    from cryptography.hazmat.primitives import hashes

    key = shared_key("p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    key.public_key().verify(answer.signature, CERTIFICATE_VERIFY, ec.ECDSA(hashes.SHA256()))
