"""Pure functions that render who may call, and what the server is told about its caller, from facts of the handshake.

The module publishes the verified peer as filter state (docs/reference/filter-state.md); Envoy's own `authenticated`
principals and `forward_client_cert_details` see nothing, since to Envoy the connection has no certificate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from envoy_ext.render import Config, filter_state
from envoy_ext.settings import FILTER_STATE_PREFIX, SpiffeMatch

_RBAC = "envoy.extensions.filters.{}.rbac.v3.RBAC"
_TYPES = "type.googleapis.com/"
XFCC = "x-forwarded-client-cert"


def principal(match: SpiffeMatch) -> Config:
    """An RBAC principal: the peer has this SPIFFE id, or one below this prefix (which ends at a path segment)."""
    if match.kind == "exact":
        return _peer({"exact": match.value})
    if match.value.endswith("/"):
        return _peer({"prefix": match.value})
    return {"or_ids": {"ids": [_peer({"exact": match.value}), _peer({"prefix": match.value + "/"})]}}


def _peer(string_match: Config) -> Config:
    return {"filter_state": {"key": FILTER_STATE_PREFIX + "peer_spiffe_id", "string_match": string_match}}


def rbac_rules(allowed: Mapping[str, Sequence[SpiffeMatch]]) -> Config:
    """Rules that allow the named groups of callers and nobody else; with no groups, nobody."""
    return {
        "action": "ALLOW",
        "policies": {
            name: {"permissions": [{"any": True}], "principals": [principal(match) for match in matches]}
            for name, matches in allowed.items()
            if matches
        },
    }


def rbac_filter(layer: Literal["http", "network"], allowed: Mapping[str, Sequence[SpiffeMatch]]) -> Config:
    """The RBAC filter for HTTP requests (403), or for connections (closed), which follows the companion filter.

    Envoy evaluates the one for connections when the client's first bytes arrive. Until then a server that speaks first
    is heard by anybody with a valid certificate: for those protocols, and wherever the peer alone decides,
    `peer_spiffe_ids` of the transport socket is the better place, as it rejects during the handshake.
    """
    config: dict[str, Any] = {"@type": _TYPES + _RBAC.format(layer), "rules": rbac_rules(allowed)}
    if layer == "network":
        config["stat_prefix"] = "tls_offload."
    return {"name": f"envoy.filters.{layer}.rbac", "typed_config": config}


def xfcc_header() -> Config:
    """An entry of `request_headers_to_add`: x-forwarded-client-cert of the verified peer, in place of a forged one.

    In Envoy's own form: By (our SPIFFE id), Hash and URI (the peer's SPIFFE id), as far as they are known. Without a
    client certificate there is no value, and then Envoy adds no header: see `forwarded_client_cert`.
    """
    header = {"key": XFCC, "value": filter_state("xfcc")}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def forwarded_client_cert() -> Config:
    """Fields for a route, a virtual host or a route configuration: `xfcc_header`, and no header if there is no peer.

    Envoy removes before it adds, so a client's own header never gets through, whatever the connection manager forwards.
    """
    return {"request_headers_to_add": [xfcc_header()], "request_headers_to_remove": [XFCC]}
