"""The audit log: what is in it, that it can be rotated and run out of disk, and that nothing is lost silently."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload.config.settings import Audit
from offload.interfaces.audit import AuditLog
from offload.v1 import private_key_pb2
from tests.json_lines import read_json_lines
from tests.offload.conftest import ME
from tests.offload.daemon_process import DaemonProcess, sign_request, status_of
from tests.offload.key_files import key_id, shared_key

WWW = key_id(shared_key("p256"))
RSA = key_id(shared_key("rsa2048"))


def refusal(number: int = 0, count: int = 1) -> Any:
    caller = {"reason": "usage", "pid": number, "uid": 1, "gid": 2, "listener": "main"}
    return caller | {"key_id": WWW, "scheme": 0x0403, "decrypt": False, "identity": "", "count": count}


def use(number: int = 0, count: int = 1) -> Any:
    caller = {"pid": number, "uid": 1, "gid": 2, "listener": "main", "executable": "/bin/envoy"}
    return caller | {"scheme": 0x0403, "status": "OK", "decrypt": False, "key_id": WWW, "count": count}


def audit(path: Path, **settings: Any) -> AuditLog:
    return AuditLog(Audit(path=path, **settings), path, lambda _: ["www"], lambda: 1.5)


# ---- with the real daemon ----


@pytest.fixture
def audited(daemon: DaemonProcess) -> Path:
    path = daemon.folder / "audit.jsonl"
    daemon.configure(identities={"www": ME, "rsa": {"selectors": [{"uid": 4_000_000}]}}, audit={"path": str(path)})
    daemon.start()
    return path


def test_uses_and_refusals(daemon: DaemonProcess, audited: Path) -> None:
    with daemon.client() as stub:
        for _ in range(5):
            assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
        assert status_of(lambda: stub.Sign(sign_request(RSA, 0x0804), timeout=10)) is grpc.StatusCode.NOT_FOUND
        assert (
            status_of(lambda: stub.Sign(sign_request(WWW, 0x0403, b"a JWT"), timeout=10))
            is grpc.StatusCode.PERMISSION_DENIED
        )

    def complete() -> bool:
        lines = read_json_lines(audited)
        uses = sum(line["count"] for line in lines if line["event"] == "key_used")
        return uses == 5 and sum(line["event"] == "refused" for line in lines) == 2

    wait_for("all of it", complete)
    lines = read_json_lines(audited)
    used = next(line for line in lines if line["event"] == "key_used")
    assert used["key_id"] == WWW.hex()
    assert used["identities"] == ["www"]
    assert used["scheme"] == "ecdsa_secp256r1_sha256"
    assert used["result"] == "OK"
    assert (used["pid"], used["uid"], used["socket"]) == (os.getpid(), os.getuid(), "main")
    assert used["executable"] == os.readlink("/proc/self/exe")
    refused = {line["result"]: line for line in lines if line["event"] == "refused"}
    assert set(refused) == {"caller_not_allowed", "usage"}
    assert refused["caller_not_allowed"]["key_id"] == RSA.hex()
    assert refused["caller_not_allowed"]["scheme"] == "rsa_pss_rsae_sha256"
    assert refused["usage"]["scheme"] == "ecdsa_secp256r1_sha256"
    assert stat.S_IMODE(audited.stat().st_mode) == 0o600


def test_a_refusal_says_what_was_asked_for(daemon: DaemonProcess, audited: Path) -> None:
    nonsense = sign_request(WWW, 0x12345678)
    decrypt = private_key_pb2.DecryptRequest(key_id=WWW, ciphertext=b"x")
    somebody = private_key_pb2.WatchIdentityRequest(identity="rsa")
    with daemon.client() as stub:
        assert status_of(lambda: stub.Sign(nonsense, timeout=10)) is grpc.StatusCode.INVALID_ARGUMENT
        assert status_of(lambda: stub.Decrypt(decrypt, timeout=10)) is grpc.StatusCode.PERMISSION_DENIED
        assert status_of(lambda: next(stub.WatchIdentity(somebody, timeout=10))) is grpc.StatusCode.NOT_FOUND
    assert daemon.stop() == 0
    lines = [line for line in read_json_lines(audited) if line["event"] == "refused"]
    seen = {(line["result"], line["scheme"], line["identity_asked"], tuple(line["identities"])) for line in lines}
    assert seen == {
        ("bad_operation", "0x12345678", None, ("www",)),
        ("usage", "rsa_decrypt", None, ("www",)),
        ("caller_not_allowed", None, "rsa", ()),
    }


def test_what_was_too_much_to_list_is_counted(daemon: DaemonProcess, audited: Path) -> None:
    with daemon.client() as stub:
        for number in range(700):
            request = sign_request(number.to_bytes(32), 0x0403)
            assert status_of(lambda: stub.Sign(request, timeout=10)) is grpc.StatusCode.NOT_FOUND  # noqa: B023
    assert daemon.stop() == 0
    assert sum(line["count"] for line in read_json_lines(audited)) == 700, "refused and left out together"


def test_what_happened_last_is_written_at_the_end(daemon: DaemonProcess, audited: Path) -> None:
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
    assert daemon.stop() == 0
    assert sum(line["count"] for line in read_json_lines(audited) if line["event"] == "key_used") == 1


@pytest.mark.slow(seconds=2)
def test_a_full_disk_stops_nothing(daemon: DaemonProcess) -> None:
    """/dev/full refuses every write, as a full disk does; a link is not followed, so it is named itself."""
    daemon.configure(identities={"www": ME}, audit={"path": "/dev/full"})
    daemon.start()
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
        failure = daemon.wait_log("cannot write the audit log; signing continues")
        assert failure["reason"] == "No space left on device"
        for _ in range(3):
            assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
    assert daemon.stop() == 0
    assert len(daemon.events("cannot write the audit log; signing continues")) == 1, "said once"


@pytest.mark.slow(seconds=2)
def test_refusals_only(daemon: DaemonProcess) -> None:
    path = daemon.folder / "audit.jsonl"
    daemon.configure(identities={"www": ME}, audit={"path": str(path), "key_use": False})
    daemon.start()
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
        assert status_of(lambda: stub.Sign(sign_request(WWW, 0x0403, b"x"), timeout=10)) is not grpc.StatusCode.OK
    assert daemon.stop() == 0
    assert [line["event"] for line in read_json_lines(path)] == ["refused"]


# ---- the file ----


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_rotation_needs_no_signal(tmp_path: Path, how: str) -> None:
    path, old = tmp_path / "audit", tmp_path / "audit.1"
    log = audit(path)
    log.write([refusal(1)])
    if how == "renamed":
        path.rename(old)
    else:
        path.unlink()
    log.write([refusal(2)])
    assert [line["pid"] for line in read_json_lines(path)] == [2]
    if how == "renamed":
        assert [line["pid"] for line in read_json_lines(old)] == [1]
    log.close()


def test_more_than_the_bound_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    log = audit(path, lines_per_second=3)
    log.write([refusal(n, 2) for n in range(3)], [use(n, 10) for n in range(4)], 5, 7)
    lines = read_json_lines(path)
    assert [line["event"] for line in lines] == ["refused"] * 3 + ["left_out"] * 3
    assert [line["count"] for line in lines[3:]] == [40, 5, 7]
    assert log.written == 6


def test_a_disk_that_fills_up_and_has_room_again(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    log = audit(folder / "audit")
    log.write([refusal(1, 4)])
    assert (log.written, log.lost) == (0, 4)
    folder.mkdir()
    log.write([refusal(2)])
    assert (log.written, log.lost) == (1, 4)
    log.close()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file grows beyond this, as on a full disk: what fits is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("again", ["the same daemon", "the next daemon"])
def test_a_line_that_was_torn_stays_alone(tmp_path: Path, again: str) -> None:
    path = tmp_path / "audit"
    log = audit(path)
    log.write([refusal(1)])
    one = path.stat().st_size
    # The bound is for every file of this process: what the tests print is far below it.
    path.write_bytes(path.read_bytes() + b'{"pid":0,"long":"' + bytes(10_000_000).replace(b"\0", b" ") + b'"}\n')
    size = path.stat().st_size
    with room_for(size + one + 10):
        log.write([refusal(2, 3), refusal(3, 4), refusal(4, 5)])
        assert (log.written, log.lost) == (2, 9), "the first of the three is there, whole"
        for room in (10, 11, 12):  # nothing of it fits; then no more than the end of the torn line, and a byte
            with room_for(size + one + room):
                log.write([refusal(5)])
        assert (log.written, log.lost) == (2, 12)
    if again == "the next daemon":
        log.close()
        log = audit(path)
    log.write([refusal(6)])
    log.close()
    whole, torn = [], []
    for line in path.read_bytes().splitlines():
        try:
            whole.append(json.loads(line)["pid"])
        except ValueError:
            torn.append(line)
    assert whole == [1, 0, 2, 6]
    assert b"" not in torn, "and no line is empty"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "audit").symlink_to(tmp_path / "elsewhere")
    log = audit(tmp_path / "audit")
    log.write([refusal()])
    assert log.lost == 1
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_happened_nothing_is_made(tmp_path: Path) -> None:
    audit(tmp_path / "audit").write([])
    assert not (tmp_path / "audit").exists()


def test_a_pipe_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "audit")
    log = audit(tmp_path / "audit")
    log.write([refusal(1, 3)])
    assert (log.written, log.lost) == (0, 3)


@pytest.mark.root
@pytest.mark.parametrize("trap", ["hard link", "another's file", "symlink", "another's folder", "everybody's folder"])
def test_text_of_callers_goes_into_no_other_file(tmp_path: Path, trap: str) -> None:
    """Who can write the folder could have the daemon append to a file of root's."""
    folder = tmp_path / "log"
    folder.mkdir()
    victim, path = tmp_path / "victim", folder / "audit.jsonl"
    victim.write_text("root's")
    if trap == "hard link":
        os.link(victim, path)
    elif trap == "symlink":
        path.symlink_to(victim)
    elif trap == "another's file":
        path.touch()
        os.chown(path, 12345, 12345)
    elif trap == "another's folder":
        os.chown(folder, 12345, 12345)
    else:
        folder.chmod(0o777)
    log = AuditLog(Audit(path=path), path, lambda _: [])
    log.write([], [], refusals_unlisted=7)
    assert (log.written, log.lost) == (0, 7)
    assert victim.read_text() == "root's"
    assert not path.is_file() or path.read_text() in ("", "root's")


@pytest.mark.root
def test_a_group_may_write_the_folder_of_logs(tmp_path: Path) -> None:
    """As Ubuntu has /var/log."""
    os.chown(tmp_path, 0, 12345)
    tmp_path.chmod(0o775)
    log = AuditLog(Audit(path=tmp_path / "audit.jsonl"), tmp_path / "audit.jsonl", lambda _: [])
    log.write([], [], refusals_unlisted=7)
    assert (log.written, log.lost) == (1, 0)
