"""Commands that ask a running daemon: keys, status, sign, reload, drain."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from offload.cli.sign import certificate_verify
from offload.identities.schemes import BY_NAME
from offload.reporting import exit_codes
from tests.offload.cli.invoke import good, run
from tests.offload.daemon_process import DaemonProcess, command, environment
from tests.offload.key_files import key_id, shared_key


def test_keys_list(running: DaemonProcess) -> None:
    text = good(run("keys", "list", daemon=running))
    assert "rsa2048" in text
    assert "www.example.com" in text
    shown = json.loads(good(run("keys", "list", "-o", "json", daemon=running)))
    assert [i["name"] for i in shown["identities"]] == ["rsa", "www"]
    assert shown["identities"][1]["keys"][0]["key_id"] == key_id(shared_key("p256")).hex()


@pytest.mark.slow(seconds=3)
@pytest.mark.parametrize("width", [80, 120])
def test_no_id_is_broken_up_and_no_table_is_cut(running: DaemonProcess, width: int) -> None:
    def shown(*arguments: str | Path) -> str:
        ran = subprocess.run(
            command(*arguments),
            env=environment(COLUMNS=str(width), OFFLOAD_ADMIN_SOCKET=str(running.admin_socket)),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return ran.stdout

    for arguments in (("keys", "list"), ("check-config", "-c", running.config_file)):
        text = shown(*arguments)
        for algorithm in ("p256", "rsa2048"):
            assert key_id(shared_key(algorithm)).hex() in text
        assert "used by  uid" in text
    for line in shown("status").splitlines():
        assert len(line) <= max(width, 100)
        assert "…" not in line, "a column that is cut tells nothing"


def test_status(running: DaemonProcess) -> None:
    text = good(run("status", daemon=running))
    assert "serving" in text
    assert all(a in text for a in ("rsa2048", "p256", "ed25519", "AVX-512 IFMA"))
    shown = json.loads(good(run("status", "-o", "json", daemon=running)))
    assert len(shown["classes"]) == 6
    assert all(isinstance(shown[field], int) for field in ("connections_total", "streams", "secret_memory_used_bytes"))
    assert all(isinstance(n, int) for n in shown["classes"][0]["queue_seconds"]["counts"])
    assert good(run("status", "--watch", "--count", "2", "--interval", "0.1", daemon=running)).count("p256") >= 1


def test_sign_by_identity_is_checked(running: DaemonProcess) -> None:
    result = run("sign", "-i", "www", "--handshake", "client", "-o", "json", stdin=b"transcript", daemon=running)
    shown = json.loads(good(result))
    assert shown["verified"] is True
    assert (shown["scheme"], shown["batch_size"]) == ("ecdsa_secp256r1_sha256", 1)
    signed = certificate_verify(b"transcript", "client", BY_NAME["ecdsa_secp256r1_sha256"])
    key = shared_key("p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    key.public_key().verify(base64.b64decode(shown["signature"]), signed, ec.ECDSA(hashes.SHA256()))


def test_sign_by_key_id_from_a_file(running: DaemonProcess, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"anything")
    key = shared_key("rsa2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    identifier = key_id(key).hex()
    arguments = ("sign", "--key-id", identifier, "--scheme", "0x0401", "--input", tmp_path / "in", "--encoding", "hex")
    result = run(*arguments, daemon=running)
    signature = bytes.fromhex(good(result).strip())
    key.public_key().verify(signature, b"anything", padding.PKCS1v15(), hashes.SHA256())
    assert "rsa_pkcs1_sha256 (0x0401)" in result.stderr


def test_sign_raw_through_a_pipe(running: DaemonProcess) -> None:
    ran = subprocess.run(
        command(
            "sign", "-i", "rsa", "--scheme", "rsa_pss_rsae_sha256", "--encoding", "raw", "--socket", running.socket
        ),
        env=environment(),
        input=b"bytes",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert len(ran.stdout) == 256


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-i", "www"], exit_codes.NO_PERMISSION, "this key's usage tls13 signs only TLS 1.3 CertificateVerify"),
        (["-i", "nobody"], exit_codes.NO_PERMISSION, "no such identity"),
        (["--key-id", "00" * 32, "--scheme", "0x0403"], exit_codes.NO_PERMISSION, "no such key"),
        (
            ["-i", "rsa", "--scheme", "ed25519"],
            exit_codes.FAILED,
            "no key of 'rsa' signs with ed25519; available: ",
        ),
        (
            ["-i", "rsa", "--scheme", "md5"],
            exit_codes.USAGE,
            "'md5' is not a known scheme; available: ecdsa_",
        ),
        (["--key-id", "00", "--scheme", "0x0403"], exit_codes.USAGE, "--key-id takes 64 hexadecimal digits"),
        (["--key-id", "00" * 32], exit_codes.USAGE, "--key-id needs --scheme"),
        ([], exit_codes.USAGE, "give either --identity or --key-id"),
        (["-i", "www", "--input", "/no/such/file"], exit_codes.USAGE, "/no/such/file cannot be read"),
    ],
)
def test_sign_that_cannot_be(running: DaemonProcess, arguments: list[str], code: int, message: str) -> None:
    result = run("sign", *arguments, stdin=b"data", daemon=running)
    assert result.exit_code == code, result.output
    assert message in result.stderr


def test_sign_too_much(running: DaemonProcess) -> None:
    result = run("sign", "-i", "rsa", stdin=bytes(512 * 1024 + 1), daemon=running)
    assert result.exit_code == exit_codes.USAGE
    assert "the daemon signs at most 524288 bytes; the input has 524289" in result.stderr


@pytest.mark.slow(seconds=3)
def test_reload_drain_and_log_level(daemon: DaemonProcess) -> None:
    daemon.start()
    assert good(run("log-level", "debug", daemon=daemon)) == "log level: info -> debug\n"
    assert run("log-level", "loud", daemon=daemon).exit_code == exit_codes.USAGE
    good(run("reload", daemon=daemon))
    (daemon.folder / "keys" / "www.key").write_text("x")
    result = run("reload", "-o", "json", daemon=daemon)
    assert result.exit_code == exit_codes.FAILED
    assert all(p["previous_kept"] for p in json.loads(result.stdout)["problems"])
    daemon.config_file.write_text("foo: 1")
    result = run("reload", daemon=daemon)
    assert result.exit_code == exit_codes.FAILED
    assert "foo: unknown field" in result.stderr
    assert "draining; it stops within 25 s" in good(run("drain", daemon=daemon))
    assert daemon.wait() == exit_codes.OK


@pytest.mark.parametrize("arguments", [["status"], ["keys", "list"], ["reload"], ["drain"], ["log-level", "info"]])
def test_no_daemon(tmp_path: Path, arguments: list[str]) -> None:
    result = run(*arguments, "--admin-socket", tmp_path / "none.sock")
    assert result.exit_code == exit_codes.UNAVAILABLE
    assert f"no daemon answers on {tmp_path}/none.sock: the socket does not exist" in result.stderr


def test_not_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("status", "--admin-socket", tmp_path / "file")
    assert (result.exit_code, "it is not a socket" in result.stderr) == (exit_codes.UNAVAILABLE, True)
