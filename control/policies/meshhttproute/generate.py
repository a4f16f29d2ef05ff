"""MeshHTTPRoute as the routes of a virtual host, in the order of the Gateway API: the more specific match first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from control.model import regex
from control.model.target_ref import BackendRef
from control.policies.matching import Entry, merge_patch
from control.policies.meshhttproute.schema import (
    Filter,
    HeaderMatch,
    HeaderModifier,
    Match,
    PathRewrite,
    QueryParamsMatch,
    RequestRedirect,
    Rule,
    RuleConf,
    URLRewrite,
)
from envoy_ext.render import Config

# Returns the name of the cluster that a backendRef refers to, or None if it refers to nothing that exists.
Resolve = Callable[[BackendRef], str | None]

_PATH_ORDER = {"Exact": 0, "PathPrefix": 1, "RegularExpression": 2}
_REDIRECT_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


@dataclass(frozen=True)
class Destination:
    """Where requests go unless a rule sends them elsewhere, and what every route of the host has."""

    cluster: str
    hash_policies: Sequence[Config] = ()


def merged_rules(entries: Sequence[Entry]) -> list[Rule]:
    """Merges rules with the same matches, in the place of the stronger one (Kuma's mergeValuesByKey)."""
    rules: dict[str, tuple[list[Match], dict[str, Any]]] = {}
    for entry in reversed(entries):
        for rule in entry.conf.rules:
            key = repr(rule.to_data()["matches"])
            stronger = rules[key][1] if key in rules else {}
            rules[key] = (rule.matches, merge_patch(rule.default.to_data(), stronger))
    return [Rule(matches=matches, default=RuleConf.model_validate(conf)) for matches, conf in rules.values()]


def routes(entries: Sequence[Entry], destination: Destination, resolve: Resolve) -> list[Config]:
    """All routes of the service; the last handles what no match caught."""
    found = [(match, rule.default) for rule in merged_rules(entries) for match in rule.matches]
    found.sort(key=lambda pair: _specificity(pair[0]))
    result = [_route(match, conf, destination, resolve) for match, conf in found]
    if not any(_is_catch_all(match) for match, _ in found):
        result.append({"match": {"prefix": "/"}, "route": _forward([(destination.cluster, 1)], destination)})
    return result


def _is_catch_all(match: Match) -> bool:
    anywhere = match.path is None or (match.path.type == "PathPrefix" and match.path.value == "/")
    return anywhere and not (match.method or match.headers or match.query_params)


def _specificity(match: Match) -> tuple[int, int, int, int, int]:
    path = match.path
    order = 3 if path is None else _PATH_ORDER[path.type]
    length = 0 if path is None or path.type == "Exact" else -len(path.value)
    return (order, length, int(match.method is None), -len(match.headers or ()), -len(match.query_params or ()))


# --- matches ----------------------------------------------------------------------------------------------------------


def _path(match: Match) -> Config:
    path = match.path
    if path is None or (path.type == "PathPrefix" and path.value == "/"):
        return {"prefix": "/"}
    if path.type == "Exact":
        return {"path": path.value}
    if path.type == "RegularExpression":
        return {"safe_regex": {"regex": path.value}}
    return {"path_separated_prefix": path.value}


def _match(match: Match) -> Config:
    result = _path(match)
    headers = [_header(header) for header in match.headers or ()]
    if match.method is not None:
        headers.append({"name": ":method", "string_match": {"exact": match.method}})
    if headers:
        result["headers"] = headers
    if match.query_params:
        result["query_parameters"] = [_query(parameter) for parameter in match.query_params]
    return result


def _header(match: HeaderMatch) -> Config:
    forms: dict[str, Config] = {
        "Exact": {"string_match": {"exact": match.value}},
        "Prefix": {"string_match": {"prefix": match.value}},
        "RegularExpression": {"string_match": {"safe_regex": {"regex": match.value}}},
        "Present": {"present_match": True},
        "Absent": {"present_match": True, "invert_match": True},
    }
    return {"name": match.name, **forms[match.type]}


def _query(match: QueryParamsMatch) -> Config:
    form = {"exact": match.value} if match.type == "Exact" else {"safe_regex": {"regex": match.value}}
    return {"name": match.name, "string_match": form}


# --- actions ----------------------------------------------------------------------------------------------------------


def _route(match: Match, conf: RuleConf, destination: Destination, resolve: Resolve) -> Config:
    filters = conf.filters or []
    route: Config = {"match": _match(match)}
    redirect = next((f.request_redirect for f in filters if f.request_redirect is not None), None)
    if redirect is not None:
        route["redirect"] = _redirect(redirect, match)
    else:
        backends = _backends(conf, destination, resolve)
        if not backends:
            # Required by the Gateway API: nothing else may receive the traffic of a backend that does not exist.
            return route | {"direct_response": {"status": 500}}
        route["route"] = _forward(backends, destination)
        _apply_filters(route["route"], filters, match, resolve)
    _apply_header_filters(route, filters)
    return route


def _backends(conf: RuleConf, destination: Destination, resolve: Resolve) -> list[tuple[str, int]]:
    """(cluster, weight) pairs, without those that do not exist or have no weight."""
    if conf.backend_refs is None:
        return [(destination.cluster, 1)]
    weights: dict[str, int] = {}
    for reference in conf.backend_refs:
        cluster = resolve(reference)
        if cluster is not None and reference.weight > 0:
            weights[cluster] = weights.get(cluster, 0) + reference.weight
    return list(weights.items())


def _forward(backends: Sequence[tuple[str, int]], destination: Destination) -> Config:
    """A RouteAction. It sets no timeout: streams may be long, and MeshTimeout is a separate policy."""
    action: Config = {"timeout": "0s"}
    if len(backends) == 1:
        action["cluster"] = backends[0][0]
    else:
        clusters = [{"name": name, "weight": weight} for name, weight in backends]
        action["weighted_clusters"] = {"clusters": clusters}
    if destination.hash_policies:
        action["hash_policy"] = list(destination.hash_policies)
    return action


def _apply_filters(action: Config, filters: Sequence[Filter], match: Match, resolve: Resolve) -> None:
    mirrors = []
    for entry in filters:
        if entry.url_rewrite is not None:
            action.update(_rewrite(entry.url_rewrite, match))
        if entry.request_mirror is not None:
            cluster = resolve(entry.request_mirror.backend_ref)
            if cluster is not None:
                mirrors.append(_mirror(cluster, entry))
    if mirrors:
        action["request_mirror_policies"] = mirrors


def _mirror(cluster: str, entry: Filter) -> Config:
    assert entry.request_mirror is not None
    result: Config = {"cluster": cluster}
    percentage = entry.request_mirror.percentage
    if percentage is not None:
        fraction = {"numerator": int(percentage * 10_000), "denominator": "MILLION"}
        result["runtime_fraction"] = {"default_value": fraction}
    return result


def _rewrite(rewrite: URLRewrite, match: Match) -> Config:
    result: Config = {}
    if rewrite.hostname is not None:
        result["host_rewrite_literal"] = rewrite.hostname
    if rewrite.path is not None:
        result |= _path_rewrite(rewrite.path, match, is_redirect=False)
    return result


def _path_rewrite(rewrite: PathRewrite, match: Match, is_redirect: bool) -> Config:
    if rewrite.replace_full_path is not None:
        if is_redirect:
            return {"path_redirect": rewrite.replace_full_path}
        return {"regex_rewrite": _regex_rewrite("^.*$", rewrite.replace_full_path)}
    assert rewrite.replace_prefix_match is not None
    assert match.path is not None  # guaranteed by validation: only with prefixes
    prefix, new = match.path.value.rstrip("/"), rewrite.replace_prefix_match.rstrip("/")
    # /old -> "/" must turn /old/x into /x and /old into /: a plain prefix rewrite would give //x or nothing.
    if new == "" or prefix == "":
        return {"regex_rewrite": _regex_rewrite(regex.prefix(prefix), new + "/")}
    return {"prefix_rewrite": new}


def _regex_rewrite(pattern: str, substitution: str) -> Config:
    return {"pattern": {"regex": pattern}, "substitution": substitution.replace("\\", "\\\\")}


def _redirect(redirect: RequestRedirect, match: Match) -> Config:
    result: Config = {"response_code": _REDIRECT_CODES[redirect.status_code]}
    if redirect.scheme is not None:
        result["scheme_redirect"] = redirect.scheme
    if redirect.hostname is not None:
        result["host_redirect"] = redirect.hostname
    if redirect.port is not None:
        result["port_redirect"] = redirect.port
    if redirect.path is not None:
        result |= _path_rewrite(redirect.path, match, is_redirect=True)
    return result


def _apply_header_filters(route: Config, filters: Sequence[Filter]) -> None:
    for entry in filters:
        for side, modifier in (
            ("request", entry.request_header_modifier),
            ("response", entry.response_header_modifier),
        ):
            if modifier is None:
                continue
            added = _headers_to_add(modifier)
            if added:
                route.setdefault(f"{side}_headers_to_add", []).extend(added)
            if modifier.remove:
                route.setdefault(f"{side}_headers_to_remove", []).extend(modifier.remove)


def _headers_to_add(modifier: HeaderModifier) -> list[Config]:
    actions = (("OVERWRITE_IF_EXISTS_OR_ADD", modifier.set), ("APPEND_IF_EXISTS_OR_ADD", modifier.add))
    return [
        # A per cent sign begins a format operator in Envoy; users write literal values.
        {"header": {"key": header.name, "value": header.value.replace("%", "%%")}, "append_action": action}
        for action, headers in actions
        for header in headers or ()
    ]
