"""Metrics as Prometheus sees them: a real daemon is scraped over HTTP and the text parsed."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from deploy.monitoring.dashboard import dashboard
from deploy.node.waiting import wait_for
from offload import _dataplane
from offload.identities.in_force import Plan
from offload.identities.uses import IdentityUses
from offload.interfaces.metrics import DaemonCollector
from offload.issuing.generator import GeneratedIdentities
from tests.offload.daemon_process import DaemonProcess, sign_request, status_of
from tests.offload.key_files import key_id, shared_key

ROOT = Path(__file__).resolve().parents[3]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(daemon: DaemonProcess) -> Samples:
    with urllib.request.urlopen(f"http://{daemon.metrics_address()}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def total(samples: Samples, name: str, **labels: str) -> float:
    """Over all samples that have these labels among theirs."""
    return sum(v for (n, found), v in samples.items() if n == name and labels.items() <= dict(found).items())


def test_operations_are_counted(running: DaemonProcess) -> None:
    before = scrape(running)
    with running.client() as stub:
        for _ in range(5):
            stub.Sign(sign_request(key_id(shared_key("rsa2048")), 0x0804), timeout=10)
        status_of(lambda: stub.Sign(sign_request(key_id(shared_key("p256")), 0x0403, b"x"), timeout=10))
        status_of(lambda: stub.Sign(sign_request(bytes(32), 0x0403), timeout=10))

    def gain(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    after = wait_for("the counts", lambda: (s := scrape(running)) and total(s, "offload_refusals_total") >= 2 and s)
    assert gain("offload_operations_total", algorithm="rsa2048", status="OK") == 5
    assert gain("offload_queue_seconds_count", algorithm="rsa2048") == 5
    assert gain("offload_batch_size_sum", algorithm="rsa2048") == 5
    assert 1 <= gain("offload_batch_run_seconds_count", algorithm="rsa2048") <= 5
    assert gain("offload_batch_run_seconds_sum", algorithm="rsa2048") > 0
    assert gain("offload_operations_total", algorithm="p256", status="PERMISSION_DENIED") == 1
    assert gain("offload_refusals_total") == 2


def test_histograms_are_cumulative_and_end_in_infinity(running: DaemonProcess) -> None:
    samples = scrape(running)
    for name in ("offload_queue_seconds", "offload_batch_run_seconds", "offload_batch_size"):
        series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for (sample, labels), count in samples.items():
            if sample == f"{name}_bucket":
                others = tuple(pair for pair in labels if pair[0] != "le")
                series.setdefault(others, []).append((float(dict(labels)["le"]), count))
        assert series, name
        for labels, buckets in series.items():
            counts = [count for _, count in sorted(buckets)]
            assert counts == sorted(counts)
            assert sorted(buckets)[-1][0] == float("inf")
            assert counts[-1] == value(samples, f"{name}_count", **dict(labels))


def test_what_stands_still(running: DaemonProcess) -> None:
    samples = scrape(running)
    www, rsa = (key_id(shared_key(a)).hex() for a in ("p256", "rsa2048"))
    for identity, key, algorithm in (("www", www, "p256"), ("rsa", rsa, "rsa2048")):
        expiry = value(
            samples,
            "offload_certificate_expiry_seconds",
            identity=identity,
            key_id=key,
            algorithm=algorithm,
            part="leaf",
        )
        assert 80 * 86400 < expiry - value(samples, "offload_time_seconds") < 91 * 86400
    assert total(samples, "offload_keys") == 2
    assert value(samples, "offload_build_info", version="0.1.0") == 1
    assert total(samples, "offload_backend_in_use") == 1
    assert total(samples, "offload_secret_memory_bytes", state="used") > 0
    assert value(samples, "offload_key_files_refused") == 0
    assert value(samples, "offload_draining") == 0
    assert total(samples, "offload_crossover_batch_size") >= 6
    assert total(samples, "process_open_fds") > 0


def documented_metrics() -> set[str]:
    page = ROOT / "docs" / "reference" / "metrics.md"
    return set(re.findall(r"^\| `(offload_\w+)`", page.read_text(), re.MULTILINE))


def test_every_metric_is_documented_and_every_documented_one_exists(running: DaemonProcess) -> None:
    with urllib.request.urlopen(f"http://{running.metrics_address()}/metrics", timeout=10) as answer:
        families = {f.name for f in text_string_to_metric_families(answer.read().decode())}
    ours = {name for name in families if name.startswith("offload_")}
    documented = documented_metrics()
    # The documentation has the names as they are queried.
    assert {re.sub(r"_(total|info)$", "", name) for name in documented} == {re.sub("_info$", "", name) for name in ours}


def test_alerts_and_dashboard_ask_for_metrics_that_exist() -> None:
    alerts = yaml.safe_load((ROOT / "deploy" / "monitoring" / "alerts.yaml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    panels = dashboard()["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    asked = [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]
    assert all(text.count("(") == text.count(")") for text in asked)
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for text in asked for name in re.findall(r"offload_\w+", text)}
    assert used <= documented_metrics()


class _Idle:
    """A data plane that has not been started, and no keys."""

    started_at = 0.0
    plan = Plan()
    generated = GeneratedIdentities(lambda: None)
    audit = None
    membership = None

    def identity_uses(self) -> IdentityUses:
        return IdentityUses()

    def __init__(self) -> None:
        self._data_plane = _dataplane.DataPlane(
            {
                "shards": 1,
                "max_wait_us": 0,
                "queue_limit": 8,
                "connection_queue_limit": 8,
                "user_queue_limit": 8,
                "max_connections": 8,
                "max_connections_per_user": 8,
                "max_connections_without_identity": 8,
                "user_memory_mib": 1,
                "idle_timeout_ms": 1000,
                "stalled_timeout_ms": 1000,
                "max_streams_per_connection": 8,
                "drain_timeout_ms": 10,
                "backend": "software",
            }
        )

    def statistics(self) -> _dataplane.Statistics:
        return self._data_plane.statistics()


def test_a_daemon_that_did_nothing_yet_has_all_families() -> None:
    registry = CollectorRegistry()
    registry.register(DaemonCollector(_Idle()))
    names = {family.name for family in registry.collect()}
    assert {"offload_operations", "offload_queue_seconds", "offload_certificate_expiry_seconds"} <= names
