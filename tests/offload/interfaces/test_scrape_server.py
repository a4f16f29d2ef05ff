"""The metrics port against peers that mean it no good: bounded connections, patience and processor time."""

from __future__ import annotations

import gzip
import http.client
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from deploy.node.waiting import wait_for
from offload.interfaces import scrape_server
from offload.interfaces.scrape_exchange import Page, Scrape
from offload.interfaces.scrape_server import CONNECTIONS_MAX, ProcessorBudget, ScrapeServer
from offload.reporting.folded_log import FoldedLog
from offload.reporting.logs import get_logger
from tests.offload.daemon_process import DaemonProcess, sign_request
from tests.offload.key_files import key_id, shared_key

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n"


@contextmanager
def serving(body: bytes = b"offload_up 1\n") -> Iterator[ScrapeServer]:
    server = ScrapeServer(
        lambda scrape: Page(body, f"text/plain; for={scrape.accept or 'anyone'}"),
        "127.0.0.1",
        0,
        FoldedLog(get_logger()),
    )
    try:
        yield server
    finally:
        server.stop()


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def get(address: str, headers: dict[str, str] | None = None, path: str = "/metrics") -> http.client.HTTPResponse:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", path, headers=headers or {})
    return connection.getresponse()


def read_all(peer: socket.socket) -> bytes:
    parts = []
    with suppress(ConnectionResetError):
        while part := peer.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_a_connection_serves_many_scrapes() -> None:
    with serving() as server, connect(server.address) as peer:
        for _ in range(3):
            peer.sendall(REQUEST)
            answer = peer.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"offload_up 1\n")
        peer.sendall(REQUEST * 20)  # pipelined
        found = b""
        while found.count(b"offload_up 1\n") < 20:
            found += peer.recv(65536)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", b"200"),
        (b"HEAD /metrics HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /metrics?name[]=x HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /secret HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nHost: n\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"GET /metrics HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\n\r\nhello", b"413"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 3000 + b"\r\nY: " + b"y" * 3000 + b"\r\nZ: " + b"z" * 3000, b"431"),
    ],
)
def test_each_request_has_its_answer_and_its_end(request_bytes: bytes, status: bytes) -> None:
    with serving() as server, connect(server.address) as peer:
        peer.sendall(request_bytes)
        answer = read_all(peer)
    assert answer.split(b" ", 2)[1] == status
    assert answer.count(b"offload_up 1\n") == int(status == b"200" and not request_bytes.startswith(b"HEAD"))


def test_a_failing_rendering_is_said_and_the_next_scrape_is_served() -> None:
    def render(scrape: Scrape) -> Page:
        if scrape.accept == "fail":
            raise RuntimeError("a collector is broken")
        return Page(b"fine", "text/plain")

    server = ScrapeServer(render, "127.0.0.1", 0, FoldedLog(get_logger()))
    try:
        assert get(server.address, {"Accept": "fail"}).status == 500
        assert get(server.address).read() == b"fine"
    finally:
        server.stop()


def test_silent_connections_make_room_for_a_scraper() -> None:
    with serving() as server, ExitStack() as stack:
        silent = [stack.enter_context(connect(server.address)) for _ in range(3 * CONNECTIONS_MAX)]
        assert get(server.address).read() == b"offload_up 1\n"
        assert server.ended["full"] >= 2 * CONNECTIONS_MAX
        assert read_all(silent[0]) == b""


def test_slow_peers_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("REQUEST_SECONDS", 0.3), ("RESPONSE_SECONDS", 0.6), ("IDLE_SECONDS", 0.9)):
        monkeypatch.setattr(scrape_server, name, seconds)
    with serving(b"x" * 50_000_000) as server, ExitStack() as stack:
        silent, drip, deaf = (stack.enter_context(connect(server.address)) for _ in range(3))
        deaf.sendall(REQUEST)
        with suppress(OSError):  # a request that never ends: its time counts from its first byte
            for byte in REQUEST[:30]:
                drip.sendall(bytes([byte]))
                time.sleep(0.05)
        assert read_all(silent) == b""
        assert read_all(drip) == b""
        wait_for("the deaf one to be ended", lambda: server.ended["slow"] == 3)
        assert len(read_all(deaf)) < 50_000_000


def test_an_idle_connection_is_no_slow_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has had its answer and asks no more is ended as idle; one that begins to ask again is slow."""
    monkeypatch.setattr(scrape_server, "IDLE_SECONDS", 0.2)
    with serving() as server, connect(server.address) as idle:
        idle.sendall(REQUEST)
        assert b"offload_up 1" in read_all(idle)
        wait_for("the idle one to be ended", lambda: sum(server.ended.values()) == 1)
        assert server.ended["idle"] == 1
    monkeypatch.setattr(scrape_server, "IDLE_SECONDS", 600)
    with serving() as server, connect(server.address) as slow:
        slow.sendall(REQUEST)
        answer = b""
        while b"offload_up 1" not in answer:
            answer += slow.recv(1000)
        monkeypatch.setattr(scrape_server, "REQUEST_SECONDS", 0.2)
        slow.sendall(REQUEST[:10])
        wait_for("the slow one to be ended", lambda: sum(server.ended.values()) == 1)
        assert server.ended["slow"] == 1


def test_processor_time_is_a_share() -> None:
    budget = ProcessorBudget(share=0.1, burst=0.5, now=100.0, used=0.0)
    assert budget.rest(100.1, 0.1) == 0  # within the burst
    assert budget.rest(100.2, 0.45) == 0
    assert budget.rest(100.2, 0.65) == pytest.approx((0.65 - 0.5 - 0.01) / 0.1, rel=0.2)
    assert budget.rest(200.0, 0.65) == 0
    assert budget.rest(200.0, 1.15) == 0  # the burst is there again, and not more than that
    assert budget.rest(200.0, 1.25) == pytest.approx(1.0)


@pytest.mark.slow(seconds=5)
def test_a_flood_gets_its_share_of_the_processor() -> None:
    """What the server's thread used, by its own clock; however many peers knock."""
    with serving() as server, ExitStack() as stack:
        ending = threading.Event()

        def flood() -> None:
            while not ending.is_set():
                with suppress(OSError), connect(server.address) as peer:
                    peer.sendall(REQUEST * 50)

        threads = [threading.Thread(target=flood) for _ in range(4)]
        for thread in threads:
            stack.callback(thread.join)
        stack.callback(ending.set)
        thread_id = server._thread.native_id
        before, began = _cpu_of(thread_id), time.monotonic()
        for thread in threads:
            thread.start()
        time.sleep(5)
        used, passed = _cpu_of(thread_id) - before, time.monotonic() - began
    assert used <= scrape_server.SHARE * passed + scrape_server.BURST_SECONDS + 0.25  # and one turn


def _cpu_of(thread_id: int | None) -> float:
    """Seconds, of a thread of this process."""
    fields = Path(f"/proc/self/task/{thread_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- the daemon ----


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_prometheus_formats_and_compression(running: DaemonProcess) -> None:
    plain = get(running.metrics_address())
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"offload_build_info" in plain.read()
    asked = {
        "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
        "Accept-Encoding": "gzip",
    }
    open_metrics = get(running.metrics_address(), asked)
    assert open_metrics.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert open_metrics.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(open_metrics.read()).endswith(b"# EOF\n")
    for version in ("1.0.0\xe9", "abc", "1..", "", "9" * 5000):
        hostile = get(running.metrics_address(), {"Accept": f"application/openmetrics-text;version={version}"})
        assert hostile.status == 200, version


@pytest.mark.slow(seconds=6)
@pytest.mark.usefixtures("many_descriptors")
def test_two_thousand_connections_leave_signing_and_scraping_alone(running: DaemonProcess) -> None:
    """Silent, slow and deaf ones: threads, descriptors and memory stay, and both services go on."""
    address = running.metrics_address()
    assert get(address).status == 200
    threads, descriptors, memory = running.threads(), running.descriptors(), running.resident_bytes()
    with ExitStack() as stack, running.client() as stub:
        for number in range(2000):
            peer = stack.enter_context(_knock(address))
            with suppress(OSError):
                if number % 3:
                    peer.send(REQUEST if number % 3 == 1 else REQUEST[:20])
            if number % 200 == 0:
                stub.Sign(sign_request(key_id(shared_key("p256")), 0x0403), timeout=10)
                assert running.threads() <= threads + 1
                assert running.descriptors() <= descriptors + CONNECTIONS_MAX + 4
        assert b"offload_metrics_connections_ended_total" in get(address).read()
        stub.Sign(sign_request(key_id(shared_key("p256")), 0x0403), timeout=10)
        assert running.resident_bytes() - memory < 64 << 20


def _knock(address: str) -> socket.socket:
    """A connection that does not wait until it is accepted."""
    host, _, port = address.rpartition(":")
    peer = socket.socket()
    peer.setblocking(False)
    with suppress(BlockingIOError):
        peer.connect((host, int(port)))
    return peer


@pytest.mark.slow(seconds=2)
def test_metrics_come_back_after_descriptors_ran_out(daemon: DaemonProcess) -> None:
    daemon.start()
    address = daemon.metrics_address()
    with ExitStack() as stack:
        with daemon.without_descriptors():
            waiting = stack.enter_context(connect(address))
            daemon.wait_log("metrics: cannot accept connections for now")
        waiting.sendall(REQUEST)
        assert waiting.recv(100).startswith(b"HTTP/1.1 200")
    assert get(address).status == 200
