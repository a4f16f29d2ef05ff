"""tlsload against openssl s_server: what it counts is what happened."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time

import pytest

from deploy.load import tools
from deploy.load.latencies import Latencies

from .conftest import KeyPair, StartServer, free_port


def test_counts_full_handshakes(tls_server: StartServer, rsa_pair: KeyPair) -> None:
    result = tools.tlsload(tls_server(rsa_pair), count=60, concurrency=4, tls="1.3")
    assert result["handshakes"] == 60
    assert result["resumed"] == 0
    assert result["failures"] == 0
    assert result["negotiated"]["version"] == "TLSv1.3"
    latency = result["handshake_ms"]
    assert latency["count"] == 60
    assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]
    assert result["client_cpu_s"] > 0


def test_version_group_and_cipher_are_the_asked_ones(tls_server: StartServer, ec_pair: KeyPair) -> None:
    result = tools.tlsload(
        tls_server(ec_pair), count=3, tls="1.2", groups="P-384:P-256", ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"
    )
    assert result["negotiated"] == {
        "version": "TLSv1.2",
        "cipher": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "group": "P-384",
        "alpn": "",
    }


def test_signature_algorithms_choose_the_certificate(
    tls_server: StartServer, rsa_pair: KeyPair, ec_pair: KeyPair
) -> None:
    both = tls_server(rsa_pair, "-dcert", str(ec_pair.certificate_path), "-dkey", str(ec_pair.key_path))
    suites = {
        scheme: tools.tlsload(both, count=1, tls="1.2", sigalgs=scheme)["negotiated"]["cipher"]
        for scheme in ("rsa_pss_rsae_sha256", "ecdsa_secp256r1_sha256")
    }
    assert "ECDHE_RSA" in suites["rsa_pss_rsae_sha256"]
    assert "ECDHE_ECDSA" in suites["ecdsa_secp256r1_sha256"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_resumes_sessions(tls_server: StartServer, rsa_pair: KeyPair, version: str) -> None:
    result = tools.tlsload(tls_server(rsa_pair), count=40, concurrency=16, tls=version, resume=True)
    assert result["failures"] == 0
    assert result["sessions_primed"] == 1  # the others wait for it
    assert result["resumed"] == result["handshakes"] == 39


def test_a_session_that_is_not_resumed_is_a_failure(tls_server: StartServer, rsa_pair: KeyPair) -> None:
    # Two servers behind one port would be the usual cause; here the server forgets by having no cache and no tickets.
    result = tools.tlsload(
        tls_server(rsa_pair, "-no_ticket", "-no_cache"), count=5, tls="1.2", resume=True, concurrency=1, timeout=1
    )
    assert result["handshakes"] == 0
    assert result["failures"] == 5


def test_alpn_is_negotiated(tls_server: StartServer, rsa_pair: KeyPair) -> None:
    result = tools.tlsload(tls_server(rsa_pair, "-alpn", "h2"), count=2, alpn="http/1.1,h2")
    assert result["negotiated"]["alpn"] == "h2"


def test_request_and_status(tls_server: StartServer, rsa_pair: KeyPair) -> None:
    result = tools.tlsload(tls_server(rsa_pair), count=10, get="/")
    assert result["responses"] == 10
    assert result["response_ms"]["min"] >= result["handshake_ms"]["min"]


def test_status_other_than_200_is_a_failure(rsa_pair: KeyPair) -> None:
    port = answer_once_in_tls(rsa_pair, b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
    result = tools.tlsload(f"127.0.0.1:{port}", count=1, get="/")
    assert result["failures_by_reason"] == {"response: HTTP status 503": 1}


def answer_once_in_tls(pair: KeyPair, answer: bytes) -> int:
    """Accepts one TLS connection, reads a request and sends `answer`; the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate_path, pair.key_path)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(4096)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def test_a_response_that_is_cut_short_is_a_failure(rsa_pair: KeyPair) -> None:
    port = answer_once_in_tls(rsa_pair, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
    result = tools.tlsload(f"127.0.0.1:{port}", count=1, get="/")
    assert result["failures_by_reason"] == {"response: closed by the server": 1}


@pytest.mark.parametrize(
    ("answer", "failures"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", {}),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", {}),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", {"response: HTTP status 503": 1}),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", {"response: closed by the server": 1}),
        (b"", {"response: closed by the server": 1}),
    ],
)
def test_plain_requests(answer: bytes, failures: dict[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection = listener.accept()[0]
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        result = tools.tlsload(f"127.0.0.1:{listener.getsockname()[1]}", count=1, plaintext=True, get="/")
    assert result["failures_by_reason"] == failures
    assert result["responses"] == result["handshakes"] == (0 if failures else 1)
    if not failures:
        assert result["handshake_ms"]["max"] == result["response_ms"]["max"] > 0


def test_verifies_the_server(tls_server: StartServer, rsa_pair: KeyPair, ec_pair: KeyPair) -> None:
    server = tls_server(rsa_pair)
    good = tools.tlsload(server, count=2, ca=rsa_pair.certificate_path, sni="localhost")
    other_ca = tools.tlsload(server, count=2, ca=ec_pair.certificate_path)
    other_name = tools.tlsload(server, count=2, ca=rsa_pair.certificate_path, sni="elsewhere.example")
    assert good["failures"] == 0
    refused = {"handshake: TLS: CERTIFICATE_VERIFY_FAILED": 2}
    assert other_ca["failures_by_reason"] == refused
    assert other_name["failures_by_reason"] == refused


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_client_certificate(tls_server: StartServer, rsa_pair: KeyPair, ec_pair: KeyPair, version: str) -> None:
    server = tls_server(rsa_pair, "-Verify", "1", "-verify_return_error", "-CAfile", str(ec_pair.certificate_path))
    good = tools.tlsload(server, count=3, tls=version, cert=ec_pair.certificate_path, key=ec_pair.key_path)
    without = tools.tlsload(server, count=3, tls=version)
    assert good["failures"] == 0
    assert without["handshakes"] == 0
    (reason,) = without["failures_by_reason"]
    assert "TLS alert from the server" in reason


def test_connection_refused_is_named() -> None:
    result = tools.tlsload(f"127.0.0.1:{free_port()}", count=4)
    assert result["failures_by_reason"] == {"connect: Connection refused": 4}


def test_a_silent_server_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = tools.tlsload(f"127.0.0.1:{silent.getsockname()[1]}", count=2, timeout=0.3)
    assert result["failures_by_reason"] == {"handshake: timed out": 2}


def test_an_alert_is_reported_in_words(tls_server: StartServer, rsa_pair: KeyPair) -> None:
    result = tools.tlsload(tls_server(rsa_pair, "-tls1_3"), count=1, tls="1.2")
    assert result["failures_by_reason"] == {"handshake: TLS alert from the server: protocol version": 1}


def test_aborts_are_counted_apart(tls_server: StartServer, rsa_pair: KeyPair) -> None:
    server = tls_server(rsa_pair)
    result = tools.tlsload(server, count=100, abort=True, abort_within=4)
    assert result["aborted"] == 100
    assert result["failures"] == 0
    assert tools.tlsload(server, count=5)["handshakes"] == 5, "the server outlives the aborts"


def test_round_robin_over_targets(tls_server: StartServer, rsa_pair: KeyPair, ec_pair: KeyPair) -> None:
    result = tools.tlsload(tls_server(rsa_pair), tls_server(ec_pair), count=20)
    assert [target["handshakes"] for target in result["targets"]] == [10, 10]


def test_open_loop_makes_every_arrival(tls_server: StartServer, ec_pair: KeyPair) -> None:
    result = tools.tlsload(tls_server(ec_pair), rate=100, duration=1, threads=2, concurrency=64)
    assert result["handshakes"] == 100
    assert result["start_lag_ms"]["count"] == 100


@pytest.mark.slow(seconds=4)
def test_open_loop_latency_counts_from_when_a_connection_was_due() -> None:
    """A server that stalls once must show in the latency of every connection that was due meanwhile."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    stall_s = 0.5

    def stall_then_refuse_all() -> None:
        time.sleep(stall_s)
        listener.settimeout(3)
        try:
            while True:
                listener.accept()[0].close()
        except (TimeoutError, OSError):
            return

    thread = threading.Thread(target=stall_then_refuse_all)
    thread.start()
    # One connection at a time: with a closed loop's clock only the first one would be slow.
    result = tools.tlsload(f"127.0.0.1:{port}", rate=100, count=40, concurrency=1, timeout=5)
    listener.close()
    thread.join()
    lag = result["start_lag_ms"]
    assert lag["count"] == 40
    assert lag["p50"] > 1000 * stall_s / 4, "connections due during the stall waited, and their waiting counts"


def test_warm_up_is_not_reported(tls_server: StartServer, ec_pair: KeyPair) -> None:
    assert tools.tlsload(tls_server(ec_pair), count=10, warmup=15)["handshakes"] == 10


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["127.0.0.1:1"], "needs a bound"),
        (["--count", "1"], "no target"),
        (["--count", "none", "127.0.0.1:1"], "--count is 'none'"),
        (["--count", "1", "127.0.0.1"], "has no port"),
        (["--count", "1", "--tls", "1.1", "127.0.0.1:1"], "--tls is '1.1'"),
        (["--count", "1", "--cert", "/nope", "127.0.0.1:1"], "belong together"),
        (["--count", "1", "--ca", "/nope", "127.0.0.1:1"], "--ca /nope"),
        (["--count", "1", "--groups", "nope", "127.0.0.1:1"], "--groups"),
        (["--count", "1", "--sigalgs", "nope", "127.0.0.1:1"], "'nope' is not a name"),
        (["--count", "1", "--abort", "--resume", "127.0.0.1:1"], "--abort excludes"),
        (["--count", "1", "--plaintext", "127.0.0.1:1"], "--plaintext needs --get"),
        (["--count", "1", "--plaintext", "--get", "/", "--tls", "1.3", "127.0.0.1:1"], "excludes"),
    ],
)
def test_usage_errors_say_what_is_wrong(arguments: list[str], complaint: str) -> None:
    done = subprocess.run([tools.find("tlsload"), *arguments], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "--help" in done.stderr


def test_help_teaches_every_option() -> None:
    text = subprocess.run([tools.find("tlsload"), "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("rate", "resume", "abort", "groups", "sigalgs", "warmup", "poisson", "cert", "ca", "sni", "alpn"):
        assert f"--{option}" in text


def test_histogram_agrees_with_the_quantiles(tls_server: StartServer, ec_pair: KeyPair) -> None:
    block = tools.tlsload(tls_server(ec_pair), count=30, histogram=True)["handshake_ms"]
    latencies = Latencies.of(block)
    assert len(latencies) == 30
    assert latencies.quantile(0.5) == pytest.approx(block["p50"], rel=0.02)
    assert latencies.quantile(1) == pytest.approx(block["max"], rel=0.02)
