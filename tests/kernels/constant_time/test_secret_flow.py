"""Secrets do not reach a branch or an address: valgrind's memcheck on the portable build of the 8-lane kernels.

The portable build is the same C as what runs, over plain 64-bit words (kernels/ifma8/vec.h). Every secret of a key is
marked undefined (tests/native/constant_time/secret_flow.c); memcheck reports whatever depends on undefined data.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROOT = Path(__file__).resolve().parents[3]
FOUND = 9  # valgrind's exit status when it found something

pytestmark = [pytest.mark.valgrind, pytest.mark.timeout(900)]

ALGORITHMS = [
    "rsa2048",
    pytest.param("rsa3072", marks=pytest.mark.long),
    pytest.param("rsa4096", marks=pytest.mark.long),
    "p256",
    "p384",
    "ed25519",
]


def key_file(folder: Path, algorithm: str) -> Path:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if algorithm.startswith("rsa"):
        key = rsa.generate_private_key(65537, int(algorithm[3:]))
    elif algorithm == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = ec.generate_private_key(ec.SECP256R1() if algorithm == "p256" else ec.SECP384R1())
    path = folder / f"{algorithm}.der"
    path.write_bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return path


def run(program: Path, algorithm: str, key: Path, *leak: str) -> subprocess.CompletedProcess[str]:
    line = ["valgrind", "-q", f"--error-exitcode={FOUND}", str(program), algorithm, str(key), *leak]
    return subprocess.run(line, capture_output=True, text=True, timeout=800, check=False)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_branch_and_no_address_depends_on_a_secret(algorithm, constant_time_programs, tmp_path):
    done = run(constant_time_programs / "secret_flow", algorithm, key_file(tmp_path, algorithm))
    assert done.returncode == 0, done.stderr[:4000] or done.stdout
    assert "right" in done.stdout


@pytest.mark.parametrize("leak", ["leak-branch", "leak-address"])
def test_a_leak_would_be_seen(leak, constant_time_programs, tmp_path):
    done = run(constant_time_programs / "secret_flow", "p256", key_file(tmp_path, "p256"), leak)
    assert done.returncode == FOUND
    assert "ninitialised value" in done.stderr


def test_what_is_declassified_is_on_the_list():
    """Names in the code and in declassified.toml are the same, each in its file, each with a reason."""
    listed = tomllib.loads((Path(__file__).parent / "declassified.toml").read_text())
    marked: dict[str, str] = {}
    for path in sorted((ROOT / "kernels").rglob("*.[ch]")):
        if path.name == "secret_flow.h":
            continue
        for call in re.finditer(r"KERNEL_DECLASSIFY\((.*?)\);", path.read_text(), re.DOTALL):
            name = re.search(r'"(\w+)"\s*$', call[1])
            assert name is not None, f"{path}: a mark without a name: {call[0]}"
            marked[name[1]] = str(path.relative_to(ROOT))
    assert marked == {name: entry["file"] for name, entry in listed.items()}
    assert all(len(entry["why"]) > 20 for entry in listed.values())
