"""Secret memory: what is promised of it, seen from inside and, in another process's /proc/PID/mem, from outside."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import kernels

from .conftest import PrivateKey

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def secret(hooks):
    if hooks.secret_memory()["kind"] == "unlocked":
        pytest.skip("this process may lock no memory (ulimit -l), or the build takes secret memory from malloc")
    return hooks


# --- the allocator ----------------------------------------------------------------------------------------------------


def test_sizes_alignment_and_zeros(secret):
    for size in [0, 1, 63, 64, 65, 700, 2688, 4095, 4096, 4097, 8192, 8193, 16384, 16385, 70000, 1 << 20]:
        block = secret.SecretBlock(size)
        assert block.size >= size
        assert block.address % (4096 if size >= 4096 else 64) == 0
        assert not any(block.read())
        block.fill(0xEE)


def test_freed_blocks_are_wiped_at_once(secret):
    """Read through the dead pointer: the memory stays ours. The first word of a free block links it to the next."""
    for size in (64, 500, 4096, 8192, 40000):
        block = secret.SecretBlock(size)
        block.fill(0xEE)
        address = block.address
        assert ctypes.string_at(address, size) == b"\xee" * size
        del block
        assert not any(ctypes.string_at(address + 8, size - 8))


@pytest.fixture(autouse=True)
def no_old_garbage():
    """Keys of earlier tests that are only waiting for the collector would disturb the counts."""
    gc.collect()


def test_used_and_reserved(secret):
    before = secret.secret_memory()
    blocks = [secret.SecretBlock(1000) for _ in range(100)]
    during = secret.secret_memory()
    assert 100_000 <= during["used"] - before["used"] < 150_000
    assert during["reserved"] >= during["used"]
    del blocks
    assert secret.secret_memory()["used"] == before["used"]


def test_too_much_is_an_error_and_no_crash(secret):
    with pytest.raises(MemoryError):
        secret.SecretBlock(1 << 31)


def test_many_threads(secret):
    before = secret.secret_memory()["used"]
    wrong: list[int] = []
    threads = [
        threading.Thread(target=lambda i=i: wrong.append(secret.churn(i, 30_000, 200, 20_000))) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0] * 8
    assert secret.secret_memory()["used"] == before, "caches of ended threads are given back"


def test_freed_by_another_thread(secret):
    before = secret.secret_memory()["used"]
    handed: queue.Queue[object] = queue.Queue(50)

    def make() -> None:
        for i in range(3000):
            block = secret.SecretBlock(1 + i % 3000)
            assert not any(block.read())
            block.fill(0xEE)
            handed.put(block)
        handed.put(None)

    maker = threading.Thread(target=make)
    maker.start()
    while handed.get() is not None:
        pass
    maker.join()
    gc.collect()
    assert secret.secret_memory()["used"] == before


def test_spans_go_back_between_sizes(secret):
    """All of one size, then all of another: the second finds the first's memory, not new memory."""
    blocks = [secret.SecretBlock(64) for _ in range(20_000)]
    peak = secret.secret_memory()["reserved"]
    del blocks
    blocks = [secret.SecretBlock(4096) for _ in range(250)]
    assert secret.secret_memory()["reserved"] == peak
    del blocks


# --- pages ------------------------------------------------------------------------------------------------------------


def run_child(code: str, **environment: str) -> str:
    """Runs Python code in a fresh process; what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert result.returncode == 0, f"status {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


FLAGS_OF_BLOCK = """
import json, re, kernels._testing as t
block = t.SecretBlock(100)
for area in open("/proc/self/smaps").read().split("VmFlags:"):
    pass
flags, current = None, None
for line in open("/proc/self/smaps"):
    if m := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
        current = int(m[1], 16) <= block.address < int(m[2], 16)
    elif current and line.startswith("VmFlags:"):
        flags = line.split()[1:]
print(json.dumps([t.secret_memory()["kind"], flags]))
"""


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("kind", ["memfd_secret", "mlock", "unlocked"])
def test_pages_are_locked_not_dumped_and_not_inherited(kind):
    got, flags = json.loads(run_child(FLAGS_OF_BLOCK, TESTING_SECRET_MEMORY_KIND=kind))
    if kind == "memfd_secret" and got != kind:
        pytest.skip("this kernel has no memfd_secret")
    assert got == kind
    assert {"dd", "dc"} <= set(flags)  # DONTDUMP, DONTFORK
    assert ("lo" in flags) == (kind != "unlocked")


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, {limit}))
import kernels, kernels._testing as t
import numpy as np
if os.geteuid() == 0:
    os.setuid(65534)  # root may lock without limit
key = t.Key.generate("rsa2048") if {limit} else None
if key:
    print(t.sign_messages(0x0804, key, [b"x"]).status.tolist())
print(t.secret_memory()["kind"])
blocks = []
try:
    while len(blocks) < 100000:
        blocks.append(t.SecretBlock(64))
        blocks.append(t.SecretBlock(5000))
except MemoryError:
    pass
for size in (8192, 4096, 2688, 1600, 1280, 1024, 896, 768, 640, 512, 448, 384, 320, 256, 192, 128, 64):
    try:
        while {limit}:
            blocks.append(t.SecretBlock(size))
    except MemoryError:
        pass
if key:
    print(t.secret_memory()["reserved"] <= {limit})
    print(t.sign_messages(0x0804, key, [b"x"] * 3, "software").status.tolist())
    try:
        t.Key.generate("rsa2048")
    except t.InvalidKey as refusal:
        print(refusal)
    del blocks
    print(t.sign_messages(0x0804, key, [b"x"]).status.tolist())
"""


@pytest.mark.usefixtures("secret")
def test_the_limit_of_locked_memory_is_an_error_and_no_crash():
    """At the limit: operations get a status, keys a reason, and all goes on when memory is free again."""
    lines = run_child(LIMITED.format(limit=1 << 20)).splitlines()
    assert lines[0] == "[0]"
    assert lines[1] in ("memfd_secret", "mlock")
    assert lines[2:4] == ["True", "[3, 3, 3]"]  # SignStatus.FAULT
    assert "secret memory is exhausted" in lines[4]
    assert lines[5] == "[0]"


@pytest.mark.usefixtures("secret")
def test_without_any_locked_memory_the_kind_says_so():
    assert run_child(LIMITED.format(limit=0)).splitlines() == ["unlocked"]


FORKED = """
import os, kernels._testing as t
key = t.Key.generate("p256")
t.sign_messages(0x0403, key, [b"x"])
block = t.SecretBlock(1000)
child = os.fork()
if child == 0:
    try:
        t.sign_messages(0x0403, key, [b"x"])
        os._exit(1)
    except t.InvalidKey as refusal:
        assert "forked" in str(refusal)
    del key, block
    fresh = t.SecretBlock(5000)
    fresh.fill(7)
    assert fresh.read() == bytes([7]) * 5000
    del fresh
    print("child", t.secret_memory()["kind"], flush=True)
    raise SystemExit(0)
print(os.waitpid(child, 0)[1], t.sign_messages(0x0403, key, [b"x"]).status.tolist())
"""


@pytest.mark.usefixtures("secret")
def test_a_forked_child_has_no_keys_and_does_not_crash():
    lines = run_child(FORKED).splitlines()
    assert lines[0].startswith("child ")
    assert lines[1] == "0 [0]"


# --- where the bytes of a key are -------------------------------------------------------------------------------------

HOLDER = """
import sys, kernels
from kernels import Key, sign_messages, decrypt
keys = [Key.load(path) for path in sys.argv[2:]]
schemes = {"rsa2048": 0x0804, "p256": 0x0403, "p384": 0x0503, "ed25519": 0x0807}
if sys.argv[1] != "load":
    for backend in [b.name for b in kernels.backends() if b.usable]:
        for key in keys:
            for count in (1, 8):
                assert not sign_messages(schemes[key.algorithm], key, [b"m"] * count, backend).status.any()
    decrypt(keys[0], [bytes(255) + b"2"] * 3)
if sys.argv[1] == "leak":
    import pathlib
    leaked = [pathlib.Path(path).read_bytes() for path in sys.argv[2:]]
if sys.argv[1] == "release":
    del key, keys
print("ready", kernels.secret_memory()["used"], flush=True)
sys.stdin.read()
"""


def needles(private) -> dict[str, bytes]:
    """Pieces of the secret numbers, in both byte orders; 24 bytes do not occur by chance."""
    numbers: dict[str, int] = {}
    pieces: dict[str, bytes] = {}
    if isinstance(private, rsa.RSAPrivateKey):
        x = private.private_numbers()
        numbers = {"p": x.p, "q": x.q, "d": x.d, "dp": x.dmp1, "dq": x.dmq1, "qinv": x.iqmp}
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        numbers = {"d": private.private_numbers().private_value}
    else:
        import hashlib

        seed = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        expanded = bytearray(hashlib.sha512(seed).digest())
        pieces = {"seed": seed[:24], "scalar": bytes(expanded[1:25]), "prefix": bytes(expanded[32:56])}
    for name, number in numbers.items():
        big = number.to_bytes((number.bit_length() + 7) // 8)
        middle = len(big) // 2
        pieces |= {f"{name} begin": big[1:25], f"{name} middle": big[middle - 12 : middle + 12]}
        pieces |= {
            f"{name} begin, little": big[1:25][::-1],
            f"{name} middle, little": big[middle - 12 : middle + 12][::-1],
        }
    return pieces


def readable_memory(pid: int) -> bytes:
    """All memory of a process that another one (with the right to) can read."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            fields = re.match(r"(\w+)-(\w+) (\S+) \S+ \S+ \S+\s*(.*)", line)
            assert fields
            start, end, mode, path = fields.groups()
            if mode[0] != "r" or path.startswith(("[vvar", "[vsyscall", "/secretmem")):
                continue
            memory.seek(int(start, 16))
            found.append(memory.read(int(end, 16) - int(start, 16)))
    return b"\0".join(found)


@pytest.fixture(scope="module")
def key_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("key_files")
    privates: list[PrivateKey] = [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ]
    paths = []
    for i, private in enumerate(privates):
        paths.append(folder / f"{i}.der")
        paths[-1].write_bytes(private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return paths, {f"{type(p).__name__} {i}: {k}": v for i, p in enumerate(privates) for k, v in needles(p).items()}


def found_in_holder(mode: str, key_files) -> set[str]:
    paths, pieces = key_files
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, mode, *map(str, paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline().startswith("ready")
        try:
            memory = readable_memory(holder.pid)
        except PermissionError:
            pytest.skip("may not read another process's memory (ptrace_scope)")
        finally:
            holder.stdin.close()
    assert len(memory) > 1 << 20
    return {name for name, piece in pieces.items() if piece in memory}


@pytest.fixture(scope="module")
def unreadable_pages():
    if kernels.secret_memory()["kind"] != "memfd_secret":
        pytest.skip("the kernel has no memfd_secret: /proc/PID/mem reads locked pages, so a search proves nothing")


@pytest.mark.slow(seconds=3)
@pytest.mark.usefixtures("unreadable_pages")
def test_the_search_finds_keys_that_leak(key_files):
    """The control: a process that also reads the files into Python. DER has big-endian numbers."""
    found = found_in_holder("leak", key_files)
    assert {
        name for name in key_files[1] if "little" not in name and "scalar" not in name and "prefix" not in name
    } <= found


@pytest.mark.slow(seconds=4)
@pytest.mark.usefixtures("unreadable_pages")
@pytest.mark.parametrize("mode", ["load", "sign", "release"])
def test_no_key_bytes_outside_secret_memory(mode, key_files):
    """Not in the heap, not on the stack: after loading, after signing with every backend, after release."""
    assert found_in_holder(mode, key_files) == set()


def test_a_released_key_is_nowhere_at_all(key_files):
    """Inside: this process can read its secret memory itself."""

    def secret_areas() -> bytes:
        areas = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            fields = re.match(r"(\w+)-(\w+) (\S+) \S+ \S+ \S+\s*(.*)", line)
            assert fields
            start, end, mode, path = fields.groups()
            if mode[0] == "r" and path.startswith("/secretmem"):
                areas.append(ctypes.string_at(int(start, 16), int(end, 16) - int(start, 16)))
        return b"".join(areas)

    if kernels.secret_memory()["kind"] != "memfd_secret":
        pytest.skip("areas are only recognised by their name, /secretmem")
    paths, pieces = key_files
    keys = [kernels.Key.load(path) for path in paths]
    kernels.rsa_private(keys[0], np.ones((8, 256), np.uint8))
    held = secret_areas()
    assert sum(piece in held for piece in pieces.values()) >= len(pieces) // 2, "the control: they are there now"
    del keys
    gc.collect()
    after = secret_areas()
    assert {name for name, piece in pieces.items() if piece in after} == set()
