"""tlsload against stock Envoy's own TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.load import tools
from deploy.node import envoy
from deploy.node.certificates import Authority, Leaf
from deploy.node.processes import Processes
from envoy_ext import render

pytestmark = pytest.mark.envoy


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def leaf(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Leaf:
    return authority.issue("www", "p256", tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def server(authority: Authority, leaf: Leaf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[envoy.Envoy]:
    """Listeners `open` and `mutual`, which wants a client certificate."""
    routes = [render.direct_response("ok", prefix="/ok"), render.direct_response("no", status=503)]
    listeners = [
        envoy.https_listener("open", envoy.stock_tls(leaf), routes),
        envoy.https_listener("mutual", envoy.stock_tls(leaf, authority.ca_file), routes),
    ]
    with Processes(tmp_path_factory.mktemp("envoy")) as processes:
        yield envoy.start(processes, "envoy", render.bootstrap(listeners, admin_port=0))


def test_every_handshake_is_one_that_envoy_counts(server: envoy.Envoy, authority: Authority) -> None:
    before = handshakes(server)
    result = tools.tlsload(
        server.address("open"), count=200, concurrency=20, tls="1.3", ca=authority.ca_file, sni="www.demo.test"
    )
    assert result["handshakes"] == 200
    assert result["failures"] == 0
    assert result["left_open_by_server"] == 0
    assert handshakes(server) - before == 200


def handshakes(server: envoy.Envoy) -> int:
    return sum(value for name, value in server.stats("listener.").items() if name.endswith(".ssl.handshake"))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_resumption(server: envoy.Envoy, version: str) -> None:
    result = tools.tlsload(server.address("open"), count=50, tls=version, resume=True)
    assert result["failures"] == 0
    assert result["resumed"] == result["handshakes"] > 0


def test_requests_and_their_status(server: envoy.Envoy) -> None:
    good = tools.tlsload(server.address("open"), count=20, alpn="http/1.1", get="/ok")
    bad = tools.tlsload(server.address("open"), count=3, alpn="http/1.1", get="/other")
    assert good["responses"] == 20
    assert good["left_open_by_server"] == 0
    assert bad["failures_by_reason"] == {"response: HTTP status 503": 3}


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_client_certificates(server: envoy.Envoy, leaf: Leaf, version: str) -> None:
    address = server.address("mutual")
    good = tools.tlsload(address, count=20, tls=version, cert=leaf.certificate_file, key=leaf.key_file)
    without = tools.tlsload(address, count=2, tls=version)
    assert good["handshakes"] == 20
    assert good["failures"] == 0
    assert without["failures"] == 2


def test_aborts_leave_no_connection_behind(server: envoy.Envoy) -> None:
    result = tools.tlsload(server.address("open"), count=300, concurrency=30, abort=True)
    assert result["aborted"] == 300
    assert tools.tlsload(server.address("open"), count=1)["failures"] == 0
    active = {k: v for k, v in server.stats("listener.").items() if k.endswith("downstream_cx_active")}
    assert sum(active.values()) <= 2, active
