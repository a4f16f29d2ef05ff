"""`offload envoy-config`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from envoy_ext.location import module_library
from offload.reporting import exit_codes
from tests.offload.cli.invoke import good, run


def test_envoy_config_is_a_whole_file_that_names_the_module_by_its_path() -> None:
    whole = yaml.safe_load(good(run("envoy-config", "-i", "www", "-i", "rsa", "--listen", "127.0.0.1:8443")))
    assert set(whole["static_resources"]) == {"listeners", "clusters"}
    assert "'identities': ['www', 'rsa']" in str(whole)
    assert str(module_library()) in str(whole)
    tcp = json.loads(good(run("envoy-config", "-i", "www", "--tcp", "-o", "json")))
    assert "tcp_proxy" in str(tcp)
    assert set(yaml.safe_load(good(run("envoy-config", "-i", "www", "--snippet")))) == {"listeners", "clusters"}


def test_envoy_config_of_a_module_elsewhere() -> None:
    named = good(run("envoy-config", "-i", "www", "--library", "/opt/offload/libtls_offload.so"))
    assert "filename: /opt/offload/libtls_offload.so" in named
    searched = good(run("envoy-config", "-i", "www", "--by-name"))
    assert "filename" not in searched
    assert "name: tls_offload" in searched
    both = run("envoy-config", "-i", "www", "--by-name", "--library", "/x.so")
    assert (both.exit_code, "mutually exclusive" in both.stderr) == (exit_codes.USAGE, True)


def test_module_path_needs_no_identity() -> None:
    folder = Path(good(run("envoy-config", "--module-path")).strip())
    assert (folder / "libtls_offload.so").is_file()
    assert (folder / "libnghttp2.so.14").is_file()


def test_envoy_config_takes_host_names() -> None:
    whole = yaml.safe_load(good(run("envoy-config", "-i", "www", "--upstream", "localhost:8080")))
    [cluster] = whole["static_resources"]["clusters"]
    assert (cluster["type"], cluster["dns_lookup_family"]) == ("STRICT_DNS", "V4_PREFERRED")
    upstream = ("envoy-config", "-i", "cart", "--connect-to", "prices.example:8443", "--peer", "prices.example")
    whole = yaml.safe_load(good(run(*upstream)))
    [cluster], [listener] = whole["static_resources"]["clusters"], whole["static_resources"]["listeners"]
    value = cluster["transport_socket"]["typed_config"]["transport_socket_config"]["value"]
    assert value["server_name"] == "prices.example"
    address = listener["address"]["socket_address"]
    assert address["address"] == "127.0.0.1", "what is sent out by our identity is only this host's to send"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--upstream", "localhost", "must be a host and a port"),
        ("--upstream", "localhost:99999", "has port 99999"),
        ("--upstream", "300.1.2.3:80", "must be a host and a port"),
        ("--upstream", "a b:80", "must be a host and a port"),
        ("--connect-to", "prices", "must be a host and a port"),
        ("--listen", "localhost:8443", "--listen must be an IP address and a port"),
    ],
)
def test_envoy_config_of_an_address_that_is_none(option: str, value: str, message: str) -> None:
    result = run("envoy-config", "-i", "www", option, value)
    assert result.exit_code == exit_codes.USAGE
    assert f"{option} " in result.stderr
    assert message in result.stderr


def test_envoy_config_of_a_cluster() -> None:
    of_cluster = ("envoy-config", "-i", "cart", "--connect-to", "10.0.0.7:8443")
    prices = "spiffe://mesh.example/ns/shop/sa/prices"
    snippet = yaml.safe_load(good(run(*of_cluster, "--snippet", "--peer", prices, "--peer", "prices.example")))
    assert set(snippet) == {"clusters"}
    value = snippet["clusters"][0]["transport_socket"]["typed_config"]["transport_socket_config"]["value"]
    assert value["peer_spiffe_ids"] == [{"exact": prices}]
    assert value["peer_dns_names"] == ["prices.example"]
    result = run(*of_cluster)
    assert result.exit_code == exit_codes.USAGE
    assert "name the accepted servers" in result.stderr
    result = run("envoy-config", "-i", "cart", "--peer", prices)
    assert result.exit_code == exit_codes.USAGE
    assert "--peer requires --connect-to" in result.stderr


def test_envoy_config_that_knows_its_clients() -> None:
    cart = "spiffe://mesh.example/ns/shop/sa/cart"
    known = ("envoy-config", "-i", "prices", "--client-certificate", "required")
    listener = yaml.safe_load(good(run(*known, "--snippet", "--peer", cart)))["listeners"][0]
    chain = listener["filter_chains"][0]
    value = chain["transport_socket"]["typed_config"]["transport_socket_config"]["value"]
    assert value["client_certificate"] == "required"
    assert value["peer_spiffe_ids"] == [{"exact": cart}]
    route = chain["filters"][1]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"][0]
    assert route["request_headers_to_remove"] == ["x-forwarded-client-cert"]
    assert route["request_headers_to_add"][0]["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"
    result = run(*known, "--peer", "cart.example")
    assert result.exit_code == exit_codes.USAGE
    assert "is not a SPIFFE id" in result.stderr


@pytest.mark.envoy
def test_envoy_takes_the_config(tmp_path: Path, envoy_binary: Path) -> None:
    cluster = ["--connect-to", "10.0.0.7:8443", "--peer", "spiffe://mesh.example/prices"]
    sets: list[list[str]] = [
        [],
        ["--tcp"],
        ["--upstream", "localhost:8080"],
        ["--connect-to", "prices.example:8443", "--peer", "prices.example"],
        ["--http2-upstream", "--client-certificate", "optional"],
        ["--client-certificate", "required", "--peer", "spiffe://mesh.example/cart"],
        cluster,
        [*cluster, "--http2-upstream"],
        [*cluster, "--tcp"],
    ]
    for number, more in enumerate(sets):
        config = tmp_path / f"{number}.yaml"
        options = ["-i", "www", "--socket", str(tmp_path / "x.sock"), *more]
        config.write_text(good(run("envoy-config", *options)))
        checked = subprocess.run(
            [str(envoy_binary), "--mode", "validate", "-c", str(config)], capture_output=True, timeout=60, check=False
        )
        assert checked.returncode == 0, checked.stderr[-2000:]
