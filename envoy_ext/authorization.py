"""Pure functions that render who may call and what the called is told of its caller, from the facts of the handshake.

The module publishes the verified peer as filter state (docs/envoy.md); Envoy's own `authenticated` principals and
`forward_client_cert_details` see nothing, since to Envoy the connection has no certificate.
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
    """An RBAC principal: the peer has this SPIFFE id, or one below this prefix (which ends where a segment does)."""
    if match.kind == "exact":
        return _peer({"exact": match.value})
    if match.value.endswith("/"):
        return _peer({"prefix": match.value})
    return {"or_ids": {"ids": [_peer({"exact": match.value}), _peer({"prefix": match.value + "/"})]}}


def _peer(string_match: Config) -> Config:
    return {"filter_state": {"key": FILTER_STATE_PREFIX + "peer_spiffe_id", "string_match": string_match}}


def rbac_rules(allowed: Mapping[str, Sequence[SpiffeMatch]]) -> Config:
    """Rules that let the named groups of callers in and nobody else; with none, nobody."""
    return {
        "action": "ALLOW",
        "policies": {
            name: {"permissions": [{"any": True}], "principals": [principal(match) for match in matches]}
            for name, matches in allowed.items()
            if matches
        },
    }


def rbac_filter(layer: Literal["http", "network"], allowed: Mapping[str, Sequence[SpiffeMatch]]) -> Config:
    """The RBAC filter for HTTP requests (403), or for connections (closed), which goes behind the companion filter."""
    config: dict[str, Any] = {"@type": _TYPES + _RBAC.format(layer), "rules": rbac_rules(allowed)}
    if layer == "network":
        config["stat_prefix"] = "tls_offload."
    return {"name": f"envoy.filters.{layer}.rbac", "typed_config": config}


def xfcc_header(by: str | None = None) -> Config:
    """An entry of `request_headers_to_add`: x-forwarded-client-cert of the verified peer, in place of a forged one.

    `by` is our own SPIFFE id. Set on routes or hosts whose listeners require client certificates: without a peer,
    the values are "-".
    """
    own = f"By={by};" if by else ""
    value = f"{own}Hash={filter_state('peer_sha256')};URI={filter_state('peer_spiffe_id')}"
    return {"header": {"key": XFCC, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
