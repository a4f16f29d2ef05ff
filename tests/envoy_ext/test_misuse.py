"""What a user may get wrong in ways that only show at run time."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.node.processes import Processes
from envoy_ext import render
from envoy_ext.settings import TlsSettings
from tests.envoy_ext import node
from tests.envoy_ext.node import Material
from tests.offload.daemon_process import DaemonProcess

pytestmark = pytest.mark.envoy


def test_a_filter_chain_without_the_companion_filter(
    material: Material, shared_daemon: DaemonProcess, processes: Processes, tmp_path: Path
) -> None:
    tls = TlsSettings(identities=("web",), daemon_socket=shared_daemon.socket)
    listener = node.http(tmp_path, "https", tls, [render.direct_response("ok")])
    del listener["filter_chains"][0]["filters"][0]
    envoy = node.start_envoy(processes, "envoy", tmp_path, material.ca, render.bootstrap([listener]))
    with pytest.raises(OSError):  # noqa: PT011  (an alert or a reset)
        envoy.client("https").connect()
    assert envoy.wait_failure("https", "this filter chain lacks the companion network filter")
    processes.check()


def test_a_companion_filter_without_the_transport_socket(
    material: Material, shared_daemon: DaemonProcess, processes: Processes, tmp_path: Path
) -> None:
    """It does nothing, and harms nothing."""
    tls = TlsSettings(identities=("web",), daemon_socket=shared_daemon.socket)
    listener = node.http(tmp_path, "plain", tls, [render.direct_response("ok")])
    del listener["filter_chains"][0]["transport_socket"]
    envoy = node.start_envoy(processes, "envoy", tmp_path, material.ca, render.bootstrap([listener]))
    with envoy.client("plain").raw() as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")
    processes.check()
