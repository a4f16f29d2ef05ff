"""The shipped alerts, judged by Prometheus itself on what real daemons say: quiet where all is well, else loud."""

from __future__ import annotations

import datetime
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.node.waiting import wait_for
from tests.control.mesh_process import ControlPlane
from tests.deploy.promtool import promtool
from tests.offload.conftest import ME
from tests.offload.daemon_process import DaemonProcess
from tests.offload.issuing.test_generator import CART, Generating
from tests.offload.key_files import Authority, shared_key, write_pair
from tests.offload.mesh.test_process import CART as MESH_CART
from tests.offload.mesh.test_process import MESH, Node

RULES = Path(__file__).resolve().parents[2] / "deploy" / "monitoring" / "alerts.yaml"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
MINUTES = 120  # longer than any alert waits

Series = dict[str, str]  # name with labels -> values in promtool's notation

pytestmark = pytest.mark.skipif(isinstance(promtool(), str), reason=str(promtool()))


def scraped(daemon: DaemonProcess) -> Series:
    """What a scrape says, as if each of the next two hours said it again."""
    with urllib.request.urlopen(f"http://{daemon.metrics_address()}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        found = {}
        for family in families:
            for sample in family.samples:
                labels = sample.labels | {"instance": "node-1", "job": "offload"}
                text = ",".join(f'{name}="{value}"' for name, value in labels.items())
                value = repr(sample.value).replace("inf", "Inf").replace("nan", "NaN")
                found[f"{sample.name}{{{text}}}"] = f"{value}x{MINUTES}"
        return found


def rising(series: Series, name: str, label: str, step: float) -> Series:
    """The same, with the counters of this name and label rising by `step` each minute."""
    chosen = {key for key in series if key.startswith(name + "{") and label in key}
    made = dict.fromkeys(chosen, f"0+{step}x{MINUTES}") or {
        f'{name}{{{label},instance="n",job="j"}}': f"0+{step}x{MINUTES}"
    }
    return series | made


def firing(series: Series, folder: Path) -> set[str]:
    """The alerts that promtool finds active after 100 minutes."""
    return {alert for alert in ALERTS if not _is_quiet(alert, series, folder)}


def _is_quiet(alert: str, series: Series, folder: Path) -> bool:
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": values} for key, values in series.items()],
                "alert_rule_test": [{"eval_time": "100m", "alertname": alert, "exp_alerts": []}],
            }
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [promtool(), "test", "rules", folder / "test.yaml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 or "FAILED" in done.stderr + done.stdout, done.stderr
    assert done.returncode == 0 or f"alertname: {alert}" in done.stderr + done.stdout, done.stderr
    return done.returncode == 0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    made = DaemonProcess(tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


def _files(daemon: DaemonProcess, authority: Authority, days: int = 90) -> DaemonProcess:
    key = shared_key("p256")
    write_pair(daemon.folder / "keys", "www", key, authority.issue(key, "www", end=datetime.timedelta(days=days)))
    daemon.configure(identities={"www": ME})
    return daemon.start()


def test_rules_are_well_formed() -> None:
    done = subprocess.run(
        [promtool(), "check", "rules", RULES], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow(seconds=4)
def test_quiet_with_keys_from_files(daemon: DaemonProcess, authority: Authority, tmp_path: Path) -> None:
    assert firing(scraped(_files(daemon, authority)), tmp_path) == set()


@pytest.mark.slow(seconds=6)
def test_quiet_with_generated_keys(tmp_path: Path, authority: Authority) -> None:
    daemon = Generating(tmp_path)
    daemon.use(authority)
    daemon.setup(daemon.local_ca())
    daemon.start()
    try:
        wait_for("the identity", lambda: daemon.events("identity in force"))
        series = scraped(daemon)
        assert any(CART in key for key in series)
        assert firing(series, tmp_path) == set()
        failing = rising(series, "offload_certificate_requests_total", 'issuer="dev",result="failed"', 1)
        assert firing(failing, tmp_path) == {"OffloadRenewalFails"}
    finally:
        daemon.stop()


@pytest.mark.slow(seconds=12)
def test_quiet_in_a_mesh_without_a_keys_directory(tmp_path: Path) -> None:
    """From its start on: before the control plane has said anything, and after."""
    (tmp_path / "mesh").mkdir()
    control_plane = ControlPlane(tmp_path / "mesh")
    control_plane.start()
    control_plane.output("apply", "-m", "default", "-f", "-", stdin=MESH)
    node = Node(tmp_path, control_plane)
    node.policy()
    node.join(keys={})
    good = node.token_file.read_text()
    node.token_file.write_text("")
    try:
        node.start()
        early = scraped(node)
        assert firing(early, tmp_path) == {"OffloadNotInMesh"}
        node.token_file.write_text(good)
        wait_for("the identity", lambda: node.names() == [MESH_CART])
        wait_for("the stream", lambda: node.mesh().connected)
        assert firing(scraped(node), tmp_path) == set()
        assert not node.events("key file rejected")
    finally:
        node.stop()
        control_plane.stop()


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize(
    ("days", "age_days", "alerts"),
    [(90, 84, {"OffloadCertificateExpires"}), (90, 91, {"OffloadCertificateExpires", "OffloadCertificateExpired"})],
)
def test_a_certificate_that_nobody_renews(
    daemon: DaemonProcess, authority: Authority, tmp_path: Path, days: int, age_days: int, alerts: set[str]
) -> None:
    series = scraped(_files(daemon, authority, days))
    (now,) = [key for key in series if key.startswith("offload_time_seconds")]
    later = float(series[now].split("x")[0]) + age_days * 86400
    assert firing(series | {now: f"{later!r}x{MINUTES}"}, tmp_path) == alerts


@pytest.mark.slow(seconds=4)
def test_a_refused_file(daemon: DaemonProcess, authority: Authority, tmp_path: Path) -> None:
    daemon = _files(daemon, authority)
    (tmp_path / "keys" / "bad.pem").write_text("nothing")
    (tmp_path / "keys" / "bad.pem").chmod(0o600)
    daemon.wait_log("key file rejected")
    assert firing(scraped(daemon), tmp_path) == {"OffloadKeyFileRefused"}


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize(
    ("alert", "change"),
    [
        ("OffloadLaneFaults", lambda s: rising(s, "offload_lane_faults_total", 'algorithm="p256"', 1)),
        ("OffloadCallersRefused", lambda s: rising(s, "offload_refusals_total", 'reason="flood"', 120)),
        (
            "OffloadOverloaded",
            lambda s: rising(s, "offload_operations_total", 'status="RESOURCE_EXHAUSTED"', 1),
        ),
    ],
)
def test_what_the_daemon_suffers(
    daemon: DaemonProcess, authority: Authority, tmp_path: Path, alert: str, change: Callable[[Series], Series]
) -> None:
    assert firing(change(scraped(_files(daemon, authority))), tmp_path) == {alert}
