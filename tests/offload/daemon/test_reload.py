"""What changes while the daemon serves: key files, certificates, configuration."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import (
    DaemonProcess,
    sign_request,
    status_of,
)
from tests.offload.key_files import Authority, key_id, key_pem, pem, shared_key, write_pair

WWW = key_id(shared_key("p256"))
RSA = key_id(shared_key("rsa2048"))


@pytest.mark.slow(seconds=2)
def test_reload_under_load_drops_nothing(daemon: DaemonProcess, keys: Path, authority: Authority) -> None:
    """Both identities get new certificates for their keys, over and over, while clients sign without a pause."""
    daemon.start()
    stop = threading.Event()
    failures: list[str] = []
    counts: list[int] = []

    def sign(key_id: bytes, scheme: int) -> None:
        done = 0
        with daemon.client() as stub:
            while not stop.is_set():
                code = status_of(lambda: stub.Sign(sign_request(key_id, scheme), timeout=20))
                if code is not grpc.StatusCode.OK:
                    failures.append(code.name)
                done += 1
        counts.append(done)

    threads = [threading.Thread(target=sign, args=a) for a in [(WWW, 0x0403), (RSA, 0x0804)] * 2]
    for thread in threads:
        thread.start()
    versions = set()
    for _ in range(5):
        versions.add(daemon.identity("www").version)
        for name, algorithm in (("www", "p256"), ("rsa", "rsa2048")):
            key = shared_key(algorithm)
            new = keys / f"{name}.tmp"
            new.write_bytes(pem(authority.issue(key, name)))
            new.rename(keys / f"{name}.crt")
        wait_for("the new version", lambda: daemon.identity("www").version not in versions, 20)
        daemon.signal(signal.SIGHUP)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(counts) == 4
    assert min(counts) > 0
    assert len([e for e in daemon.events("identity changed") if e["identity"] == "www"]) >= 5


@pytest.mark.slow(seconds=2)
def test_watchers_of_an_identity_get_each_new_version_and_nothing_else(
    daemon: DaemonProcess, keys: Path, authority: Authority
) -> None:
    daemon.start()
    with daemon.client() as stub:
        watch = stub.WatchIdentity(private_key_pb2.WatchIdentityRequest(identity="www"), timeout=60)
        versions = [next(watch).version]
        for _ in range(2):
            daemon.signal(signal.SIGHUP)  # nothing changed: nothing is sent
            (keys / "new").write_bytes(pem(authority.issue(shared_key("p256"))))
            (keys / "new").rename(keys / "www.crt")
            versions.append(next(watch).version)
        assert len(set(versions)) == 3
        daemon.configure(identities={"www": {"selectors": [{"uid": 4_000_000}]}})
        daemon.signal(signal.SIGHUP)
        assert status_of(lambda: next(watch)) is grpc.StatusCode.NOT_FOUND, "rights that are gone end the call"


def _watch_only(daemon: DaemonProcess, rescan_seconds: int = 86_400) -> None:
    """What is seen now is seen by inotify."""
    folder = str(daemon.folder / "keys")
    daemon.configure(keys={"directory": folder, "rescan_seconds": rescan_seconds}, identities={"www": ME})


@pytest.mark.slow(seconds=2)
def test_a_renamed_file_is_seen_at_once(daemon: DaemonProcess, keys: Path, authority: Authority) -> None:
    _watch_only(daemon)
    daemon.start()
    before = daemon.identity("www").version
    (keys / "new").write_bytes(pem(authority.issue(shared_key("p256"))))
    (keys / "new").rename(keys / "www.crt")
    wait_for("the new certificate", lambda: daemon.identity("www").version != before, 30)


@pytest.mark.slow(seconds=2)
def test_an_updated_kubernetes_secret_is_seen_at_once(daemon: DaemonProcess, keys: Path, authority: Authority) -> None:
    for file in list(keys.iterdir()):
        file.unlink()
    volume = keys / "www"
    for version, number in (("..1", 0), ("..2", 1)):
        key = shared_key("p256", number)
        write_pair(volume / version, "tls", key, authority.issue(key))
    (volume / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (volume / name).symlink_to(f"..data/{name}")
    _watch_only(daemon)
    daemon.start()
    assert daemon.identity("www").credentials[0].key_id == key_id(shared_key("p256", 0))
    (volume / "..data_tmp").symlink_to("..2")
    (volume / "..data_tmp").rename(volume / "..data")
    new = key_id(shared_key("p256", 1))
    wait_for("the new key", lambda: daemon.identity("www").credentials[0].key_id == new, 30)
    assert daemon.events("key file rejected") == []


@pytest.mark.slow(seconds=2)
def test_a_keys_directory_that_goes_and_comes_back(daemon: DaemonProcess, keys: Path, authority: Authority) -> None:
    _watch_only(daemon, rescan_seconds=1)
    daemon.start()
    before = daemon.identity("www").version
    keys.rename(keys.with_name("away"))
    refused = daemon.wait_log("key file rejected")
    assert (refused["reason"], refused["previous_stays_in_force"]) == (
        "cannot be listed: No such file or directory",
        True,
    )
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
    write_pair(keys, "www", shared_key("p256"), authority.issue(shared_key("p256")))
    wait_for("what is in the new directory", lambda: daemon.identity("www").version != before, 30)


@pytest.mark.slow(seconds=2)
def test_a_broken_replacement_is_refused_and_the_old_key_signs_on(daemon: DaemonProcess, keys: Path) -> None:
    daemon.start()
    (keys / "www.key").write_text("garbage")
    daemon.wait_log("key file rejected", 2)
    refused = {Path(e["file"]).name: e for e in daemon.events("key file rejected")}
    assert refused["www.key"]["reason"] == "holds neither a certificate nor a private key in PEM form"
    assert refused["www.crt"]["reason"].startswith("no private key in its folder")
    assert all(e["previous_stays_in_force"] for e in refused.values())
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
    (keys / "www.key").write_bytes(key_pem(shared_key("p256")))
    daemon.wait_log("key file no longer rejected")


@pytest.mark.slow(seconds=2)
def test_sighup_takes_over_what_can_change(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.start()
    cart = tmp_path / "cart.sock"
    sockets = {"main": {"path": str(daemon.socket)}, "dedicated": [{"name": "cart", "path": str(cart)}]}
    daemon.configure(
        sockets=sockets,
        identities={"www": {"selectors": [{"socket": "cart"}]}},
        logging={"level": "debug", "format": "json"},
        data_plane={"shards": 3},
    )
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reloaded")
    assert daemon.events("these settings changed and take effect at the next start")[0]["settings"] == [
        "data_plane.shards"
    ]
    request = sign_request(WWW, 0x0403)
    with daemon.client() as main, daemon.client(cart) as dedicated:
        assert status_of(lambda: main.Sign(request, timeout=10)) is grpc.StatusCode.NOT_FOUND
        assert status_of(lambda: dedicated.Sign(request, timeout=10)) is grpc.StatusCode.OK
    daemon.configure(identities={"www": ME})
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reloaded", 2)
    assert not cart.exists()


@pytest.mark.slow(seconds=2)
def test_a_bad_configuration_at_reload_changes_nothing(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.config_file.write_text("identities: {www: {usage: everything}}")
    daemon.signal(signal.SIGHUP)
    refused = daemon.wait_log("the new configuration is rejected; the running one stays in force")
    assert f"{daemon.config_file}:1: identities.www.usage: must be" in refused["reason"]
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature


@pytest.mark.slow(seconds=3)
def test_without_watching_the_directory_is_still_looked_at(
    daemon: DaemonProcess, keys: Path, authority: Authority
) -> None:
    folder = str(daemon.folder / "keys")
    daemon.configure(keys={"directory": folder, "watch": False, "rescan_seconds": 1}, identities={"www": ME})
    daemon.start()
    before = daemon.identity("www").version
    (keys / "new").write_bytes(pem(authority.issue(shared_key("p256"))))
    (keys / "new").rename(keys / "www.crt")
    wait_for("the new certificate", lambda: daemon.identity("www").version != before, 30)
    assert daemon.stop() == 0
