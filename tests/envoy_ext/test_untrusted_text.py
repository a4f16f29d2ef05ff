"""What a client says before anybody knows it: a server name must not make lines, headers or terminal commands."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from envoy_ext.settings import TlsSettings
from tests.envoy_ext import node
from tests.envoy_ext.node import EnvoyNode
from tests.json_lines import read_json_lines
from tests.offload.daemon_process import DaemonProcess

pytestmark = pytest.mark.envoy

# OpenSSL sends what it is told to.
HOSTILE = {
    "newline": b"a\nforged.line",
    "carriage_return": b"a\r\nforged.line",
    "terminal": b"\x1b[2Jforged",
    "not_ascii": b"forged.\xff\xfe.test",
    "right_to_left": "forged\u202e.shop.test".encode(),
    "quotes": b"forged\",'x\\.test",
    "spaces": b"forged name",
    "wildcard_label": b"forged\n.shop.test",
    "long_label": b"forged" * 11 + b".shop.test",
}
TEXT_FORMAT = "begin %DOWNSTREAM_TRANSPORT_FAILURE_REASON% [%FILTER_STATE(tls_offload.server_name:PLAIN)%] end\n"


@dataclass(frozen=True)
class Logged:
    envoy: EnvoyNode
    folder: Path

    def say(self, listener: str, name: bytes) -> bytes:
        port = str(self.envoy.running.ports[listener])
        line = [b"openssl", b"s_client", b"-quiet", b"-connect", f"127.0.0.1:{port}".encode(), b"-servername", name]
        request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        return subprocess.run(line, input=request, capture_output=True, check=False, timeout=30).stdout

    def text_log(self, listener: str) -> bytes:
        return (self.folder / f"{listener}.text").read_bytes()


@pytest.fixture(scope="module")
def logged(
    material: node.Material, shared_daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("untrusted")

    def listener(name: str, **more: object) -> render.Config:
        tls = TlsSettings(identities=("web", "shop"), daemon_socket=shared_daemon.socket, **more)  # type: ignore[arg-type]
        published = {"header": {"key": "x-server-name", "value": render.filter_state("server_name")}}
        route = {**render.direct_response("ok\n"), "response_headers_to_add": [published]}
        chain = render.filter_chain(tls, [render.http_connection_manager([route], stat_prefix=name)])
        text = render.access_log(str(folder / f"{name}.text"))
        text["typed_config"]["log_format"] = {"text_format_source": {"inline_string": TEXT_FORMAT}}
        logs = [node.listener_log(folder, name), text]
        return render.listener(name, 0, [chain], host="127.0.0.1", access_logs=logs)

    config = render.bootstrap([listener("strict", unknown_server_name="reject"), listener("lenient")])
    with Processes(folder) as processes:
        options = ("--component-log-level", "dynamic_modules:debug")
        envoy = node.start_envoy(processes, "envoy", folder, material.ca, config, options=options)
        yield Logged(envoy, folder)
        processes.check()


def test_a_name_that_is_one_is_published(logged: Logged) -> None:
    assert b"x-server-name: de.shop.test" in logged.say("lenient", b"DE.shop.test")
    wait_for("its line", lambda: b"begin - [de.shop.test] end\n" in logged.text_log("lenient"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_refused_name_is_one_line(logged: Logged, kind: str) -> None:
    lines, said = len(logged.text_log("strict").splitlines()), logged.envoy.log().count("a malformed server name")
    assert logged.say("strict", HOSTILE[kind]) == b""
    wait_for("its line", lambda: len(logged.text_log("strict").splitlines()) > lines)
    last = logged.text_log("strict").split(b"\n")
    assert len(last) == lines + 2, "one line, and nothing behind it"
    assert last[-2].startswith(b"begin client_sent_a_malformed_server_name_'"), last[-2]
    assert last[-2].endswith(b"' [-] end"), last[-2]
    assert all(0x20 <= byte <= 0x7E for byte in last[-2])
    assert b"forged" in last[-2]
    entry = wait_for("its JSON line", lambda: read_json_lines(logged.folder / "strict.log")[lines:])[0]
    assert entry["server_name"] is None
    assert entry["tls_failure"].isascii()
    assert entry["tls_failure"].isprintable()
    wait_for("Envoy's line", lambda: logged.envoy.log().count("a malformed server name") > said)
    assert not [line for line in logged.envoy.log().splitlines() if line.startswith(("forged", "\x1b"))]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_served_name_is_not_published(logged: Logged, kind: str) -> None:
    """The client gets the first identity, as if it had sent no name."""
    lines = len(logged.text_log("lenient").splitlines())
    answer = logged.say("lenient", HOSTILE[kind])
    assert b"200 OK" in answer
    assert b"forged" not in answer
    wait_for("its line", lambda: len(logged.text_log("lenient").splitlines()) > lines)
    assert logged.text_log("lenient").splitlines()[lines:] == [b"begin - [-] end"]
