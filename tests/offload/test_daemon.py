"""The daemon's life with real processes: start, reload, drain, stop, and what it must never show."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from offload import exit_codes
from offload.daemon import backend_reason
from offload.v1 import admin_pb2, private_key_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import (
    CERTIFICATE_VERIFY,
    DaemonProcess,
    command,
    environment,
    sign_request,
    status_of,
    wait_for,
)
from tests.offload.key_files import Authority, key_id, key_pem, pem, shared_key, write_pair

WWW = key_id(shared_key("p256"))
RSA = key_id(shared_key("rsa2048"))

# ---- start ----


def test_it_says_what_it_serves_with(running: DaemonProcess) -> None:
    (backend,) = running.events("backend")
    assert backend["backend"] in ("software", "ifma8")
    assert "AVX-512 IFMA" in backend["reason"]
    assert backend["secret_memory"]["kind"] in ("memfd_secret", "mlock")
    assert {e["identity"] for e in running.events("identity in force")} == {"www", "rsa"}


def test_the_backend_can_be_chosen(daemon: DaemonProcess) -> None:
    daemon.configure(identities={"www": ME}, data_plane={"backend": "software", "shards": 1})
    daemon.start()
    (backend,) = daemon.events("backend")
    assert (backend["backend"], backend["reason"]) == ("software", "data_plane.backend is 'software'")
    assert set(backend["vector_from_batch_size"].values()) == {"never"}
    with daemon.client() as stub:
        answer = stub.Sign(sign_request(WWW, 0x0403), timeout=10)
    assert answer.backend == private_key_pb2.BACKEND_SOFTWARE


@pytest.mark.parametrize(
    ("setting", "backend", "reason"),
    [
        ("auto", "ifma8", "the CPU has AVX-512 IFMA"),
        ("auto", "software", "the CPU has no AVX-512 IFMA"),
        ("ifma8", "ifma8", "data_plane.backend is 'ifma8'"),
    ],
)
def test_why_this_backend(setting: str, backend: str, reason: str) -> None:
    assert backend_reason(setting, backend) == reason


def test_sockets_have_their_modes(daemon: DaemonProcess) -> None:
    daemon.configure(
        sockets={"main": {"path": str(daemon.socket), "mode": "0622", "group": os.getgid()}}, identities={"www": ME}
    )
    daemon.start()
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o622
    assert stat.S_IMODE(daemon.admin_socket.stat().st_mode) == 0o600
    assert daemon.stop() == exit_codes.OK
    assert not daemon.socket.exists()
    assert not daemon.admin_socket.exists()


def test_the_socket_of_a_dead_daemon_is_replaced(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    assert daemon.socket.exists()
    daemon.log_file.unlink()
    daemon.start()
    assert daemon.identity("www").name == "www"


def test_a_second_daemon_does_not_take_the_socket_away(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.start()
    second = DaemonProcess(tmp_path / "second")
    second.folder.mkdir()
    second.socket = daemon.socket
    second.configure(keys={"directory": str(tmp_path / "keys")})
    second.start(wait=False)
    assert second.wait(60) == exit_codes.CONFIGURATION
    reason = second.events("cannot start")[0]["reason"]
    assert reason == f"another process answers on {daemon.socket}: is a daemon running already?"
    assert daemon.identity("www").name == "www"


@pytest.mark.parametrize("which", ["main", "admin"])
def test_what_is_not_a_socket_is_left_alone(daemon: DaemonProcess, which: str) -> None:
    path = daemon.socket if which == "main" else daemon.admin_socket
    path.write_text("precious")
    daemon.start(wait=False)
    assert daemon.wait(60) == exit_codes.CONFIGURATION
    assert f"{path} exists and is not a socket" in daemon.events("cannot start")[0]["reason"]
    assert path.read_text() == "precious"


def test_no_folder_for_the_socket(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.configure(sockets={"main": {"path": str(tmp_path / "none" / "x.sock")}})
    daemon.start(wait=False)
    assert daemon.wait(60) == exit_codes.CONFIGURATION
    assert "make its folder" in daemon.events("cannot start")[0]["reason"]


def test_a_taken_metrics_port(daemon: DaemonProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon.configure(metrics={"address": f"127.0.0.1:{taken.getsockname()[1]}"})
        daemon.start(wait=False)
        assert daemon.wait(60) == exit_codes.CONFIGURATION
    assert "Address already in use" in daemon.events("cannot start")[0]["reason"]
    assert not daemon.socket.exists(), "what was made is removed"


def test_it_starts_without_any_key_and_serves_when_one_comes(
    daemon: DaemonProcess, keys: Path, authority: Authority
) -> None:
    for file in list(keys.iterdir()):
        file.unlink()
    daemon.start()
    assert daemon.events("no identity is in force; waiting for key pairs")
    key = shared_key("p384")
    write_pair(keys, "www", key, authority.issue(key))
    daemon.wait_log("identity in force")
    assert daemon.identity("www").credentials[0].key_id == key_id(key)


# ---- who may ----


def test_deny_by_default_and_the_refusal_is_logged(daemon: DaemonProcess) -> None:
    daemon.configure(identities={"www": ME, "rsa": {"selectors": [{"uid": 4_000_000}]}})
    daemon.start()
    with daemon.client() as stub:
        assert status_of(lambda: stub.Sign(sign_request(WWW, 0x0403), timeout=10)) is grpc.StatusCode.OK
        assert status_of(lambda: stub.Sign(sign_request(RSA, 0x0804), timeout=10)) is grpc.StatusCode.NOT_FOUND
        assert (
            status_of(lambda: stub.Sign(sign_request(WWW, 0x0403, b"a JWT"), timeout=10))
            is grpc.StatusCode.PERMISSION_DENIED
        )
    wait_for("both refusals", lambda: len(daemon.events("refused a caller")) == 2)
    refusals = {tuple(e["identities"]): e for e in daemon.events("refused a caller")}
    assert set(refusals) == {("rsa",), ("www",)}
    assert refusals[("rsa",)]["uid"] == os.getuid()
    assert refusals[("rsa",)]["pid"] == os.getpid()
    assert refusals[("rsa",)]["key_id"] == RSA.hex()
    assert refusals[("rsa",)]["socket"] == "main"


def test_a_dedicated_socket_is_the_permission(daemon: DaemonProcess, tmp_path: Path) -> None:
    cart = tmp_path / "cart.sock"
    sockets = {"main": {"path": str(daemon.socket)}, "dedicated": [{"name": "cart", "path": str(cart)}]}
    daemon.configure(sockets=sockets, identities={"www": {"selectors": [{"socket": "cart"}]}})
    daemon.start()
    request = sign_request(WWW, 0x0403)
    with daemon.client() as main, daemon.client(cart) as dedicated:
        assert status_of(lambda: main.Sign(request, timeout=10)) is grpc.StatusCode.NOT_FOUND
        assert status_of(lambda: dedicated.Sign(request, timeout=10)) is grpc.StatusCode.OK
    assert stat.S_IMODE(cart.stat().st_mode) == 0o600


NOBODY = 65534
BECOME_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@pytest.fixture
def nobodys(authority: Authority) -> Iterator[DaemonProcess]:
    """A daemon in a folder of another user, outside pytest's own, which is closed to others."""
    with tempfile.TemporaryDirectory(prefix="offload-test-") as name:
        folder = Path(name)
        for identity, algorithm in (("www", "p256"), ("rsa", "rsa2048")):
            key = shared_key(algorithm)
            write_pair(folder / "keys", identity, key, authority.issue(key, identity))
        for path in (folder, folder / "keys", *(folder / "keys").iterdir()):
            os.chown(path, NOBODY, NOBODY)
        folder.chmod(0o755)
        made = DaemonProcess(folder)
        yield made
        made.stop()


@pytest.mark.root
def test_as_a_user_of_its_own(nobodys: DaemonProcess) -> None:
    """As the unit runs it: another user without capabilities, whose callers are other users still."""
    tried = subprocess.run([*BECOME_NOBODY, *command("--version")], env=environment(), timeout=60, check=False)
    if tried.returncode != 0:
        pytest.skip("this Python is closed to other users")
    nobodys.configure(
        sockets={"main": {"path": str(nobodys.socket), "mode": "0666"}},
        identities={
            "www": {"selectors": [{"uid": 0, "cgroup": "/"}]},
            "rsa": {"selectors": [{"executable": "/bin/sh"}]},
        },
    )
    nobodys.start(prefix=BECOME_NOBODY)
    with nobodys.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
        assert status_of(lambda: stub.Sign(sign_request(RSA, 0x0804), timeout=10)) is grpc.StatusCode.NOT_FOUND
    (warning,) = [e for e in nobodys.log() if "CAP_SYS_PTRACE" in e["event"]]
    assert warning["identities"] == ["rsa"]
    assert nobodys.stop() == exit_codes.OK


@pytest.mark.root
def test_keys_do_not_go_into_memory_that_can_be_swapped(nobodys: DaemonProcess) -> None:
    no_locked_memory = ("prlimit", "--memlock=0:0", *BECOME_NOBODY)
    if subprocess.run(
        [*no_locked_memory, *command("--version")], env=environment(), timeout=60, check=False
    ).returncode:
        pytest.skip("this Python is closed to other users")
    nobodys.configure(identities={"www": ME})
    nobodys.start(wait=False, prefix=no_locked_memory)
    assert nobodys.wait(60) == exit_codes.CONFIGURATION
    reason = nobodys.events("cannot start")[0]["reason"]
    assert "the limit of locked memory is 0 bytes" in reason
    assert "LimitMEMLOCK=" in reason
    assert not nobodys.socket.exists()
    nobodys.configure(identities={"www": ME}, security={"allow_unlocked_memory": True})
    nobodys.start(prefix=no_locked_memory)
    assert nobodys.events("keys are in unlocked memory, as security.allow_unlocked_memory says")
    with nobodys.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature


# ---- reload ----


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


def test_a_renamed_file_is_seen_at_once(daemon: DaemonProcess, keys: Path, authority: Authority) -> None:
    _watch_only(daemon)
    daemon.start()
    before = daemon.identity("www").version
    (keys / "new").write_bytes(pem(authority.issue(shared_key("p256"))))
    (keys / "new").rename(keys / "www.crt")
    wait_for("the new certificate", lambda: daemon.identity("www").version != before, 30)


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
    assert daemon.events("refused a file") == []


def test_a_keys_directory_that_goes_and_comes_back(daemon: DaemonProcess, keys: Path, authority: Authority) -> None:
    _watch_only(daemon, rescan_seconds=1)
    daemon.start()
    before = daemon.identity("www").version
    keys.rename(keys.with_name("away"))
    refused = daemon.wait_log("refused a file")
    assert (refused["reason"], refused["previous_stays_in_force"]) == (
        "cannot be listed: No such file or directory",
        True,
    )
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
    write_pair(keys, "www", shared_key("p256"), authority.issue(shared_key("p256")))
    wait_for("what is in the new directory", lambda: daemon.identity("www").version != before, 30)


def test_a_broken_replacement_is_refused_and_the_old_key_signs_on(daemon: DaemonProcess, keys: Path) -> None:
    daemon.start()
    (keys / "www.key").write_text("garbage")
    daemon.wait_log("refused a file", 2)
    refused = {Path(e["file"]).name: e for e in daemon.events("refused a file")}
    assert refused["www.key"]["reason"] == "holds neither a certificate nor a private key in PEM form"
    assert refused["www.crt"]["reason"].startswith("no private key beside it")
    assert all(e["previous_stays_in_force"] for e in refused.values())
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
    (keys / "www.key").write_bytes(key_pem(shared_key("p256")))
    daemon.wait_log("a file refused before is no longer a problem")


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


def test_a_bad_configuration_at_reload_changes_nothing(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.config_file.write_text("identities: {www: {usage: everything}}")
    daemon.signal(signal.SIGHUP)
    refused = daemon.wait_log("the new configuration is refused; the running one stays in force")
    assert f"{daemon.config_file}:1: identities.www.usage: must be" in refused["reason"]
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature


# ---- end ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_operations_in_flight_are_answered(daemon: DaemonProcess, number: signal.Signals) -> None:
    daemon.start()
    with daemon.client() as stub:
        stub.Sign(sign_request(RSA, 0x0804), timeout=10)  # connected
        futures = [stub.Sign.future(sign_request(RSA, 0x0804), timeout=20) for _ in range(300)]
        wait_for("some to be answered", lambda: any(f.done() for f in futures))
        daemon.signal(number)
        codes = [f.code() for f in futures]
    assert daemon.wait() == exit_codes.OK
    assert daemon.events("draining")[0]["why"] == number.name
    assert daemon.events("drained")
    # Those that had not reached the daemon when it closed the connection are told to come again.
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert codes.count(grpc.StatusCode.OK) > 0


def _hold_open(daemon: DaemonProcess) -> socket.socket:
    """A client that says it speaks HTTP/2 and then never reads or writes: it holds the drain up."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(daemon.socket))
    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
    return client


def test_a_second_signal_stops_at_once(daemon: DaemonProcess) -> None:
    daemon.configure(shutdown={"drain_timeout_seconds": 3000}, identities={"www": ME})
    daemon.start()
    with _hold_open(daemon):
        with daemon.admin() as admin:
            wait_for("it", lambda: admin.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=10).connections == 1)
        daemon.signal(signal.SIGTERM)
        daemon.wait_log("draining")
        time.sleep(0.3)
        assert daemon.process is not None
        assert daemon.process.poll() is None, "it waits for the client"
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == exit_codes.STOPPED_EARLY
    assert daemon.events("stopped at once")


def test_the_drain_timeout(daemon: DaemonProcess) -> None:
    daemon.configure(shutdown={"drain_timeout_seconds": 0.3}, identities={"www": ME})
    daemon.start()
    with _hold_open(daemon):
        with daemon.admin() as admin:
            wait_for("it", lambda: admin.GetStatistics(admin_pb2.GetStatisticsRequest(), timeout=10).connections == 1)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == exit_codes.STOPPED_EARLY
    assert daemon.events("the drain timeout passed with clients connected")


# ---- what must not be seen ----


def _secrets(*private_keys: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> list[bytes]:
    """The private numbers of the keys as bytes, in both byte orders, and the text of their files."""
    found: list[bytes] = []
    for key in private_keys:
        numbers = key.private_numbers()
        if isinstance(key, rsa.RSAPrivateKey):
            secrets = [numbers.p, numbers.q, numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp]
        else:
            secrets = [numbers.private_value]
        for value in secrets:
            big = value.to_bytes((value.bit_length() + 7) // 8)
            found += [big, big[::-1]]
        lines = key_pem(key).splitlines()[1:-1]
        found += [b"".join(lines)[:64], lines[1]]
    return found


def _memory(pid: int) -> bytes:
    """Everything of the process that can be read, but not the secret mappings."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r\S+ \S+ \S+ \d+\s*(.*)", line)
            if not match or match[3].startswith(("[vvar", "[vsyscall")) or "secretmem" in match[3]:
                continue
            begin, end = int(match[1], 16), int(match[2], 16)
            try:
                memory.seek(begin)
                parts.append(memory.read(end - begin))
            except OSError:
                continue
    return b"\0".join(parts)


@pytest.mark.root
def test_no_key_outside_the_secret_mappings(daemon: DaemonProcess, keys: Path, authority: Authority) -> None:
    combined = shared_key("p384")
    (keys / "combined.pem").write_bytes(pem(authority.issue(combined, "combined")) + key_pem(combined))
    daemon.start()
    with daemon.client() as stub:
        for _ in range(20):
            stub.Sign(sign_request(WWW, 0x0403), timeout=10)
            stub.Sign(sign_request(RSA, 0x0804), timeout=10)
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("reloaded")
    if daemon.events("backend")[0]["secret_memory"]["kind"] != "memfd_secret":
        pytest.skip("without memfd_secret the secret mappings cannot be told from the others")
    seen = _memory(daemon.pid)
    assert WWW in seen, "the search does not work: public key ids are there"
    keys_of_all = (shared_key("p256"), shared_key("rsa2048"), combined)
    for secret in _secrets(*keys_of_all):
        assert secret not in seen
    for place in ("environ", "cmdline"):
        content = Path(f"/proc/{daemon.pid}/{place}").read_bytes()
        assert not any(secret in content for secret in _secrets(*keys_of_all))


def test_no_key_in_the_logs(daemon: DaemonProcess, keys: Path) -> None:
    daemon.configure(identities={"www": ME, "rsa": ME}, logging={"level": "debug", "format": "json"})
    daemon.start()
    broken = key_pem(shared_key("p256"))
    (keys / "www.key").write_bytes(broken[:-40])
    daemon.wait_log("refused a file")
    (keys / "www.key").write_bytes(broken.replace(b"PRIVATE KEY", b"CERTIFICATE"))
    daemon.wait_log("refused a file", 2)
    with daemon.admin() as admin:
        answer = admin.ListKeys(admin_pb2.ListKeysRequest(), timeout=10)
    daemon.stop()
    log = daemon.log_file.read_bytes() + answer.SerializeToString()
    for secret in _secrets(shared_key("p256"), shared_key("rsa2048")):
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)[:-4], repr(secret).encode()):
            assert form not in log


def test_it_cannot_be_traced_or_dumped(running: DaemonProcess) -> None:
    """PR_SET_DUMPABLE 0 makes root the owner of its /proc files."""
    limits = Path(f"/proc/{running.pid}/limits").read_text() if os.getuid() == 0 else "Max core file size 0 0"
    assert re.search(r"Max core file size\s+0\s+0", limits)
    if os.getuid() != 0:
        assert not os.access(f"/proc/{running.pid}/environ", os.R_OK)


def test_what_it_signs_is_a_handshake(running: DaemonProcess) -> None:
    with running.client() as stub:
        answer = stub.Sign(sign_request(WWW, 0x0403), timeout=10)
    from cryptography.hazmat.primitives import hashes

    shared_key("p256").public_key().verify(answer.signature, CERTIFICATE_VERIFY, ec.ECDSA(hashes.SHA256()))
