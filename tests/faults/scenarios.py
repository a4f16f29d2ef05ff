"""One fault each, in a running mesh. A scenario breaks something, checks what must hold meanwhile, and mends it."""

from __future__ import annotations

import datetime
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks import tools
from tests.envoy_ext.mesh import CART, PRICES
from tests.envoy_ext.node import wait_for
from tests.faults.rig import Result, Rig, rig
from tests.offload.key_files import NOW, Authority, make_key, write_pair

Scenario = Callable[[Path], Result]
IDLE_CONNECTIONS = 10_000
FLOOD_SECONDS = 3


def _restart(there: Rig) -> None:
    there.daemon.log_file.unlink()
    there.daemon.start()


def _none_failed(result: Result) -> Result:
    assert result.failed == 0, f"{result.name}: {result.failed} of {result.tried} requests failed"
    return result


def _sees_update(there: Rig, change: Callable[[], object]) -> None:
    """Does it, and waits until both Envoys have heard."""
    before = [one.stats()["identity_updates"] for one in (there.client, there.server)]
    change()
    for one, count in zip((there.client, there.server), before, strict=True):
        wait_for("the news at an Envoy", lambda one=one, count=count: one.stats()["identity_updates"] > count)


def daemon_killed(folder: Path) -> Result:
    with rig(folder) as there:
        there.daemon.signal(signal.SIGKILL)
        there.daemon.wait()
        time.sleep(1)
        _restart(there)
        there.recovers()
    return there.judge(
        Result("daemon killed, started again after 1 s", "Envoys stay up and connect again by themselves")
    )


def daemon_stopped(folder: Path) -> Result:
    with rig(folder) as there:
        there.daemon.signal(signal.SIGSTOP)
        time.sleep(2)
        there.daemon.signal(signal.SIGCONT)
        there.recovers()
    return there.judge(Result("daemon stopped for 2 s (SIGSTOP)", "no Envoy worker waits for it: both stay responsive"))


def socket_file_deleted(folder: Path) -> Result:
    with rig(folder) as there:
        there.daemon.socket.unlink()
        there.load.wait_successes(50)
    return _none_failed(there.judge(Result("socket file deleted", "connections that are there go on")))


def certificate_expires(folder: Path) -> Result:
    """The server's certificate ends in the middle, and nobody renews it for a while."""
    with rig(folder, lambda s: s.client_tls(session_tickets=False, clock_skew_s=0)) as there:
        key = make_key("p256")
        lasts = datetime.datetime.now(datetime.UTC) - NOW + datetime.timedelta(seconds=3)
        _sees_server_update(there, lambda: there.services.issue("prices", PRICES, key=key, end=lasts))
        wait_for("the end of the certificate", lambda: _reasons(there, "certificate has expired"))
        refused = there.client.stats()["upstream_peers_rejected"]
        assert refused > 0
        there.services.issue("prices", PRICES, key=key)
        there.recovers()
    return there.judge(
        Result("certificate expires, and is renewed late", "an expired certificate is refused, with that reason")
    )


def expired_file(folder: Path) -> Result:
    with rig(folder) as there:
        there.services.issue("prices", PRICES, end=datetime.timedelta(seconds=-60))
        there.daemon.wait_log("refused a file")
        there.load.wait_successes(50)
    return _none_failed(
        there.judge(Result("expired certificate put in place", "it is refused, the one before serves on"))
    )


def wrong_trust_domain(folder: Path) -> Result:
    with rig(folder) as there:
        _sees_server_update(there, lambda: there.services.issue("prices", "spiffe://other.test/prices"))
        wait_for("refusals", lambda: _reasons(there, "no trust bundle for spiffe://other.test/prices"))
        before = there.load.successes()
        time.sleep(0.5)
        assert there.load.successes() == before, "nobody is let in by a certificate of another trust domain"
        there.services.issue("prices", PRICES)
        there.recovers()
    return there.judge(Result("server with a certificate of another trust domain", "not one request gets through"))


def bundle_rotated(folder: Path) -> Result:
    new = Authority.make("new CA")
    with rig(folder) as there:
        services = there.services

        def trust_both() -> None:
            services.trust(services.authority, new)
            services.daemon.signal(signal.SIGHUP)

        def issue_both() -> None:
            services.issue("prices", PRICES, new)
            services.issue("cart", CART, new)

        def trust_new() -> None:
            services.trust(new)
            services.daemon.signal(signal.SIGHUP)

        for step in (trust_both, issue_both, trust_new):
            _sees_update(there, step)
            there.load.wait_successes()
    return _none_failed(
        there.judge(Result("CA replaced: trust, then certificates, then the old one gone", "no request fails"))
    )


def key_file_is_garbage(folder: Path) -> Result:
    with rig(folder) as there:
        (folder / "keys" / "prices" / "p256.key").write_bytes(b"garbage")
        there.daemon.wait_log("refused a file")
        there.load.wait_successes(50)
    return _none_failed(there.judge(Result("key file replaced by garbage", "it is refused, the key before serves on")))


def audit_disk_full(folder: Path) -> Result:
    with rig(folder, audit={"path": "/dev/full"}) as there:
        there.daemon.wait_log("the audit log cannot be written; signing goes on")
        there.load.wait_successes(50)
    return _none_failed(
        there.judge(Result("disk full for the audit log", "signing goes on; the loss is logged and counted"))
    )


def idle_connections(folder: Path) -> Result:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE_CONNECTIONS + 2000:
        raise RuntimeError(f"the hard limit of descriptors, {hard}, is too low for {IDLE_CONNECTIONS} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, IDLE_CONNECTIONS + 4000)), hard))
    idle: list[socket.socket] = []
    try:
        with rig(folder, data_plane={"max_connections": IDLE_CONNECTIONS + 100}) as there:
            for _ in range(IDLE_CONNECTIONS):
                one = socket.socket(socket.AF_UNIX)  # blocking: it waits where the listener's queue is full
                one.connect(str(there.daemon.socket))
                idle.append(one)
            there.load.wait_successes(50)
    finally:
        for one in idle:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    name = f"{IDLE_CONNECTIONS:,} idle connections at the daemon"
    return _none_failed(there.judge(Result(name, "everybody else is served")))


def flooding_sidecar(folder: Path) -> Result:
    """Another caller asks for as many RSA-2048 signatures as its connections may have in flight."""
    authority, key = Authority.make("flood CA"), make_key("rsa2048")
    folder.mkdir(exist_ok=True)
    certificate = authority.issue(key, "flood")
    with rig(folder) as there:
        write_pair(folder / "keys", "flood", key, certificate)
        there.daemon.wait_log("identity in force", 3)
        config = yaml.safe_load(there.daemon.config_file.read_text())
        config["identities"]["flood"] = {"selectors": [{"uid": os.getuid()}]}
        there.daemon.config_file.write_text(yaml.safe_dump(config))
        there.daemon.signal(signal.SIGHUP)
        there.daemon.wait_log("reloaded")
        flood = threading.Thread(target=_flood, args=(there, folder / "keys" / "flood.crt"))
        flood.start()
        before = there.load.successes()
        flood.join()
        assert there.load.successes() > before, "the quiet sidecar got its turns"
        there.recovers()
    return _none_failed(
        there.judge(Result("a flooding sidecar beside this one", "it gets its turns; nothing of it fails"))
    )


def _flood(there: Rig, certificate: Path) -> None:
    options: dict[str, Any] = {"connections": 8, "in_flight": 512, "batch": 64, "duration": FLOOD_SECONDS}
    tools.keyload(socket=there.daemon.socket, certificate=certificate, **options)


def envoy_ends_with_operations_in_flight(folder: Path) -> Result:
    with rig(folder) as there:
        process = there.server.running.process
        there.daemon.signal(signal.SIGSTOP)  # what is asked for now stays in flight
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGTERM)
        wait_for("the end of the server's Envoy", lambda: not process.running())
        there.daemon.signal(signal.SIGCONT)
        assert process.status == 0, f"Envoy ended with status {process.status}"
        there.processes.stop(process)
        there.processes.check()  # the other one is still there
    return there.judge(
        Result("Envoy ended (SIGTERM) with operations in flight", "it ends properly; the daemon drops them")
    )


def _reasons(there: Rig, text: str) -> bool:
    entries = there.client.access_log("prices")
    return any(text in (entry["upstream_failure"] or "").replace("_", " ") for entry in entries)


def _sees_server_update(there: Rig, change: Callable[[], object]) -> None:
    before = there.server.stats()["identity_updates"]
    change()
    wait_for("the news at the server", lambda: there.server.stats()["identity_updates"] > before)


SCENARIOS: Mapping[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        daemon_killed,
        daemon_stopped,
        socket_file_deleted,
        certificate_expires,
        expired_file,
        wrong_trust_domain,
        bundle_rotated,
        key_file_is_garbage,
        audit_disk_full,
        idle_connections,
        flooding_sidecar,
        envoy_ends_with_operations_in_flight,
    )
}
