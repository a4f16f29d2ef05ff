"""MeshTrafficPermission as Envoy's RBAC filter: denials first, then permissions, then everything else is denied.

There is one matcher, in which the first hit decides; so a denial wins over every permission, whichever policy has it.

A caller is one SPIFFE id. Envoy's own TLS accepts certificates with several URIs, and its matcher sees them as one text
with commas, which no exact denial matches: they are rejected here, as they are by the module (spiffe_id.cc).

For HTTP the rules are in the routes and not in the listener: an open connection keeps the filters that its listener
had when it was accepted, but each request uses the routes of that moment. So a revoked permission ends with the
proxy's acknowledgement, and nothing has to be drained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from control.model.target_ref import EVERYONE, Match
from control.policies.matching import Entry
from control.policies.meshtrafficpermission.schema import RuleConf
from envoy_ext.render import Config

# Where the verified SPIFFE id of the caller is found: in the certificate that Envoy's own TLS has checked, or in filter
# state that the module's companion filter has set.
PeerSource = Literal["uri_san", "filter_state"]

PEER_FILTER_STATE = "tls_offload.peer_spiffe_id"

_TYPES = "type.googleapis.com/"
_HTTP = "envoy.extensions.filters.http.rbac.v3"
_HTTP_NAME = "envoy.filters.http.rbac"
_INPUTS: dict[PeerSource, Config] = {
    "uri_san": {
        "name": "envoy.matching.inputs.uri_san",
        "typed_config": {"@type": _TYPES + "envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput"},
    },
    "filter_state": {
        "name": "envoy.matching.inputs.filter_state",
        "typed_config": {
            "@type": _TYPES + "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput",
            "key": PEER_FILTER_STATE,
        },
    },
}

# A workload's id, as the module reads them (spiffe_id.cc): no empty segment, and none of one or two dots.
_ONE_ID = r"spiffe://[a-z0-9._-]+(/(\.?\.?[A-Za-z0-9_-]|\.\.\.)[A-Za-z0-9._-]*)+"


def http_filter() -> Config:
    """For HTTP inbounds: the caller gets a 403. By itself it denies everybody; the rules come with the routes."""
    return {"name": _HTTP_NAME, "typed_config": {"@type": f"{_TYPES}{_HTTP}.RBAC", "matcher": _with_default([])}}


def of_routes(entries: Sequence[Entry], peer: PeerSource) -> Config:
    """typed_per_filter_config of routes behind `http_filter`."""
    rules = {"matcher": _matcher(entries, peer), **_shadow(entries, peer)}
    return {_HTTP_NAME: {"@type": f"{_TYPES}{_HTTP}.RBACPerRoute", "rbac": rules}}


def only(spiffe_id: str, peer: PeerSource, name: str) -> Config:
    """For HTTP that no policy governs: allows one caller, and nobody else."""
    predicate = _single(peer, {"exact": spiffe_id})
    matcher = _with_default([{"predicate": predicate, "on_match": _action("ALLOW", name)}])
    return {"name": _HTTP_NAME, "typed_config": {"@type": f"{_TYPES}{_HTTP}.RBAC", "matcher": matcher}}


def network_filter(entries: Sequence[Entry], peer: PeerSource, stat_prefix: str) -> Config:
    """For all other inbounds: a denied connection is closed."""
    config = {
        "@type": f"{_TYPES}envoy.extensions.filters.network.rbac.v3.RBAC",
        "stat_prefix": f"{stat_prefix}.",
        "matcher": _matcher(entries, peer),
        **_shadow(entries, peer),
    }
    return {"name": "envoy.filters.network.rbac", "typed_config": config}


def _matcher(entries: Sequence[Entry], peer: PeerSource) -> Config:
    rules = [(entry, _conf(entry)) for entry in entries]
    matchers = _not_one_id(peer) + [_field_matcher(c.deny, "DENY", e, peer) for e, c in rules if c.deny]
    for entry, conf in rules:
        allowed = [*(conf.allow or ()), *(conf.allow_with_shadow_deny or ())]
        if allowed:
            matchers.append(_field_matcher(allowed, "ALLOW", entry, peer))
    return _with_default(matchers)


def _shadow(entries: Sequence[Entry], peer: PeerSource) -> Config:
    """Denies what is only allowed for the time being; everything else counts as it is treated."""
    rules = [(entry, _conf(entry)) for entry in entries]
    if not any(conf.allow_with_shadow_deny for _, conf in rules):
        return {}
    matchers = _not_one_id(peer) + [
        _field_matcher(matches, "DENY", entry, peer)
        for entry, conf in rules
        if (matches := [*(conf.deny or ()), *(conf.allow_with_shadow_deny or ())])
    ]
    matchers += [_field_matcher(conf.allow, "ALLOW", entry, peer) for entry, conf in rules if conf.allow]
    return {"shadow_matcher": _with_default(matchers)}


def _conf(entry: Entry) -> RuleConf:
    assert isinstance(entry.conf, RuleConf)
    return entry.conf


def _with_default(matchers: list[Config]) -> Config:
    no_match = {"on_no_match": _action("DENY", "default")}
    return {"matcher_list": {"matchers": matchers}, **no_match} if matchers else no_match


def _not_one_id(peer: PeerSource) -> list[Config]:
    """Denies a caller with several ids; empty for the module, which ends such handshakes itself."""
    if peer == "filter_state":
        return []
    one_id = _single(peer, {"safe_regex": {"google_re2": {}, "regex": _ONE_ID}})
    return [{"predicate": {"not_matcher": one_id}, "on_match": _action("DENY", "not one SPIFFE id")}]


def _single(peer: PeerSource, value_match: Config) -> Config:
    return {"single_predicate": {"input": _INPUTS[peer], "value_match": value_match}}


def _field_matcher(matches: Iterable[Match], action: str, entry: Entry, peer: PeerSource) -> Config:
    predicates = [_single(peer, found) for match in matches for found in _string_matches(match)]
    predicate = predicates[0] if len(predicates) == 1 else {"or_matcher": {"predicate": predicates}}
    return {"predicate": predicate, "on_match": _action(action, f"{entry.origin}/rules[{entry.index}]")}


def _action(action: str, name: str) -> Config:
    message = {"@type": _TYPES + "envoy.config.rbac.v3.Action", "name": name, "action": action}
    return {"action": {"name": "envoy.filters.rbac.action", "typed_config": message}}


def _string_matches(match: Match) -> list[Config]:
    """Alternatives, any of which may match. A prefix ends at a path segment, as in the module (spiffe_match.cc)."""
    value = match.spiffe_id.value
    if match.spiffe_id.type == "Exact":
        return [{"exact": value}]
    if value == EVERYONE or value.endswith("/"):
        return [{"prefix": value}]
    below = {"prefix": value + "/"}
    # A trust domain without a path is not a valid caller.
    is_domain = "/" not in value.removeprefix("spiffe://")
    return [below] if is_domain else [{"exact": value}, below]


def decide(entries: Sequence[Entry], spiffe_id: str) -> tuple[bool, str]:
    """What the filter does with a caller, and the rule that decides: for `mesh inspect`, which explains denials."""
    for action, fields in ((False, ("deny",)), (True, ("allow", "allow_with_shadow_deny"))):
        for entry in entries:
            matches = [m for field in fields for m in getattr(entry.conf, field) or ()]
            if any(_matches(match, spiffe_id) for match in matches):
                return action, f"{entry.origin}/rules[{entry.index}]"
    return False, "no rule matches: the default is deny"


def _matches(match: Match, spiffe_id: str) -> bool:
    return any(
        spiffe_id == wanted["exact"] if "exact" in wanted else spiffe_id.startswith(wanted["prefix"])
        for wanted in _string_matches(match)
    )
