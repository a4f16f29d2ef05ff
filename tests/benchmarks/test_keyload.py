"""keyload against a gRPC server that signs with `cryptography`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.load import tools

from .conftest import KeyPair
from .signer import Signer, serving


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "keys.sock"


@pytest.fixture
def signer(rsa_pair: KeyPair, ec_pair: KeyPair, socket_path: Path) -> Iterator[Signer]:
    with serving({rsa_pair.key_id: rsa_pair.key, ec_pair.key_id: ec_pair.key}, socket_path) as running:
        yield running


def test_streams_checked_signatures(signer: Signer, rsa_pair: KeyPair, socket_path: Path) -> None:
    result = tools.keyload(
        socket=socket_path, certificate=rsa_pair.certificate_path, count=100, in_flight=16, batch=8, check=True
    )
    assert result["operations"] == 100
    assert result["failures"] == 0
    assert result["checked"] is True
    assert result["backends"] == {"ifma8": 100}
    assert result["latency_ms"]["count"] == 100
    assert set(signer.message_sizes) == {8, 4}, "twelve messages of 8 and the rest"


def test_batch_sizes_and_kernel_time_come_from_the_results(signer: Signer, ec_pair: KeyPair, socket_path: Path) -> None:
    result = tools.keyload(socket=socket_path, certificate=ec_pair.certificate_path, count=64, in_flight=8, batch=4)
    assert result["operations_by_batch_size"]["4"] == 64
    assert result["batches"] == 16
    assert result["mean_batch"] == 4
    assert result["kernel_us_per_operation"] == 100
    assert set(signer.message_sizes) == {4}


def test_input_is_a_tls13_certificate_verify(signer: Signer, ec_pair: KeyPair, socket_path: Path) -> None:
    tools.keyload(socket=socket_path, certificate=ec_pair.certificate_path, count=8)
    prefix = b" " * 64 + b"TLS 1.3, server CertificateVerify\0"
    assert all(each.startswith(prefix) and len(each) == len(prefix) + 32 for each in signer.inputs)
    assert len(set(signer.inputs)) == 8


def test_input_of_a_given_size(signer: Signer, ec_pair: KeyPair, socket_path: Path) -> None:
    result = tools.keyload(
        socket=socket_path,
        certificate=ec_pair.certificate_path,
        count=6,
        in_flight=6,
        batch=3,
        input_size=5000,
        check=True,
    )
    assert result["operations"] == 6
    assert {len(each) for each in signer.inputs} == {5000}


@pytest.mark.parametrize("in_flight", [1, 20])
@pytest.mark.usefixtures("signer")
def test_unary_calls(ec_pair: KeyPair, socket_path: Path, in_flight: int) -> None:
    result = tools.keyload(
        socket=socket_path,
        certificate=ec_pair.certificate_path,
        count=50,
        in_flight=in_flight,
        unary=True,
        check=True,
        connections=2,
    )
    assert result["operations"] == 50
    assert result["backends"] == {"software": 50}


@pytest.mark.usefixtures("signer")
def test_keys_take_turns(rsa_pair: KeyPair, ec_pair: KeyPair, socket_path: Path) -> None:
    line = tools.command("keyload", {"socket": socket_path, "count": 10, "check": True})
    for pair in (rsa_pair, ec_pair):
        line += ["--certificate", str(pair.certificate_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert tools.result_of("keyload", done.returncode, done.stdout, done.stderr)["operations"] == 10


def test_a_wrong_signature_is_noticed(signer: Signer, rsa_pair: KeyPair, socket_path: Path) -> None:
    signer.spoil = True
    result = tools.keyload(socket=socket_path, certificate=rsa_pair.certificate_path, count=10, check=True)
    assert result["operations"] == 0
    assert result["failures_by_reason"] == {"the signature is not valid": 10}


@pytest.mark.parametrize("unary", [False, True])
@pytest.mark.usefixtures("signer")
def test_a_refusal_is_reported_with_its_status(socket_path: Path, unary: bool) -> None:
    line = tools.command("keyload", {"socket": socket_path, "count": 3, "scheme": "ed25519", "unary": unary})
    line += ["--key-id", "00" * 32, "--batch", "1"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    result = tools.result_of("keyload", done.returncode, done.stdout, done.stderr)
    assert result["failures_by_reason"] == {"status 5: no such key": 3}


def test_a_stream_that_the_daemon_ends(signer: Signer, ec_pair: KeyPair, socket_path: Path) -> None:
    signer.hang_up_after = 2
    result = tools.keyload(socket=socket_path, certificate=ec_pair.certificate_path, count=100, in_flight=8, batch=4)
    assert result["operations"] == 8
    (reason,) = result["failures_by_reason"]
    assert "stream ended by the daemon, gRPC status 14" in reason


def test_open_loop_rate(signer: Signer, ec_pair: KeyPair, socket_path: Path) -> None:
    result = tools.keyload(
        socket=socket_path, certificate=ec_pair.certificate_path, rate=100, duration=0.5, connections=3
    )
    assert 40 <= result["operations"] <= 51
    assert set(signer.message_sizes) == {1}


@pytest.mark.usefixtures("signer")
def test_cpu_of_another_process(ec_pair: KeyPair, socket_path: Path) -> None:
    result = tools.keyload(socket=socket_path, certificate=ec_pair.certificate_path, count=200, daemon_pid=os.getpid())
    assert result["daemon_cpu_us_per_operation"] > 0
    difference = result["daemon_cpu_us_per_operation"] - result["kernel_us_per_operation"]
    assert result["daemon_overhead_us_per_operation"] == pytest.approx(difference, rel=1e-3, abs=1e-2)


def test_warm_up_is_not_reported(signer: Signer, ec_pair: KeyPair, socket_path: Path) -> None:
    result = tools.keyload(
        socket=socket_path, certificate=ec_pair.certificate_path, count=20, warmup=30, in_flight=1, batch=1
    )
    assert len(signer.inputs) == 50
    assert result["operations"] == 20


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--count", "1"], "--socket is missing"),
        (["--socket", "/nope", "--count", "1"], "no key"),
        (["--socket", "/nope", "--certificate", "/nope", "--count", "1"], "no readable PEM certificate"),
        (["--socket", "/nope", "--key-id", "00"], "--key-id needs --scheme"),
        (["--socket", "/nope", "--scheme", "0x0804", "--key-id", "0011"], "64 hex digits"),
        (["--socket", "/nope", "--scheme", "0x0804", "--key-id", "00" * 32, "--count", "1"], "No such file"),
        (["--socket", "/nope", "--scheme", "0x0804", "--key-id", "00" * 32], "needs a bound"),
    ],
)
def test_usage_errors_say_what_is_wrong(arguments: list[str], complaint: str) -> None:
    done = subprocess.run([tools.find("keyload"), *arguments], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr
