"""benchmarks.kernels: what it writes, and that missing contenders are said and not invented."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import crypto_mb
from benchmarks.kernels import contenders
from benchmarks.kernels.cold import IDLE_US, STATES, ColdTimes
from benchmarks.kernels.contenders import ALGORITHMS
from benchmarks.kernels.measure import Times
from benchmarks.kernels.ports import COUNTS, PRODUCTS, Counts, Limit, Ports
from kernels import _testing as testing

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow(seconds=4)
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
    assert "version" in written["versions"]["boringssl_compiler"]
    for algorithm in ("p256", "rsa2048"):
        times = written[algorithm]
        assert times["ours_us"] > 0
        assert times["openssl_us"] > 0
        assert times["boringssl_us"] > 0
        assert list(times["by_batch"]) == [str(batch) for batch in range(1, 9)]
        assert times["by_batch"]["8"]["ours_us"] == times["ours_us"]
        assert all(times["by_batch"][b]["openssl_us"] > 0 for b in times["by_batch"])
        for contender in ("ours", "boringssl", "openssl", "call"):
            assert all(times["cold"][contender][f"{state}_us"] > 0 for state in STATES)
        assert all(times["cold"]["ours"][f"{state}_cpu_us"] > 0 for state in STATES)
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in file.with_suffix(".svg").read_text()
    assert written["ports"]["vpmadd52_512_per_us"] > 0
    assert written["ports"]["vpaddq_512_per_us"] > 0
    assert written["rsa2048"]["plan"]["ways"]["eight"]["products"] in PRODUCTS
    assert sum(written["rsa2048"]["plan"]["schedule"]["8"].values()) == 8
    assert written["p256"]["plan"] is None
    for algorithm in ("p256", "rsa2048"):
        assert written[algorithm]["vector_instructions"] > written[algorithm]["multiplications"]
        assert written[algorithm]["limit_by"] in ("multiplier", "instructions")
        assert 0 < written[algorithm]["limit_us"] < written[algorithm]["ours_us"]
    for heading in ("crypto_mb", "BoringSSL", "OpenSSL", "part of it", "cache sweep"):
        assert heading in done.stdout


@pytest.mark.slow(seconds=7)
@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_instructions_are_counted_not_guessed(algorithm, products):
    """The numbers that the limits of the ports are computed from, in the portable build of the same C."""
    keys = [testing.Key.generate(algorithm) for _ in range(8)]
    testing.force_rsa_products(products)
    try:
        before = testing.multiplications(), testing.vector_instructions()
        if algorithm == "ed25519":
            done = testing.ed25519_sign(keys, [bytes(130)] * 8, backend="ifma8-portable")
        elif algorithm.startswith("rsa"):
            inputs = np.ones((8, int(algorithm[3:]) // 8), np.uint8)
            done = testing.rsa_private(keys, inputs, backend="ifma8-portable")
        else:
            done = testing.ecdsa_sign(keys, np.ones((8, 32 if algorithm == "p256" else 48), np.uint8), "ifma8-portable")
    finally:
        testing.force_rsa_products(None)
    assert not any(done.status)
    counted = Counts(testing.multiplications() - before[0], testing.vector_instructions() - before[1])
    assert counted == COUNTS[products][algorithm]


def test_the_larger_limit_binds():
    counts = Counts(multiplications=1000, instructions=1500)
    one_multiplier = Ports(wide=1, narrow=2, additions=2).limit(counts)
    two_ports_for_everything = Ports(wide=2, narrow=2, additions=2).limit(counts)
    assert one_multiplier == Limit(1000, "multiplier")
    assert two_ports_for_everything == Limit(750, "instructions")
    assert Ports().limit(counts) is None


def test_what_could_not_run_is_null():
    times = Times(us={"openssl": {1: 3.0, 8: 24.004}}, missing={"crypto_mb": "not installed"})
    document = times.as_json()
    assert document["crypto_mb_us"] is None
    assert document["ours_us"] is None
    assert document["openssl_us"] == 24.0
    assert document["by_batch"]["1"] == {"ours_us": None, "openssl_us": 3.0, "boringssl_us": None, "libcrypto_us": None}


def test_cold_times_are_medians_by_state():
    times = ColdTimes()
    for clock in (900.0, 40.0, 41.0):
        times.add("ours", "idle", clock, clock - 1)
    times.add("openssl", "idle", 50.0, None)
    assert times.of("ours", "idle") == 41.0
    assert times.of("ours", "swept") is None
    assert times.as_json() == {
        "idle_before_us": IDLE_US,
        "ours": {"idle_us": 41.0, "idle_cpu_us": 40.0},
        "openssl": {"idle_us": 50.0},
    }


def test_idleness_is_slept_before_a_lone_operation():
    try:
        bench = contenders.bench_for("p256")
    except contenders.Unavailable as missing:
        pytest.skip(str(missing))
    cpu = ctypes.c_int64()
    start = time.monotonic()
    library = contenders.bench_library()
    assert library.kernelbench_lone(bench, b"software", STATES.index("idle"), 20_000, ctypes.byref(cpu)) > 0
    assert time.monotonic() - start >= 0.02
    assert cpu.value > 0
    assert library.kernelbench_lone(bench, b"software", len(STATES), 0, ctypes.byref(cpu)) == -1


def test_without_crypto_mb_the_contender_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(crypto_mb, "library_path", lambda: None)
    found = [c for c in contenders.available("p256") if isinstance(c, tuple)]
    assert ("crypto_mb", "crypto_mb is not installed: pip install .[bench]") in found
