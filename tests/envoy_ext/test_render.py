"""The renderer: what it gives is plain data, says what was asked, and is accepted by Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from envoy_ext import location, render
from envoy_ext.settings import FILTER_STATE_KEYS, SpiffeMatch, TlsSettings, UpstreamTlsSettings
from tests.envoy_ext.test_rejected_configs import Validator

HEADER = Path(__file__).resolve().parents[2] / "envoy_ext" / "module" / "config" / "filter_state.h"

EVERYTHING = TlsSettings(
    identities=("web", "shop"),
    daemon_socket=Path("/run/offload/offload.sock"),
    alpn=("h2", "http/1.1"),
    tls_minimum="1.2",
    tls_maximum="1.3",
    cipher_suites=("ECDHE-ECDSA-AES128-GCM-SHA256",),
    groups=("X25519MLKEM768", "X25519"),
    unknown_server_name="reject",
    operation_timeout_ms=500,
    handshake_wait_ms=0,
    session_tickets=True,
    session_lifetime_s=60,
    client_certificate="optional",
    trust_domains=("mesh.test", ""),
    peer_spiffe_ids=(SpiffeMatch("exact", "spiffe://mesh.test/a"), SpiffeMatch("prefix", "spiffe://mesh.test/ns")),
    publish=("peer_spiffe_id", "alpn"),
)


@pytest.fixture
def validator(envoy_binary: Path, tmp_path: Path) -> Validator:
    return Validator(envoy_binary, tmp_path)


def test_only_what_differs_from_the_default_is_rendered() -> None:
    settings = TlsSettings(identities=("web",), daemon_socket=Path("/d.sock"))
    assert settings.socket_config() == {"identities": ["web"], "daemon_socket": "/d.sock"}
    assert settings.filter_config() == {"daemon_socket": "/d.sock"}


def test_every_field_is_rendered() -> None:
    config = EVERYTHING.socket_config()
    assert config["handshake_wait_ms"] == 0
    assert config["trust_domains"] == ["mesh.test", ""]
    assert "publish" not in config
    assert config["peer_spiffe_ids"] == [{"exact": "spiffe://mesh.test/a"}, {"prefix": "spiffe://mesh.test/ns"}]
    assert EVERYTHING.filter_config()["publish"] == ["peer_spiffe_id", "alpn"]


def test_mistakes_are_refused_early() -> None:
    with pytest.raises(ValueError, match="identities: at least one"):
        TlsSettings(identities=())
    with pytest.raises(ValueError, match="publish: unknown key: weather"):
        TlsSettings(identities=("web",), publish=("weather",))
    with pytest.raises(ValueError, match="a client has exactly one"):
        UpstreamTlsSettings(identities=("web", "shop"), peer_dns_names=("prices.test",))
    with pytest.raises(ValueError, match="name the accepted servers"):
        UpstreamTlsSettings(identities=("web",))
    with pytest.raises(ValueError, match="is not a SPIFFE id"):
        SpiffeMatch("exact", "https://mesh.test/a")


def test_a_cluster_of_the_module(validator: Validator) -> None:
    tls = UpstreamTlsSettings(
        identities=("cart",),
        server_name="prices.test",
        peer_spiffe_ids=(SpiffeMatch("exact", "spiffe://mesh.test/prices"),),
        peer_dns_names=("prices.test",),
        sessions_kept=0,
    )
    cluster = render.cluster_of("prices", [render.socket_address("127.0.0.1", 1)], http2=True, tls=tls)
    value = cluster["transport_socket"]["typed_config"]["transport_socket_config"]["value"]
    assert value["alpn"] == ["h2"], "follows from the protocol"
    assert value["sessions_kept"] == 0
    accepted, said = validator.run(render.bootstrap([], [cluster]))
    assert accepted, said


def test_the_module_must_not_be_unloaded() -> None:
    assert render.module_config()["do_not_close"] is True


def test_the_companion_filter_is_first() -> None:
    chain = render.filter_chain(EVERYTHING, [render.tcp_proxy("upstream")])
    assert [entry["name"] for entry in chain["filters"]] == ["tls_offload", "envoy.filters.network.tcp_proxy"]


def test_server_names_need_the_inspector() -> None:
    plain = render.filter_chain(EVERYTHING, [render.tcp_proxy("upstream")])
    matching = render.filter_chain(EVERYTHING, [render.tcp_proxy("upstream")], match={"server_names": ["web.test"]})
    assert "listener_filters" not in render.listener("one", 1, [plain])
    assert render.listener("two", 2, [matching])["listener_filters"][0]["name"].endswith("tls_inspector")


def test_yaml_reads_back() -> None:
    config = render.bootstrap([render.http_listener("https", 443, EVERYTHING, [render.direct_response("ok")])])
    assert yaml.safe_load(render.to_yaml(config)) == config


def test_keys_of_filter_state_are_those_of_the_module() -> None:
    """One list is C++, one is Python: they must not drift apart."""
    text = HEADER.read_text()
    listed = text[text.index("kPublishable = {") : text.index("};", text.index("kPublishable = {"))]
    keys = tuple(line.split('"')[1] for line in listed.splitlines() if line.strip().startswith('"'))
    assert keys == FILTER_STATE_KEYS


@pytest.mark.envoy
@pytest.mark.parametrize("by_file", [False, True])
def test_envoy_accepts_everything(validator: Validator, by_file: bool) -> None:
    library = location.module_library() if by_file else None
    log = render.access_log("/dev/null", {"group": render.filter_state("group")})
    chain = render.filter_chain(
        EVERYTHING,
        [render.tcp_proxy("upstream", access_logs=[log])],
        library=library,
        match={"server_names": ["a.test"]},
    )
    routes = [render.direct_response("no", "/no", 404), render.route_to_cluster("upstream")]
    listeners = [
        render.listener("tcp", 10001, [chain], access_logs=[log]),
        render.http_listener("https", 10002, EVERYTHING, routes, library=library, access_logs=[log]),
    ]
    cluster = render.cluster("upstream", "127.0.0.1", 8080, http2=True)
    accepted, said = validator.run(render.bootstrap(listeners, [cluster], admin_port=0))
    assert accepted, said


@pytest.mark.envoy
def test_envoy_accepts_a_listeners_file(validator: Validator, tmp_path: Path) -> None:
    file = tmp_path / "listeners.yaml"
    listener = render.http_listener("https", 10003, EVERYTHING, [render.direct_response("ok")])
    file.write_text(render.to_yaml(render.listeners_document([listener])))
    accepted, said = validator.run(render.bootstrap([], listeners_file=file))
    assert accepted, said
