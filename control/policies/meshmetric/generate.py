"""MeshMetric: a listener that offers the proxy's metrics, and only those, from its admin interface."""

from __future__ import annotations

from control.policies.meshmetric.schema import Conf
from envoy_ext.render import Config


def routes(conf: Conf | None, cluster: str) -> list[tuple[int, Config]]:
    """(port, route) for each Prometheus backend; `cluster` is the admin interface."""
    if conf is None:
        return []
    unused = conf.sidecar is not None and bool(conf.sidecar.include_unused)
    rewrite = "/stats/prometheus" + ("" if unused else "?usedonly")
    return [
        (backend.prometheus.port, _route(backend.prometheus.path, rewrite, cluster)) for backend in conf.backends or ()
    ]


def _route(path: str, rewrite: str, cluster: str) -> Config:
    """Matches exactly this path with GET: the admin interface behind it can do more than show numbers."""
    method = {"name": ":method", "string_match": {"exact": "GET"}}
    return {
        "match": {"path": path, "headers": [method]},
        "route": {"cluster": cluster, "regex_rewrite": {"pattern": {"regex": "^.*$"}, "substitution": rewrite}},
    }
