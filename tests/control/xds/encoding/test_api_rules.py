"""The rules of Envoy's API: all of them are evaluated, what is generated keeps them, and Envoy says the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2, health_check_pb2, socket_option_pb2
from envoy.config.route.v3 import route_components_pb2
from google.protobuf import any_pb2, duration_pb2, message_factory, struct_pb2

from control.kinds import KINDS
from control.mesh.view import MeshView
from control.model.resource import Resource
from control.model.target_ref import OutboundTargetRef
from control.model.violation import InvalidResource
from control.policies.meshhealthcheck.schema import Conf, HttpHealthCheck, Spec, To
from control.xds import rehearsal
from control.xds.encoding import api_rules, encode
from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from tests.control.policies.test_scenarios import NAMES, config_of, text_of


def messages() -> Iterator[Any]:
    """Every message of Envoy that this process knows."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("envoy.") and hasattr(module, "DESCRIPTOR"):
            waiting = list(module.DESCRIPTOR.message_types_by_name.values())
            while waiting:
                descriptor = waiting.pop()
                waiting += descriptor.nested_types
                if not descriptor.GetOptions().map_entry:
                    yield message_factory.GetMessageClass(descriptor)


def test_every_rule_of_every_message_is_known() -> None:
    compiled = [api_rules._compiled(kind) for kind in messages()]
    assert sum(map(len, compiled)) > 500


@pytest.mark.parametrize("name", NAMES)
def test_what_is_generated_keeps_them(name: str, scenario: Callable[[str], MeshView]) -> None:
    config = config_of(scenario(text_of(name)))
    parts = {CLUSTER: config.clusters, LISTENER: config.listeners, ROUTES: config.routes, ENDPOINTS: config.endpoints}
    for type_url, configs in parts.items():
        for one, data in configs.items():
            assert encode.encode(type_url, one, data).broken == ()


def header(key: str, value: str) -> Any:
    return base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=key, value=value))


CHECK = {"path": "/"}
_ACTIONS = "route, redirect, direct_response, filter_action, non_forwarding_action"
BROKEN: list[tuple[Any, list[str]]] = [
    (
        route_components_pb2.VirtualHost(),
        ["name: must have at least 1 characters; is ''", "domains: needs at least 1; there are 0"],
    ),
    (
        route_components_pb2.VirtualHost(name="a", domains=["*"], routes=[{}]),
        [f"routes[0]: needs one of {_ACTIONS}", "routes[0].match: is required"],
    ),
    (
        route_components_pb2.RouteMatch(path_separated_prefix="/a?"),
        ["path_separated_prefix: does not match ^[^?#]+[^?#/]$: '/a?'"],
    ),
    (
        health_check_pb2.HealthCheck.HttpHealthCheck(request_headers_to_add=[header("a", "b\r\nc")], **CHECK),
        ["request_headers_to_add[0].header.value: is not a header's value: 'b\\r\\nc'"],
    ),
    (
        health_check_pb2.HealthCheck.HttpHealthCheck(request_headers_to_add=[header("", "")], **CHECK),
        ["request_headers_to_add[0].header.key: must have at least 1 characters; is ''"],
    ),
    (
        health_check_pb2.HealthCheck.HttpHealthCheck(path="/", request_headers_to_remove=["a\n"]),
        ["request_headers_to_remove[0]: is not a header's name: 'a\\n'"],
    ),
    (health_check_pb2.HealthCheck.Payload(text=""), ["text: must have at least 1 characters; is ''"]),
    (socket_option_pb2.SocketOption(state=7), ["needs one of int_value, buf_value", "state: cannot be 7"]),
]


@pytest.mark.parametrize(("message", "says"), BROKEN)
def test_what_breaks_them(message: Any, says: list[str]) -> None:
    assert api_rules.problems(message) == says
    # And the same inside of an Any, which is looked into.
    packed = any_pb2.Any()
    packed.Pack(message)
    assert api_rules.problems(packed) == says


def test_durations_and_numbers() -> None:
    check = health_check_pb2.HealthCheck(
        timeout=duration_pb2.Duration(), interval=duration_pb2.Duration(seconds=1), tcp_health_check={}
    )
    check.healthy_threshold.value = check.unhealthy_threshold.value = 1
    assert api_rules.problems(check) == ["timeout: must be above 0; is 0"]


def test_what_is_not_known_is_not_looked_into() -> None:
    assert api_rules.problems(any_pb2.Any(type_url="type.googleapis.com/no.such.Message", value=b"\xff")) == []
    assert api_rules.problems(struct_pb2.Struct(fields={"a": struct_pb2.Value(string_value="b")})) == []


def http(route: dict[str, Any]) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions.filters."
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": types + "http.router.v3.Router"}}
    host = {"name": "a", "domains": ["*"], "routes": [route]}
    manager = {
        "@type": types + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "a",
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [router],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [chain],
    }


def envoy_takes(envoy_binary: Path, folder: Path, listener: dict[str, Any]) -> bool:
    path = folder / "c.json"
    path.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    command = [str(envoy_binary), "--mode", "validate", "-c", str(path), "--log-level", "error"]
    command += ["--base-id-path", "/dev/null"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).returncode == 0


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("route", "good"),
    [
        ({"match": {"path_separated_prefix": "/ab"}, "direct_response": {"status": 200}}, True),
        ({"match": {"path_separated_prefix": "/a?"}, "direct_response": {"status": 200}}, False),
        ({"match": {"prefix": "/"}, "direct_response": {"status": 99}}, False),
        ({"match": {"prefix": "/"}}, False),
        ({"match": {"safe_regex": {"regex": ""}}, "direct_response": {"status": 200}}, False),
        ({"match": {"prefix": "/", "headers": [{"name": "a b"}]}, "direct_response": {"status": 200}}, True),
        ({"match": {"prefix": "/", "headers": [{"name": "a\n"}]}, "direct_response": {"status": 200}}, False),
    ],
)
def test_envoy_says_the_same(route: dict[str, Any], good: bool, envoy_binary: Path, tmp_path: Path) -> None:
    listener = http(route)
    assert (encode.encode(LISTENER, "l", listener).broken == ()) == good
    assert envoy_takes(envoy_binary, tmp_path, listener) == good


def test_a_policy_is_rehearsed() -> None:
    kind = KINDS.of_type("MeshHealthCheck")
    assert kind is not None
    bad = HttpHealthCheck.model_construct(path="/a\r\nb")
    to = To.model_construct(target_ref=OutboundTargetRef(kind="Mesh"), default=Conf.model_construct(http=bad))
    policy = Resource(kind, "default", "a", Spec.model_construct(to=[to]))
    with pytest.raises(
        InvalidResource, match=r"MeshHealthCheck a .*\n.*Envoy would reject the cluster generated from it: .*path"
    ):
        rehearsal.check(policy)
