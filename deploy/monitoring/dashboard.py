"""Prints a Grafana dashboard of the daemon's metrics, to be imported there: python -m deploy.monitoring.dashboard"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT, COLUMNS = 8, 8, 3


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]  # (expression, legend)
    kind: str = "timeseries"


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    rate = f"sum by (algorithm, le) (rate({metric}_bucket{{instance=~'$instance'}}[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {rate})", f"{{{{algorithm}}}} p{int(q * 100)}") for q in (0.5, 0.99))


def _rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{instance=~'$instance'{more}}}[$__rate_interval]))"


PANELS = (
    Panel(
        "Signatures",
        "ops",
        ((_rate("offload_operations_total", "algorithm, backend", ",status='OK'"), "{{algorithm}} {{backend}}"),),
    ),
    Panel("Not OK", "ops", ((_rate("offload_operations_total", "status", ",status!='OK'"), "{{status}}"),)),
    Panel("Refused", "ops", ((_rate("offload_refusals_total", "reason") + " > 0", "{{reason}}"),)),
    Panel(
        "Mean batch",
        "none",
        (
            (
                f"{_rate('offload_batch_size_sum', 'algorithm')} / {_rate('offload_batch_size_count', 'algorithm')}",
                "{{algorithm}}",
            ),
        ),
    ),
    Panel("Batches by size", "none", ((_rate("offload_batch_size_bucket", "le"), "{{le}}"),), "heatmap"),
    Panel("Reasons for starting batches", "ops", ((_rate("offload_batch_size_count", "reason"), "{{reason}}"),)),
    Panel("Time in the queue", "s", _quantiles("offload_queue_seconds")),
    Panel("Time of a batch", "s", _quantiles("offload_batch_run_seconds")),
    Panel(
        "Operations queued",
        "none",
        (("sum by (algorithm) (offload_queue_depth{instance=~'$instance'})", "{{algorithm}}"),),
    ),
    Panel("Callers", "none", (("sum by (instance) (offload_connections{instance=~'$instance'})", "{{instance}}"),)),
    Panel(
        "Days until a certificate expires",
        "d",
        (
            (
                "min by (identity) (offload_certificate_expiry_seconds{instance=~'$instance',part='chain'} "
                "- on (instance) group_left offload_time_seconds) / 86400",
                "{{identity}}",
            ),
        ),
    ),
    Panel(
        "Lane faults, recomputed; key files rejected",
        "none",
        (
            (
                "sum by (algorithm) (increase(offload_lane_faults_total{instance=~'$instance'}[$__range]))",
                "recomputed {{algorithm}}",
            ),
            ("sum by (instance) (offload_key_files_refused{instance=~'$instance'})", "rejected on {{instance}}"),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's JSON model; its data source and instances are chosen by variables."""
    source = {"type": "prometheus", "uid": "$source"}
    instances = {
        "name": "instance",
        "type": "query",
        "datasource": source,
        "query": "label_values(offload_build_info, instance)",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
    }
    return {
        "title": "TLS handshake offload",
        "uid": "tls-offload",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}, instances]},
        "panels": [_panel(number, panel, source) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel, source: dict[str, str]) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    targets = [
        {"refId": chr(ord("A") + i), "datasource": source, "expr": expression, "legendFormat": legend}
        | ({"format": "heatmap"} if panel.kind == "heatmap" else {})
        for i, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "title": panel.title,
        "type": panel.kind,
        "datasource": source,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=2))
