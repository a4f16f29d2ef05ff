"""The form of the logs: one event a line, fields intact, no bytes, libraries included."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.offload.daemon_process import environment

SCRIPT = """
import logging, sys
from offload.reporting import logs
logs.configure(*sys.argv[1:])
log = logs.get_logger()
log.debug("hidden")
log.info("an event", identity="www", key_id="00ff", secret=b"never shown", other=bytearray(3), number=1)
logging.getLogger("grpc").warning("from a library: %s", "text")
logging.getLogger("watchfiles.main").info("chatter")
def divide(held):
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed", reason="nothing to divide by")
divide("a local value")
print(logs.set_level("error"), file=sys.stdout)
log.warning("hidden as well")
"""


def lines(level: str, output: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, level, output],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout == f"{level}\n"
    assert "a local value" not in ran.stderr, "a trace shows no values"
    return ran.stderr.splitlines()


@pytest.mark.parametrize("output", ["json", "auto"])
def test_json(output: str) -> None:
    """ "auto" writes JSON where standard error is no terminal."""
    event, library, failed = (json.loads(line) for line in lines("info", output))
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert event["timestamp"].endswith("Z")
    assert (event["level"], event["event"], event["identity"], event["number"]) == ("info", "an event", "www", 1)
    assert (event["secret"], event["other"]) == ("<11 bytes>", "<3 bytes>")
    assert (library["level"], library["event"]) == ("warning", "from a library: text")
    assert failed["reason"] == "nothing to divide by"
    assert "ZeroDivisionError" in failed["exception"]


HOSTILE = """
import sys
from offload.reporting import logs
logs.configure("info", sys.argv[1])
text = "x\\n2026-01-01T00:00:00Z [info     ] forged\\x1b[2J\\u202e\\ud800"
logs.get_logger().info("an event", identity_asked=text, files=[text], sockets={text: (text,)})
"""


@pytest.mark.parametrize("output", ["json", "console"])
def test_what_others_say_is_one_line(output: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", HOSTILE, output], env=environment(), capture_output=True, timeout=60, check=True
    )
    assert ran.stderr.count(b"\n") == 1
    text = ran.stderr.decode().strip()
    assert text.isprintable()
    assert text.count("forged") == 4


def test_console() -> None:
    text = "\n".join(lines("info", "console"))
    assert "an event" in text
    assert "identity=www" in text
    assert "never shown" not in text
    assert "ZeroDivisionError" in text
    assert "hidden" not in text
    assert "chatter" not in text


def test_debug() -> None:
    assert json.loads(lines("debug", "json")[0])["event"] == "hidden"
