"""One fault each, in a running mesh. A scenario breaks something, checks what must hold meanwhile, and mends it."""

from __future__ import annotations

import datetime
import os
import resource
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.load import tools
from deploy.node.waiting import wait_for
from offload.interfaces.metrics import FRESH_SECONDS
from tests.conftest import cpu_has_ifma
from tests.envoy_ext.mesh import CART, PRICES
from tests.faults import (
    clock_scenarios,
    document_scenarios,
    front_scenarios,
    mesh_scenarios,
    switch_scenarios,
    upgrade_scenarios,
)
from tests.faults.rig import Result, Rig, Scenario, none_failed, restart, rig, saw_reason, sees_update
from tests.offload.key_files import NOW, Authority, make_key, write_pair

IDLE_CONNECTIONS = 10_000
FLOOD_SECONDS = 3
WRONG_EVERY = 10  # lanes


def daemon_killed(folder: Path) -> Result:
    with rig(folder) as there:
        there.daemon.signal(signal.SIGKILL)
        there.daemon.wait()
        time.sleep(1)
        restart(there)
        there.recovers()
    return there.judge(Result("daemon killed, started again after 1 s", "Envoys stay up and reconnect by themselves"))


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
        there.daemon.wait_log("recreated a socket whose file had been removed")
        there.load.wait_successes(50)
    return none_failed(
        there.judge(Result("socket file deleted", "existing connections continue; the daemon creates it again"))
    )


def certificate_expires(folder: Path) -> Result:
    """The server's certificate ends in the middle, and nobody renews it for a while."""
    with rig(folder, lambda s: s.client_tls(session_tickets=False, clock_skew_s=0)) as there:
        key = make_key("p256")
        lasts = datetime.datetime.now(datetime.UTC) - NOW + datetime.timedelta(seconds=3)
        sees_update((there.server,), lambda: there.services.issue("prices", PRICES, key=key, end=lasts))
        wait_for("the end of the certificate", lambda: saw_reason(there, "certificate has expired"))
        refused = there.client.stats()["upstream_peers_rejected"]
        assert refused > 0
        there.services.issue("prices", PRICES, key=key)
        there.recovers()
    return there.judge(
        Result("certificate expires, and is renewed late", "an expired certificate is rejected, with that reason")
    )


def expired_file(folder: Path) -> Result:
    with rig(folder) as there:
        there.services.issue("prices", PRICES, end=datetime.timedelta(seconds=-60))
        there.daemon.wait_log("key file rejected")
        there.load.wait_successes(50)
    return none_failed(
        there.judge(Result("expired certificate put in place", "it is rejected; the previous one stays in force"))
    )


def wrong_trust_domain(folder: Path) -> Result:
    with rig(folder) as there:
        sees_update((there.server,), lambda: there.services.issue("prices", "spiffe://other.test/prices"))
        wait_for("refusals", lambda: saw_reason(there, "no trust bundle for spiffe://other.test/prices"))
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
            sees_update((there.client, there.server), step)
            there.load.wait_successes()
    return none_failed(
        there.judge(Result("CA replaced: new CA trusted, certificates replaced, old CA removed", "no request fails"))
    )


def key_file_is_garbage(folder: Path) -> Result:
    with rig(folder) as there:
        (folder / "keys" / "prices" / "p256.key").write_bytes(b"garbage")
        there.daemon.wait_log("key file rejected")
        there.load.wait_successes(50)
    return none_failed(
        there.judge(Result("key file replaced by garbage", "it is rejected; the previous key stays in force"))
    )


def audit_disk_full(folder: Path) -> Result:
    with rig(folder, audit={"path": "/dev/full"}) as there:
        there.daemon.wait_log("cannot write the audit log; signing continues")
        there.load.wait_successes(50)
    return none_failed(
        there.judge(Result("disk full for the audit log", "signing continues; the loss is logged and counted"))
    )


def idle_connections(folder: Path) -> Result:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE_CONNECTIONS + 2000:
        raise RuntimeError(f"the hard limit of descriptors, {hard}, is too low for {IDLE_CONNECTIONS} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, IDLE_CONNECTIONS + 4000)), hard))
    idle: list[socket.socket] = []
    try:
        room = IDLE_CONNECTIONS + 100
        bounds = {"max_connections": room, "max_connections_per_user": room, "max_connections_without_identity": room}
        with rig(folder, data_plane=bounds | {"user_memory_mib": 256}) as there:
            for _ in range(IDLE_CONNECTIONS):
                one = socket.socket(socket.AF_UNIX)  # blocking: it waits where the listener's queue is full
                one.connect(str(there.daemon.socket))
                idle.append(one)
            there.load.wait_successes(50)
            for one in idle:
                one.close()
            there.recovers()
    finally:
        for one in idle:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    name = f"{IDLE_CONNECTIONS:,} idle connections at the daemon"
    return none_failed(there.judge(Result(name, "all other callers are served")))


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
    return none_failed(
        there.judge(Result("another sidecar floods the daemon", "this one gets its turns; none of its requests fails"))
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
        Result("Envoy terminated (SIGTERM) with operations in flight", "it exits cleanly; the daemon drops them")
    )


def wrong_lanes(folder: Path) -> Result:
    """Every tenth lane of P-256 has a bit of its `s` flipped; of the portable build where there is no IFMA."""
    of_daemon = {
        "TESTING_FAULTS": f"p256,ecdsa_s,17,{WRONG_EVERY}",
        "OFFLOAD_KERNEL_BACKEND": "ifma8" if cpu_has_ifma() else "ifma8-portable",
    }
    with rig(folder, daemon_module="tests.faults.faulty_daemon", of_daemon=of_daemon) as there:
        before = _corrected_lanes(there)
        there.load.wait_successes(50)
        time.sleep(2 * FRESH_SECONDS)  # until then a scrape may get what the one before got
        assert _corrected_lanes(there) >= before + 2 * 50 // WRONG_EVERY, "two signatures a request"
    return none_failed(
        there.judge(Result("every tenth lane gives a wrong result", "none is released: software computes it again"))
    )


def _corrected_lanes(there: Rig) -> int:
    with urllib.request.urlopen(f"http://{there.daemon.metrics_address()}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    prefix = 'offload_lane_faults_total{algorithm="p256"} '
    return int(float(next(line for line in lines if line.startswith(prefix)).removeprefix(prefix)))


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
        wrong_lanes,
        *upgrade_scenarios.ALL,
        *clock_scenarios.ALL,
        *mesh_scenarios.ALL,
        *document_scenarios.ALL,
        *switch_scenarios.ALL,
        *front_scenarios.ALL,
    )
}
