"""Configurations that Envoy must refuse, with the reason in its log; and what the reason says."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envoy_ext import location, render
from envoy_ext.settings import SpiffeMatch, TlsSettings, UpstreamTlsSettings

pytestmark = pytest.mark.envoy

TLS = TlsSettings(identities=("web",))


@dataclass(frozen=True)
class Validator:
    """`envoy --mode validate`."""

    binary: Path
    folder: Path

    def run(self, config: render.Config) -> tuple[bool, str]:
        """Whether Envoy accepts it, and all it says."""
        file = self.folder / "envoy.json"
        file.write_text(json.dumps(config))
        done = subprocess.run(
            [self.binary, "--mode", "validate", "-c", file],
            env={**os.environ, location.SEARCH_PATH_VARIABLE: str(location.module_directory())},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def validator(envoy_binary: Path, tmp_path: Path) -> Validator:
    return Validator(envoy_binary, tmp_path)


def with_fields(
    socket: Mapping[str, Any] | None = None, companion: Mapping[str, Any] | None = None, remove: str = ""
) -> render.Config:
    """A good configuration with these fields of the transport socket or of the companion filter changed."""
    chain = render.filter_chain(TLS, [render.http_connection_manager([render.direct_response("ok")])])
    tls = chain["transport_socket"]["typed_config"]["transport_socket_config"]["value"]
    tls.update(socket or {})
    tls.pop(remove, None)
    chain["filters"][0]["typed_config"]["filter_config"]["value"].update(companion or {})
    return render.bootstrap([render.listener("https", 10000, [chain], host="127.0.0.1")])


def test_the_good_one_is_accepted(validator: Validator) -> None:
    accepted, said = validator.run(with_fields())
    assert accepted, said


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"idenitties": ["web"]}, "unknown field 'idenitties'"),
        ({"identities": []}, "identities: must be a list of 1 to 64 different strings"),
        ({"identities": "web"}, "identities: must be a list"),
        ({"identities": ["web", "web"]}, "different strings"),
        ({"identities": [""]}, "identities: a name is empty"),
        ({"identities": [7]}, "identities: must be a list"),
        ({"daemon_socket": "relative.sock"}, "daemon_socket: must be an absolute path"),
        ({"daemon_socket": "/" + "x" * 108}, "daemon_socket: must be an absolute path of at most 107 bytes"),
        ({"daemon_socket": 5}, "daemon_socket: must be a non-empty string"),
        ({"daemon_socket": ""}, "daemon_socket: must be a non-empty string"),
        ({"tls_minimum": "1.1"}, 'tls_minimum: must be one of "1.2", "1.3"'),
        ({"tls_maximum": 1.3}, 'tls_maximum: must be one of "1.2", "1.3"'),
        ({"tls_minimum": "1.3", "tls_maximum": "1.2"}, "tls_minimum: is above tls_maximum"),
        ({"alpn": ["x" * 256]}, "alpn: must be a list of 0 to 16 different strings of at most 255 bytes"),
        ({"alpn": [""]}, "alpn: a protocol name is empty"),
        ({"cipher_suites": ["NO-SUCH-SUITE"]}, "cipher_suites: BoringSSL does not know 'NO-SUCH-SUITE'"),
        ({"cipher_suites": ["ALL:-ALL"]}, "cipher_suites: BoringSSL does not know 'ALL:-ALL'"),
        ({"groups": ["P-1"]}, "groups: BoringSSL does not know 'P-1'"),
        ({"unknown_server_name": "ask"}, 'unknown_server_name: must be one of "first", "reject"'),
        ({"operation_timeout_ms": 0}, "operation_timeout_ms: must be a whole number from 1 to 60000, is 0"),
        ({"operation_timeout_ms": 1.5}, "operation_timeout_ms: must be a whole number"),
        ({"operation_timeout_ms": "100"}, "operation_timeout_ms: must be a whole number"),
        ({"handshake_wait_ms": 60001}, "handshake_wait_ms: must be a whole number from 0 to 60000"),
        ({"session_tickets": "yes"}, "session_tickets: must be true or false"),
        ({"session_lifetime_s": 604801}, "session_lifetime_s: must be a whole number from 1 to 604800"),
        ({"client_certificate": "always"}, 'client_certificate: must be one of "off", "optional", "required"'),
        (
            {"trusted_ca_file": "/tmp/ca.pem"},
            "trusted_ca_file, crl_file, trust_domains and peer_spiffe_ids would have no effect",
        ),
        ({"client_certificate": "required", "trusted_ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem cannot be opened"),
        (
            {"client_certificate": "required", "trusted_ca_file": "/etc/hostname"},
            "/etc/hostname: certificate 1 is missing or malformed",
        ),
        ({"client_certificate": "required", "crl_file": "/nowhere/crl"}, "crl_file: /nowhere/crl cannot be opened"),
        (
            {"client_certificate": "required", "crl_file": "/etc/hostname"},
            "crl_file: /etc/hostname: revocation list 1 is missing or malformed",
        ),
        ({"clock_skew_s": 3601}, "clock_skew_s: must be a whole number from 0 to 3600"),
        (
            {"client_certificate": "optional", "trusted_ca_file": "/a", "trust_domains": ["b"]},
            "trusted_ca_file: excludes trust_domains",
        ),
    ],
)
def test_the_transport_socket_refuses(validator: Validator, fields: Mapping[str, Any], reason: str) -> None:
    accepted, said = validator.run(with_fields(fields))
    assert not accepted
    assert "tls_offload: transport socket configuration rejected: " in said
    assert reason in said, said


@pytest.mark.parametrize("field", ["daemon_socket", "identities"])
def test_required_fields(validator: Validator, field: str) -> None:
    accepted, said = validator.run(with_fields(remove=field))
    assert not accepted
    assert f"{field}: is missing" in said


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"publish": ["weather"]}, "publish: unknown key 'weather'"),
        ({"identities": ["web"]}, "unknown field 'identities'"),
        ({"daemon_socket": "x"}, "daemon_socket: must be an absolute path"),
    ],
)
def test_the_companion_filter_refuses(validator: Validator, fields: Mapping[str, Any], reason: str) -> None:
    accepted, said = validator.run(with_fields(companion=fields))
    assert not accepted
    assert f"tls_offload: network filter configuration rejected: {reason}" in said, said


def test_a_configuration_that_is_no_struct(validator: Validator) -> None:
    config = with_fields()
    socket = config["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]["typed_config"]
    socket["transport_socket_config"] = {
        "@type": "type.googleapis.com/google.protobuf.StringValue",
        "value": "nonsense",
    }
    accepted, said = validator.run(config)
    assert not accepted
    assert "the configuration is not a JSON object" in said


def test_another_socket_name(validator: Validator) -> None:
    config = with_fields()
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    chain["transport_socket"]["typed_config"]["transport_socket_name"] = "something"
    accepted, said = validator.run(config)
    assert not accepted
    assert "transport_socket_name must be 'tls_offload'" in said


UPSTREAM = UpstreamTlsSettings(identities=("cart",), peer_spiffe_ids=(SpiffeMatch("prefix", "spiffe://mesh.test/"),))


def with_upstream_fields(fields: Mapping[str, Any]) -> render.Config:
    cluster = render.cluster("prices", "127.0.0.1", 1, http2=True, tls=UPSTREAM)
    cluster["transport_socket"]["typed_config"]["transport_socket_config"]["value"].update(fields)
    return render.bootstrap([], [cluster])


def test_a_good_cluster_is_accepted(validator: Validator) -> None:
    accepted, said = validator.run(with_upstream_fields({}))
    assert accepted, said


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"identities": ["cart", "web"]}, "identities: must be a list of 1 to 1 different strings"),
        ({"peer_spiffe_ids": []}, "peer_spiffe_ids: is missing: name the accepted peers"),
        ({"peer_spiffe_ids": ["prices"]}, 'peer_spiffe_ids: must be a list of at most 256 of {"exact"'),
        ({"peer_spiffe_ids": [{"exact": "prices"}]}, 'peer_spiffe_ids: "prices" does not begin with spiffe://'),
        ({"peer_spiffe_ids": [{"exact": "spiffe://a"}]}, 'peer_spiffe_ids: "spiffe://a" has no path'),
        ({"peer_spiffe_ids": [{"prefix": "spiffe://A/b"}]}, "has an invalid character in its trust domain"),
        ({"peer_spiffe_ids": [{"prefix": "spiffe://a/b//"}]}, "has an empty path segment"),
        ({"peer_spiffe_ids": [{"suffix": "spiffe://mesh.test/a"}]}, "peer_spiffe_ids: must be a list"),
        ({"peer_spiffe_ids": [{"prefix": "spiffe:///a"}]}, 'peer_spiffe_ids: "spiffe:///a" has no trust domain'),
        ({"peer_spiffe_ids": ["spiffe://mesh.test/a"]}, "peer_spiffe_ids: must be a list"),
        ({"peer_dns_names": [""]}, "peer_dns_names: a name is empty"),
        ({"server_name": "x" * 256}, "server_name: is longer than 255 bytes"),
        ({"sessions_kept": 1025}, "sessions_kept: must be a whole number from 0 to 1024"),
        ({"client_certificate": "required"}, "unknown field 'client_certificate'"),
        ({"unknown_server_name": "first"}, "unknown field 'unknown_server_name'"),
    ],
)
def test_the_upstream_socket_refuses(validator: Validator, fields: Mapping[str, Any], reason: str) -> None:
    accepted, said = validator.run(with_upstream_fields(fields))
    assert not accepted
    assert "tls_offload: transport socket configuration rejected: " in said
    assert reason in said, said
