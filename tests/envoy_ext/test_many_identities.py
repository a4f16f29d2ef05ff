"""Envoys of many identities on one connection to the daemon; identities that are too large; daemons of before."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from deploy.node.certificates import named, unsigned
from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from envoy_ext.settings import TlsSettings
from offload.v1 import private_key_pb2 as pb
from tests.envoy_ext import node
from tests.envoy_ext.facade import Change, facade
from tests.envoy_ext.node import ME, EnvoyNode, Material
from tests.envoy_ext.tls_clients import common_name
from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import pem, shared_key, write_pair

pytestmark = pytest.mark.envoy

STREAMS = 8
NAMES = tuple(f"workload-{number}" for number in range(60))
LOG_INFO = ("--component-log-level", "dynamic_modules:info")


def make_keys(folder: Path, material: Material, names: Sequence[str]) -> Path:
    key = shared_key("p256")
    for name in names:
        write_pair(folder / "keys" / name, "tls", key, material.authority.issue(key, name, (f"{name}.test",)))
    return folder / "keys"


def configure(daemon: DaemonProcess, keys: Path, names: Sequence[str], **sections: Any) -> None:
    daemon.configure(
        keys={"directory": str(keys), "debounce_ms": 10, "rescan_seconds": 1},
        identities={name: dict(ME) for name in names},
        **sections,
    )


def start(processes: Processes, folder: Path, material: Material, names: Sequence[str], path: Path) -> EnvoyNode:
    tls = TlsSettings(identities=tuple(names), daemon_socket=path, unknown_server_name="reject")
    config = render.bootstrap([node.http(folder, "https", tls, [render.direct_response("hello\n")])])
    return node.start_envoy(processes, "envoy", folder, material.ca, config, options=LOG_INFO)


def served(envoy: EnvoyNode, name: str) -> str:
    client = envoy.client("https", f"{name}.test")
    with client.connect() as connection:
        return common_name(connection)


def test_more_identities_than_the_connection_may_have_calls(
    material: Material, own_daemon: DaemonProcess, processes: Processes, tmp_path: Path
) -> None:
    keys = make_keys(tmp_path, material, NAMES)
    configure(own_daemon, keys, NAMES, data_plane={"max_streams_per_connection": STREAMS})
    own_daemon.start()
    envoy = start(processes, tmp_path, material, NAMES, own_daemon.socket)
    assert [served(envoy, name) for name in NAMES] == list(NAMES)
    assert envoy.stats()["connections"] == 1


def test_an_identity_that_is_too_large_is_refused_alone(
    material: Material, own_daemon: DaemonProcess, processes: Processes, tmp_path: Path
) -> None:
    """At the daemon, with its name; the version before it stays in force, and the other identity never notices."""
    names = NAMES[:2]
    keys = make_keys(tmp_path, material, names)
    large = [tmp_path / f"large-{number}.pem" for number in range(8)]
    for file in large:
        file.write_bytes(material.authority.pem)
    rules = {name: dict(ME) for name in names}
    bundles = [{"file": str(file), "trust_domain": f"{file.stem}.test"} for file in large]
    rules[names[0]]["trust_bundles"] = bundles
    own_daemon.configure(keys={"directory": str(keys), "debounce_ms": 10, "rescan_seconds": 1}, identities=rules)
    own_daemon.start()
    envoy = start(processes, tmp_path, material, names, own_daemon.socket)
    assert [served(envoy, name) for name in names] == list(names)
    for file in large:
        file.write_bytes(b"".join(padded_authorities(material)))
    entry = wait_for(
        "the refusal", lambda: next((e for e in own_daemon.log() if "the identity is too large" in str(e)), None)
    )
    assert entry is not None
    assert entry["identity"] == names[0]
    assert any(str(file) in str(entry) for file in large)
    assert [served(envoy, name) for name in names] == list(names)
    stats = envoy.stats()
    assert (stats["connections"], stats["identities_refused"]) == (1, 0)


def padded_authorities(material: Material) -> Iterator[bytes]:
    """CA certificates of 600 KB in all: each has a long extension that nobody knows."""
    for number in range(3):
        name, key = named(f"large {number}"), material.authority.key
        padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), bytes(200_000))
        builder = unsigned(name, name, key.public_key(), is_ca=True).add_extension(padding, critical=False)
        yield pem(builder.sign(key, hashes.SHA256()))


def test_a_daemon_without_the_shared_call(
    material: Material, own_daemon: DaemonProcess, processes: Processes, tmp_path: Path
) -> None:
    names = NAMES[:5]
    configure(own_daemon, make_keys(tmp_path, material, names), names)
    own_daemon.start()
    path = tmp_path / "before.sock"
    with facade(path, own_daemon.socket, ("Stream", "WatchIdentity")) as asked:
        envoy = start(processes, tmp_path, material, names, path)
        assert [served(envoy, name) for name in names] == list(names)
        assert asked.count("WatchIdentities") == 1
        assert asked.count("WatchIdentity") == len(names)
        processes.check()


def test_a_daemon_that_is_full_is_one_line_in_the_log(
    material: Material, own_daemon: DaemonProcess, processes: Processes, tmp_path: Path
) -> None:
    names = NAMES[:1]
    configure(own_daemon, make_keys(tmp_path, material, names), names, data_plane={"max_connections_per_user": 2})
    own_daemon.start()
    held = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for one in held:
        one.connect(str(own_daemon.socket))
    envoy = start(processes, tmp_path, material, names, own_daemon.socket)
    wait_for("twenty attempts", lambda: envoy.stats()["connection_failures"] >= 20)
    lines = [line for line in envoy.log().splitlines() if "the daemon at" in line]
    assert len(lines) == 1, lines
    reason = "the daemon refuses the connection: too many connections of this user"
    assert reason in lines[0]
    assert "max_connections_per_user: 2" in lines[0]
    assert not _works(envoy, names[0])
    assert envoy.wait_failure("https", reason)
    for one in held:
        one.close()
    wait_for("a handshake", lambda: _works(envoy, names[0]))
    log = [line for line in envoy.log().splitlines() if "connected to the daemon at" in line]
    assert len(log) == 1


def _works(envoy: EnvoyNode, name: str) -> bool:
    try:
        return served(envoy, name) == name
    except OSError:
        return False


def inflated(name: str) -> Change:
    """Makes the message of this identity larger than a client takes."""

    def change(method: str, message: bytes) -> bytes:
        bundle = pb.TrustBundle(authorities=[bytes(4 * 1024 * 1024 + 1)])
        if method == "WatchIdentities":
            news = pb.WatchIdentitiesResponse.FromString(message)
            news.identity.trust_bundles.extend([bundle] if news.name == name else [])
            return news.SerializeToString()
        if method == "WatchIdentity":
            identity = pb.Identity.FromString(message)
            identity.trust_bundles.extend([bundle] if identity.name == name else [])
            return identity.SerializeToString()
        return message

    return change


@pytest.mark.parametrize("watch", ["WatchIdentities", "WatchIdentity"])
def test_a_message_that_is_too_large_takes_no_connection_down(
    material: Material, own_daemon: DaemonProcess, processes: Processes, tmp_path: Path, watch: str
) -> None:
    """From a daemon that does not look at its size, in both calls that bring identities."""
    names = NAMES[:3]
    configure(own_daemon, make_keys(tmp_path, material, names), names)
    own_daemon.start()
    path = tmp_path / "large.sock"
    with facade(path, own_daemon.socket, ("Stream", watch), inflated(names[1])):
        envoy = start(processes, tmp_path, material, names, path)
        assert served(envoy, names[0]) == names[0]
        assert served(envoy, names[2]) == names[2]
        assert not _works(envoy, names[1])
        assert "is larger than the" in envoy.wait_failure("https", f"daemon refused identity '{names[1]}'")
        assert envoy.stats()["connections"] == 1
        assert served(envoy, names[0]) == names[0]
        processes.check()
