"""Bytes for Envoy: shared among proxies, versions by content, unknown messages as TypedStruct."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from google.protobuf import any_pb2, json_format, struct_pb2
from xds.type.v3 import typed_struct_pb2

from control.xds.encoding import encode
from envoy_ext import render, settings

CLUSTER = {"name": "a", "type": "STATIC", "connect_timeout": "5s"}


@pytest.mark.slow(seconds=5)
def test_equal_resources_are_one_object_and_go_with_the_last_user() -> None:
    first, second = encode.encode(encode.CLUSTER, "a", CLUSTER), encode.encode(encode.CLUSTER, "a", dict(CLUSTER))
    assert first is second
    other = encode.encode(encode.CLUSTER, "a", CLUSTER | {"connect_timeout": "6s"})
    assert other.version != first.version
    gc.collect()
    before = len(encode._shared)
    del first, second
    gc.collect()
    assert len(encode._shared) == before - 1


def test_a_field_that_does_not_exist_is_an_error_here() -> None:
    with pytest.raises(json_format.ParseError, match="no_such"):
        encode.encode(encode.CLUSTER, "a", CLUSTER | {"no_such": 1})


def test_messages_of_dynamic_modules_travel_as_typed_struct() -> None:
    socket = render.transport_socket(settings.TlsSettings(identities=("www",)))
    message = encode.to_message(encode.LISTENER, {"name": "l", "filter_chains": [{"transport_socket": socket}]})
    inner = typed_struct_pb2.TypedStruct()
    assert message.filter_chains[0].transport_socket.typed_config.Unpack(inner)
    assert inner.type_url == socket["typed_config"]["@type"]
    assert inner.value["transport_socket_config"]["@type"].endswith("google.protobuf.Struct")
    assert inner.value["transport_socket_config"]["value"]["identities"] == ["www"]


def test_known_messages_and_structs_stay_what_they_are() -> None:
    value = {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"@type": "x", "a": [1]}}
    assert encode.with_typed_structs([value])[0]["@type"] == value["@type"]
    packed = json_format.ParseDict(encode.with_typed_structs(value), any_pb2.Any())
    assert packed.Is(struct_pb2.Struct.DESCRIPTOR)


def backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: backwards(item) for key, item in reversed(value.items())}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def test_equal_configurations_are_equal_bytes() -> None:
    """Also those of the module, whose Structs lie in an Any: another process must not give them another version."""
    module = settings.TlsSettings(
        identities=("www",), alpn=("h2",), tls_minimum="1.3", trust_domains=("a", "b"), client_certificate="required"
    )
    chain: dict[str, Any] = {
        "transport_socket": render.transport_socket(module),
        "filters": [render.companion_filter(module)],
    }
    listener = {"name": "l", "filter_chains": [chain]}
    one, other = (encode.to_message(encode.LISTENER, config) for config in (listener, backwards(listener)))
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    options = {f"o{number}": socket for number, socket in enumerate([chain["transport_socket"]["typed_config"]] * 3)}
    cluster = {"name": "c", "typed_extension_protocol_options": options}
    one, other = (encode.to_message(encode.CLUSTER, config) for config in (cluster, backwards(cluster)))
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def test_versions_depend_on_content_and_type_but_not_on_order() -> None:
    a, b = (encode.encode(encode.CLUSTER, name, CLUSTER | {"name": name}) for name in "ab")
    assert encode.version_of(encode.CLUSTER, [a, b]) == encode.version_of(encode.CLUSTER, [b, a])
    versions = {
        encode.version_of(encode.CLUSTER, [a]),
        encode.version_of(encode.CLUSTER, [a, b]),
        encode.version_of(encode.CLUSTER, []),
        encode.version_of(encode.LISTENER, []),
    }
    assert len(versions) == 4
    assert "" not in versions
