"""Session tickets: shared by workers and listeners, bound to the identity, not asked of the daemon."""

from __future__ import annotations

import ssl

import pytest

from tests.envoy_ext.conftest import Node
from tests.envoy_ext.node import TLS12, TLS13
from tests.envoy_ext.tls_clients import Client

pytestmark = pytest.mark.envoy


def resumes(first: Client, second: Client, version: ssl.TLSVersion) -> bool:
    """Whether a session of `first` is resumed at `second`."""
    context = first.context(version, verify=False)
    with first.connect(context) as connection:
        first.get(connection, "/hello")  # TLS 1.3 tickets come with the first answer
        session = connection.session
    assert session is not None
    assert session.has_ticket or version == TLS12
    with second.connect(context, session) as connection:
        second.get(connection, "/hello")
        return bool(connection.session_reused)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_session_is_resumed_without_the_daemon(shared: Node, version: ssl.TLSVersion) -> None:
    client = shared.envoy.client("https")
    before = shared.envoy.stats()
    # Connections land on both workers; each must open the other's tickets.
    assert all(resumes(client, client, version) for _ in range(8))
    after = shared.envoy.stats()
    assert after["handshakes"] - before["handshakes"] == 16
    assert after["handshakes_resumed"] - before["handshakes_resumed"] == 8
    assert after["operations_ok"] - before["operations_ok"] == 8


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_another_listener_of_the_same_identity_resumes(shared: Node, version: ssl.TLSVersion) -> None:
    assert resumes(shared.envoy.client("https"), shared.envoy.client("again"), version)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_another_identity_does_not(shared: Node, version: ssl.TLSVersion) -> None:
    assert not resumes(shared.envoy.client("https", "web.test"), shared.envoy.client("https", "old.test"), version)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_session_without_client_certificate_is_not_resumed_where_one_is_required(
    shared: Node, version: ssl.TLSVersion
) -> None:
    first, second = shared.envoy.client("https"), shared.envoy.client("required")
    with pytest.raises(ssl.SSLError):
        resumes(first, second, version)


def test_tickets_can_be_switched_off(shared: Node) -> None:
    client = shared.envoy.client("ticketless")
    context = client.context(TLS13, verify=False)
    with client.connect(context) as connection:
        client.get(connection, "/hello")
        session = connection.session
    assert session is None or not session.has_ticket


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_load_of_resumed_sessions(shared: Node, tls: str) -> None:
    report = shared.envoy.client("https").load(count=200, concurrency=10, resume=True, get="/hello", tls=tls)
    assert report["failures"] == 0, report["failures_by_reason"]
    assert report["resumed"] == report["handshakes"] > 0
