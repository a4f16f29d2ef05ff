"""What was done for each identity, on which backend and for whom: counted natively, summed by the daemon, shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.node.waiting import wait_for
from offload.identities.uses import CALLERS_MAX, IdentityUses
from tests.offload.conftest import ME
from tests.offload.daemon_process import CERTIFICATE_VERIFY, DaemonProcess, command, environment, sign_request
from tests.offload.interfaces.test_metrics import scrape, total
from tests.offload.key_files import Authority, key_id, shared_key, write_pair


def use(identity: int, count: int, uid: int = 1, status: str = "OK") -> Any:
    return {
        "count": count, "pid": 1, "uid": uid, "gid": 1, "scheme": 0x0403, "status": status, "decrypt": False,
        "backend": 0, "identity": identity, "key_id": bytes(32), "listener": "main", "executable": "/envoy",
    }  # fmt: skip


def test_totals_are_bounded_and_forgotten_with_their_identity() -> None:
    uses = IdentityUses()
    names = {1: "www", 2: "cart"}
    uses.add([use(1, 5), use(1, 2, status="INTERNAL"), use(2, 1), use(9, 1)], 3, names, ["software"], 10.0)
    uses.add([use(1, 1, uid) for uid in range(100)], 0, names, ["software"], 11.0)
    www = uses.current()["www"]
    assert www.operations == {("OK", "software"): 105, ("INTERNAL", "software"): 2}
    assert len(www.callers) == CALLERS_MAX
    assert (www.callers[0].uid, www.callers[0].count, www.callers[0].last) == (1, 8, 11.0)
    assert www.others + sum(caller.count for caller in www.callers) == 107
    assert uses.unlisted == 3
    uses.keep(["cart"])
    assert uses.current().keys() == {"cart"}


def _sign(daemon: DaemonProcess, algorithm: str, scheme: int, count: int) -> None:
    with daemon.client() as stub:
        for _ in range(count):
            stub.Sign(sign_request(key_id(shared_key(algorithm)), scheme, CERTIFICATE_VERIFY), timeout=10)


def _count(daemon: DaemonProcess, identity: str) -> float:
    return total(scrape(daemon), "offload_identity_operations_total", identity=identity, status="OK")


@pytest.mark.slow(seconds=4)
def test_counts_go_on_over_changes_of_the_keyring(daemon: DaemonProcess, keys: Path, authority: Authority) -> None:
    daemon.start()
    _sign(daemon, "p256", 0x0403, 5)
    _sign(daemon, "rsa2048", 0x0804, 3)
    wait_for("the counts", lambda: (_count(daemon, "www"), _count(daemon, "rsa")) == (5, 3), 20)
    before = daemon.identity("www").version
    write_pair(keys, "www", shared_key("p256"), authority.issue(shared_key("p256"), "www"))
    write_pair(keys, "new", shared_key("p384"), authority.issue(shared_key("p384"), "new"))
    wait_for("the new certificate", lambda: daemon.identity("www").version != before, 30)
    _sign(daemon, "p256", 0x0403, 2)
    wait_for("the counts", lambda: (_count(daemon, "www"), _count(daemon, "rsa")) == (7, 3), 20)


def _json(daemon: DaemonProcess, *words: str) -> Any:
    line = [*command(*words), "--admin-socket", str(daemon.admin_socket)]
    done = subprocess.run(line, env=environment(COLUMNS="200"), capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout) if "json" in words else done.stdout


@pytest.mark.slow(seconds=6)
def test_people_see_the_backend_and_the_callers(daemon: DaemonProcess) -> None:
    daemon.configure(identities={"www": ME, "rsa": ME | {"usage": "any"}}, data_plane={"backend": "software"})
    daemon.start()
    _sign(daemon, "p256", 0x0403, 4)
    wait_for("the counts", lambda: _count(daemon, "www") == 4, 20)
    shown = {one["name"]: one["use"] for one in _json(daemon, "keys", "list", "-o", "json")["identities"]}
    assert shown["www"]["operations"] == [{"status": "OK", "backend": "software", "count": 4}]
    (caller,) = shown["www"]["callers"]
    assert (caller["uid"], caller["count"]) == (os.getuid(), 4)
    assert caller["executable"] in ("", os.path.realpath(sys.executable))
    assert shown["rsa"]["operations"] == []
    table = _json(daemon, "keys", "list")
    assert "4 on software" in table
    assert "not yet" in table
    (status,) = _json(daemon, "status", "-o", "json")["identities"]
    assert status["identity"] == "www"
    assert f"4 for uid {os.getuid()}" in _json(daemon, "status")
