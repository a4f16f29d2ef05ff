"""The audit log itself: one JSON object a line, wherever it goes, whatever is said, and what is lost is counted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from control.audit import ITSELF, MAX_CHARS, STRANGERS_PER_SECOND, Audit, Who

ALICE = Who("token", "alice", "0" * 32)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    audit = Audit(clock=lambda: 1.5)
    audit.write("token_issued", ALICE, "10.0.0.1:5", request="POST /tokens/node", status=200, labels={"a": "b"})
    audit.write("token_issued", ITSELF, "")
    assert lines(capsys.readouterr().out) == [
        {
            "time": "1970-01-01T00:00:01.500+00:00",
            "event": "token_issued",
            "by": {"kind": "token", "name": "alice", "id": "0" * 32},
            "from": "10.0.0.1:5",
            "request": "POST /tokens/node",
            "status": 200,
            "labels": {"a": "b"},
        },
        {
            "time": "1970-01-01T00:00:01.500+00:00",
            "event": "token_issued",
            "by": {"kind": "control plane"},
            "from": "this host",
        },
    ]


def test_nobody_forges_a_line_or_fills_the_disk(capsys: pytest.CaptureFixture[str]) -> None:
    Audit().write("x", Who("token", "a\n{}\x1b[2J\u202e"), "", request="PUT /" + "y" * 10_000, more={"z" * 10_000: ""})
    said = capsys.readouterr().out
    assert said.isascii()
    assert said.count("\n") == 1
    assert len(said) < 3 * MAX_CHARS
    assert json.loads(said)["by"]["name"] == "a\n{}\x1b[2J\u202e"


def test_a_file_of_its_own_which_logrotate_may_take(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    audit = Audit(path)
    assert path.stat().st_mode & 0o777 == 0o600
    audit.write("first", ALICE, "")
    path.rename(tmp_path / "audit.log.1")
    audit.write("second", ALICE, "")
    audit.close()
    assert [one["event"] for one in lines((tmp_path / "audit.log.1").read_text())] == ["first"]
    assert [one["event"] for one in lines(path.read_text())] == ["second"]
    Audit(path).write("third", ALICE, "")
    assert [one["event"] for one in lines(path.read_text())] == ["second", "third"]


def test_what_cannot_be_written_is_counted_and_nothing_stops(tmp_path: Path) -> None:
    lost: list[None] = []
    folder = tmp_path / "logs"
    folder.mkdir()
    audit = Audit(folder / "audit.log", lambda: lost.append(None))
    (folder / "audit.log").unlink()
    folder.rmdir()
    audit.write("gone", ALICE, "")
    audit.write("gone", ALICE, "")
    assert len(lost) == 2
    folder.mkdir()
    audit.write("again", ALICE, "")
    assert [one["event"] for one in lines((folder / "audit.log").read_text())] == ["again"]
    with pytest.raises(OSError, match="No such file"):
        Audit(tmp_path / "none" / "audit.log")
    os.symlink(tmp_path / "elsewhere", tmp_path / "link")
    with pytest.raises(OSError, match="it is a symbolic link"):
        Audit(tmp_path / "link")


def test_a_line_that_was_torn_stays_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes a part of one."""
    lost: list[None] = []
    path, write = tmp_path / "audit.log", os.write
    audit = Audit(path, lambda: lost.append(None))
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:20]))
    audit.write("torn", ALICE, "")
    monkeypatch.undo()
    audit.write("whole", ALICE, "")
    torn, whole = path.read_text().splitlines()
    assert (len(lost), len(torn), json.loads(whole)["event"]) == (1, 20, "whole")


def test_a_file_of_somebody_else_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    os.link(tmp_path / "precious", tmp_path / "audit.log")
    with pytest.raises(OSError, match="another hard link"):
        Audit(tmp_path / "audit.log")


def test_strangers_are_counted_beyond_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    audit = Audit(clock=lambda: now[0])
    for _ in range(STRANGERS_PER_SECOND + 7):
        audit.write("request", None, "10.0.0.1:5")
    assert len(lines(capsys.readouterr().out)) == STRANGERS_PER_SECOND
    for _ in range(STRANGERS_PER_SECOND + 1):
        audit.write("request", ALICE, "")
    found = lines(capsys.readouterr().out)
    assert (found[0]["event"], found[0]["count"], len(found)) == ("left_out", 7, STRANGERS_PER_SECOND + 2)
    now[0] += 1
    audit.write("request", None, "10.0.0.1:5")
    [line] = lines(capsys.readouterr().out)
    assert line["by"] is None
