"""What proxies and nodes say is one line in the control plane's log."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from control import logs
import structlog
log = structlog.get_logger("control.servers.ads")
logs.configure()
logs.configure()
text = "x\\n2026-01-01 [info     ] forged\\x1b[2J\\u202e"
log.warning("a proxy rejected its configuration", dataplane=text, message=[text], problems={text: (text,)})
"""


def test_an_event_is_one_line() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, timeout=60, check=True)
    assert ran.stdout.count(b"\n") == 1
    assert ran.stdout.decode().strip().isprintable()
    assert ran.stdout.count(b"forged") == 4


TRACE = """
from control import logs
import structlog
log = structlog.get_logger("control.servers.ads")
logs.configure()
def served(token):
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("an xDS stream failed", peer="p")
served("t0ken-of-somebody")
"""


def test_a_trace_shows_no_values() -> None:
    ran = subprocess.run([sys.executable, "-c", TRACE], capture_output=True, timeout=60, check=True)
    assert b"ZeroDivisionError" in ran.stdout
    assert b"an xDS stream failed" in ran.stdout
    assert b"in served" in ran.stdout
    assert b"t0ken-of-somebody" not in ran.stdout + ran.stderr
