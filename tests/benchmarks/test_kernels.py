"""benchmarks.kernels: what it writes, and that missing contenders are said and not invented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import crypto_mb
from benchmarks.kernels import contenders
from benchmarks.kernels.contenders import ALGORITHMS
from benchmarks.kernels.measure import Times
from benchmarks.kernels.ports import MULTIPLICATIONS
from kernels import _testing as testing

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.ifma
def test_command_writes_times_and_charts(tmp_path):
    try:
        contenders.bench_library()
    except contenders.Unavailable as missing:
        pytest.skip(str(missing))
    file = tmp_path / "kernels.json"
    line = [sys.executable, "-m", "benchmarks.kernels", "--json", str(file), "--rounds", "1", "p256", "rsa2048"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text())
    assert written["cpu"]
    assert set(written["versions"]) >= {"crypto_mb", "cryptography", "openssl"}
    for algorithm in ("p256", "rsa2048"):
        times = written[algorithm]
        assert times["ours_us"] > 0
        assert times["openssl_us"] > 0
        assert times["boringssl_us"] > 0
        assert list(times["by_batch"]) == [str(batch) for batch in range(1, 9)]
        assert times["by_batch"]["8"]["ours_us"] == times["ours_us"]
        assert all(times["by_batch"][b]["openssl_us"] > 0 for b in times["by_batch"])
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in file.with_suffix(".svg").read_text()
    assert written["ports"]["vpmadd52_512_per_us"] > 0
    for heading in ("crypto_mb", "BoringSSL", "OpenSSL", "part of the limit"):
        assert heading in done.stdout


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_multiplications_are_counted_not_guessed(algorithm):
    """The numbers that the limit of the ports is computed from, in the portable build of the same C."""
    keys = [testing.Key.generate(algorithm) for _ in range(8)]
    before = testing.multiplications()
    if algorithm == "ed25519":
        done = testing.ed25519_sign(keys, [bytes(130)] * 8, backend="ifma8-portable")
    elif algorithm.startswith("rsa"):
        inputs = np.ones((8, int(algorithm[3:]) // 8), np.uint8)
        done = testing.rsa_private(keys, inputs, backend="ifma8-portable")
    else:
        done = testing.ecdsa_sign(keys, np.ones((8, 32 if algorithm == "p256" else 48), np.uint8), "ifma8-portable")
    assert not any(done.status)
    assert testing.multiplications() - before == MULTIPLICATIONS[algorithm]


def test_what_could_not_run_is_null():
    times = Times(us={"openssl": {1: 3.0, 8: 24.004}}, missing={"crypto_mb": "not installed"})
    document = times.as_json()
    assert document["crypto_mb_us"] is None
    assert document["ours_us"] is None
    assert document["openssl_us"] == 24.0
    assert document["by_batch"]["1"] == {"ours_us": None, "openssl_us": 3.0, "boringssl_us": None, "libcrypto_us": None}


def test_without_crypto_mb_the_contender_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(crypto_mb, "library_path", lambda: None)
    found = [c for c in contenders.available("p256") if isinstance(c, tuple)]
    assert ("crypto_mb", "crypto_mb is not installed: pip install .[bench]") in found
