"""A certificate that changes at the daemon: new connections get it, without a listener update and without a failure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from envoy_ext.settings import TlsSettings
from tests.envoy_ext import node
from tests.envoy_ext.node import TLS13, EnvoyNode, Material
from tests.envoy_ext.tls_clients import leaf_of
from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import PrivateKey, make_key, write_pair

pytestmark = pytest.mark.envoy


@dataclass(frozen=True)
class Rotating:
    envoy: EnvoyNode
    daemon: DaemonProcess
    material: Material
    keys: Path

    def serial(self) -> int:
        client = self.envoy.client("https")
        with client.connect() as connection:
            assert b" 200 " in client.get(connection)
            return leaf_of(connection).serial_number

    def shows(self, serial: int) -> bool:
        """For waiting while a key is replaced: a handshake that began with the old one may be refused then."""
        try:
            return self.serial() == serial
        except OSError:
            return False

    def rotate(self, key: PrivateKey | None = None) -> int:
        """A new certificate for this P-256 key, or for a new one; gives its serial number."""
        key = key or make_key("p256")
        certificate = self.material.authority.issue(key, "web", ("web.test",))
        write_pair(self.keys / "web", "p256", key, certificate)
        return certificate.serial_number


@pytest.fixture
def rotating(material: Material, processes: Processes, tmp_path: Path) -> Iterator[Rotating]:
    keys = tmp_path / "keys"
    shutil.copytree(material.ca.parent / "keys", keys)
    daemon = node.make_daemon(tmp_path, material, keys={"directory": str(keys), "debounce_ms": 50})
    daemon.start()
    tls = TlsSettings(identities=("web",), daemon_socket=daemon.socket)
    config = render.bootstrap([node.http(tmp_path, "https", tls, [render.direct_response("ok\n")])])
    envoy = node.start_envoy(processes, "envoy", tmp_path, material.ca, config)
    yield Rotating(envoy, daemon, material, keys)
    processes.check()
    daemon.stop()


def test_new_connections_get_the_new_certificate(rotating: Rotating) -> None:
    client = rotating.envoy.client("https")
    before = rotating.serial()
    context = client.context(TLS13)
    lasting = client.connect(context)
    client.get(lasting)
    session = lasting.session
    after = rotating.rotate()
    assert after != before
    wait_for("the new certificate", lambda: rotating.shows(after))
    assert b" 200 " in client.get(lasting), "the old connection lives on"
    lasting.close()
    with client.connect(context, session) as resumed:
        client.get(resumed)
        assert resumed.session_reused, "tickets outlive a rotation of the same identity"
    assert rotating.envoy.stats()["identity_updates"] >= 2


@pytest.mark.parametrize("new_key", [False, True], ids=["the key stays", "a new key"])
def test_no_handshake_fails_when_a_certificate_is_renewed(rotating: Rotating, new_key: bool) -> None:
    """A key that was superseded goes on for a while, for the handshakes that began with it."""
    client = rotating.envoy.client("https")
    key = make_key("p256")
    serial = rotating.rotate(key)
    wait_for("the new key", lambda: rotating.shows(serial))
    for _ in range(3):
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(client.load, count=600, concurrency=20, get="/")
            serial = rotating.rotate(None if new_key else key)
            report = load.result()
        assert report["failures"] == 0, report["failures_by_reason"]
        wait_for("the new certificate", lambda serial=serial: rotating.serial() == serial)
