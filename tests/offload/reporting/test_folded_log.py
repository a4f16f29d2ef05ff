"""Warnings that others cause as often as they like: what is written, and that every event is in a count."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload.reporting.folded_log import AT_ONCE_MAX, INTERVAL_SECONDS, KINDS_MAX, NOT_TOLD_APART, FoldedLog
from tests.offload.conftest import ME
from tests.offload.daemon_process import DaemonProcess, sign_request, status_of


class Lines:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.now = 100.0
        self.folded = FoldedLog(self, lambda: self.now)

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event} | fields)

    def pass_interval(self) -> list[dict[str, Any]]:
        """The lines that it brings."""
        before = len(self.lines)
        self.now += INTERVAL_SECONDS
        self.folded.flush()
        return self.lines[before:]


def test_one_event_is_written_at_once_and_only_then() -> None:
    log = Lines()
    log.folded.warning(("full", 1), "refused", uid=1)
    assert log.lines == [{"event": "refused", "uid": 1, "count": 1}]
    assert log.pass_interval() == []
    log.folded.warning(("full", 1), "refused", uid=1)
    assert len(log.lines) == 2, "the kind was forgotten: this is news again"


def test_equal_events_are_one_line_an_interval() -> None:
    log = Lines()
    for _ in range(3):
        for _ in range(1000):
            log.folded.warning(("full", 1), "refused", uid=1, count=2)
        log.pass_interval()
    assert [line["count"] for line in log.lines] == [2, 1998, 2000, 2000]
    assert log.lines[-1]["uid"] == 1
    assert log.lines[-1]["within_seconds"] == INTERVAL_SECONDS
    assert log.pass_interval() == []


def test_events_that_differ_are_few_lines_and_lose_no_count() -> None:
    log = Lines()
    for number in range(1000):
        log.folded.warning(("unknown", 1), "refused", uid=1, identity=f"guess-{number}")
    assert len(log.lines) == AT_ONCE_MAX
    (line,) = log.pass_interval()
    assert line["count"] == 1000 - AT_ONCE_MAX
    assert line["uid"] == 1
    assert line["identity"] == [*(f"guess-{number}" for number in range(AT_ONCE_MAX, AT_ONCE_MAX + 4)), "..."]


def test_a_kind_that_floods_hides_no_other() -> None:
    log = Lines()
    for number in range(1000):
        log.folded.warning(("unknown", 1), "refused", uid=1, identity=number)
    log.folded.warning(("unknown", 2), "refused", uid=2, identity="www")
    assert log.lines[-1] == {"event": "refused", "uid": 2, "identity": "www", "count": 1}


def test_kinds_are_bounded() -> None:
    log = Lines()
    for number in range(10 * KINDS_MAX):
        log.folded.warning(number, "refused", uid=number)
    assert len(log.lines) == KINDS_MAX
    assert log.pass_interval() == [
        {"event": NOT_TOLD_APART, "count": 9 * KINDS_MAX, "within_seconds": INTERVAL_SECONDS}
    ]


def test_the_end_writes_what_is_counted() -> None:
    log = Lines()
    for _ in range(5):
        log.folded.warning("full", "refused")
    log.folded.close()
    assert [line["count"] for line in log.lines] == [1, 4]


# ---- in the daemon ----


@pytest.mark.slow(seconds=12)
def test_refusals_of_one_caller_are_folded(daemon: DaemonProcess) -> None:
    """Many identities that are not there: few lines, and their counts are all of them."""
    count = 200  # fewer than the data plane tells apart between two looks at them
    daemon.configure(identities={"www": ME})
    daemon.start()
    with daemon.client() as stub:
        for number in range(count):
            call = partial(stub.Sign, sign_request(number.to_bytes(32, "big"), 0x0403), timeout=20)
            assert status_of(call) is grpc.StatusCode.NOT_FOUND

    def counted() -> int:
        return sum(event["count"] for event in daemon.events("caller refused"))

    wait_for("all of them in the log", lambda: counted() == count)
    assert len(daemon.events("caller refused")) < count / 4
