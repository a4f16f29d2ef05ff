"""The audit log: what is in it, that it can be rotated and run out of disk, and that nothing is lost silently."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest

from offload.audit import AuditLog
from offload.config import Audit
from tests.json_lines import read_json_lines
from tests.offload.conftest import ME
from tests.offload.daemon_process import DaemonProcess, sign_request, status_of, wait_for
from tests.offload.key_files import key_id, shared_key

WWW = key_id(shared_key("p256"))
RSA = key_id(shared_key("rsa2048"))


def refusal(number: int = 0, count: int = 1) -> Any:
    return {"reason": "usage", "pid": number, "uid": 1, "gid": 2, "listener": "main", "key_id": WWW, "count": count}


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
    assert stat.S_IMODE(audited.stat().st_mode) == 0o600


def test_what_happened_last_is_written_at_the_end(daemon: DaemonProcess, audited: Path) -> None:
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
    assert daemon.stop() == 0
    assert sum(line["count"] for line in read_json_lines(audited) if line["event"] == "key_used") == 1


def test_a_full_disk_stops_nothing(daemon: DaemonProcess) -> None:
    """/dev/full refuses every write, as a full disk does; a link is not followed, so it is named itself."""
    daemon.configure(identities={"www": ME}, audit={"path": "/dev/full"})
    daemon.start()
    with daemon.client() as stub:
        assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
        failure = daemon.wait_log("the audit log cannot be written; signing goes on")
        assert failure["reason"] == "No space left on device"
        for _ in range(3):
            assert stub.Sign(sign_request(WWW, 0x0403), timeout=10).signature
    assert daemon.stop() == 0
    assert len(daemon.events("the audit log cannot be written; signing goes on")) == 1, "said once"


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
    log.write([refusal(n, 2) for n in range(3)], [use(n, 10) for n in range(4)], unlisted=7)
    lines = read_json_lines(path)
    assert [line["event"] for line in lines] == ["refused", "refused", "refused", "left_out", "left_out"]
    assert [line["count"] for line in lines[3:]] == [40, 7]
    assert log.written == 5


def test_a_disk_that_fills_up_and_has_room_again(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    log = audit(folder / "audit")
    log.write([refusal(1, 4)])
    assert (log.written, log.lost) == (0, 4)
    folder.mkdir()
    log.write([refusal(2)])
    assert (log.written, log.lost) == (1, 4)
    log.close()


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
