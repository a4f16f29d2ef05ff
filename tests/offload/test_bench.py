"""What `offload bench` concludes from its figures, and the service that it measures."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from offload.bench import service
from offload.bench.prediction import Load, Measured, host_factor, predict
from offload.bench.service import SIDECARS, ServiceBenchError, ServiceResult, Sidecars
from offload.bench.verdict import Choice, Verdict, judge, summary
from offload.cli import bench


def measured(software_us: float, daemon_us: float, batch: float = 4) -> Measured:
    """A service of which one thread signs."""
    return Measured(software_us, daemon_us, 1e6 / daemon_us, batch)


def verdict(key: str, software_us: float, daemon_us: float, vector: bool = True, factor: float = 1.0) -> Verdict:
    figures = measured(software_us, daemon_us, 4 if vector else 1)
    server, mtls = (predict(key, load, figures, vector, factor, 2) for load in (Load.server, Load.mtls))
    return judge(server, mtls)


def test_the_calibration_gives_back_what_it_was_made_from() -> None:
    """P-256 of the run that calibration.py names: 209 and 190 us as a server, 1090 and 1205 us between two Envoys."""
    server, mtls = (
        predict("p256", load, measured(35, daemon), True, 1.0, 2)
        for load, daemon in ((Load.server, 17), (Load.mtls, 15.5))
    )
    assert (server.stock_us, server.offload_us) == pytest.approx((209, 190), rel=0.01)
    assert (mtls.stock_us, mtls.offload_us) == pytest.approx((1090, 1205), rel=0.01)


def test_rsa_on_lanes_pays_for_both() -> None:
    judged = verdict("rsa2048", 561, 153)
    assert judged.choice is Choice.OFFLOAD
    assert judged.server.ratio > judged.mtls.ratio > 1
    assert "server saves" in judged.text
    assert "mTLS saves" in judged.text


def test_p256_with_mtls_costs_more() -> None:
    """What the demo shows, and what a comparison of signatures alone hides."""
    judged = verdict("p256", 35, 17)
    assert judged.choice is Choice.ENVOY
    assert "mTLS costs 11% more" in judged.text


def test_without_vector_kernels_nothing_is_saved() -> None:
    for key, software in (("rsa2048", 561.0), ("p256", 35.0), ("p384", 507.0)):
        judged = verdict(key, software, software + 15, vector=False)
        assert judged.choice in (Choice.ENVOY, Choice.EVEN)
        assert judged.server.ratio < 1


def test_a_worker_that_waits_for_signatures_is_woken_for_each() -> None:
    """Long signatures in software leave the worker idle; batches, or more processors of a faster service, do not."""

    def handover(per_s: float, batch: float, processors: int) -> float:
        figures = Measured(5000.0, 5000.0, per_s, batch)
        predicted = predict("rsa4096", Load.server, figures, False, 1.0, processors)
        return predicted.offload_us - predicted.stock_us

    alone = handover(400, 1, 2)
    assert alone == pytest.approx(17 + 120 * 0.92, rel=0.01)  # 370 of 1e6 us per second are the worker's: 8%
    assert handover(400, 8, 2) == pytest.approx(17 + 120 * 0.92 / 8, rel=0.01)
    assert handover(20_000, 1, 64) == pytest.approx(17)
    assert handover(400, 1, 64) < handover(200, 1, 64)


def test_envoys_part_is_scaled_to_the_host() -> None:
    assert host_factor({"rsa2048": 2 * 561.0, "p256": 2 * 35.0, "p384": 1.0}) == pytest.approx(2)
    assert host_factor({"ed25519": 16.0}) == 1
    slow, fast = verdict("rsa2048", 2 * 561, 2 * 153, factor=2), verdict("rsa2048", 561, 153)
    assert slow.server.stock_us == pytest.approx(2 * fast.server.stock_us)
    assert slow.server.ratio == pytest.approx(fast.server.ratio)
    assert slow.server.stock_per_s == pytest.approx(fast.server.stock_per_s / 2)


def test_one_sentence_for_the_host() -> None:
    rsa, p256 = verdict("rsa2048", 561, 153), verdict("p256", 35, 17)
    assert summary({"rsa2048": rsa, "p256": p256}, True).startswith(
        "On this host the offload saves CPU with rsa2048; with p256 it is for where the keys are."
    )
    assert "64 connections at once" in summary({"rsa2048": rsa}, True)
    assert "none of these" in summary({"p256": p256}, True)
    assert "no AVX-512 IFMA" in summary({"rsa2048": rsa}, False)


def test_the_service_is_loaded_for_real() -> None:
    with service.running(["p256"]) as running:
        result = running.measure("p256", seconds=0.05)
    assert result.saturation_per_s > 0
    assert 0 < result.software_us < 1e5
    assert tuple(one.count for one in result.sidecars) == SIDECARS
    assert all(1 <= one.mean_batch <= 8 and one.cpu_us > 0 for one in result.sidecars)


def test_a_missing_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "KEYLOAD", service.KEYLOAD.with_name("no-such-program"))
    with service.running(["p256"]) as running, pytest.raises(ServiceBenchError, match="pip install"):
        running.measure("p256")


def test_tables_fit_into_80_columns() -> None:
    """Also with the figures of a slow machine: no cell is cut, and only the verdict is broken into lines."""
    slow = [24_999.0 + batch for batch in range(8)]
    kernels = {"rsa4096": {"software": slow, "ifma8": [value / 1.01 for value in slow]}}
    sidecars = tuple(Sidecars(count, 12_345.6, 7.9, 24_999.4, 123_456.7, 345_678.9) for count in SIDECARS)
    services = {"rsa4096": ServiceResult(24_999.0, 123_456.7, 7.9, 24_999.4, 24_999.4, sidecars)}
    verdicts = {"rsa4096": verdict("rsa4096", 24_999, 24_999)}
    expected = {
        bench._table: ["rsa4096", "software", "24999", "25006", "3125.8", "1.01x"],
        bench._service_table: ["rsa4096", "123,457", "7.9", "24999 us"],
        bench._sidecars_table: ["rsa4096", "7.9, 345.7 ms"],
        bench._verdict_table: ["rsa4096", f"{verdicts['rsa4096'].mtls.stock_us:.0f},", "/s"],
    }
    tables = zip(expected.items(), (kernels, services, services, verdicts), strict=True)
    for (make, cells), figures in tables:
        console = Console(width=80, file=io.StringIO())
        console.print(make(figures))  # type: ignore[operator]
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "…" not in text, text
        lines = text.splitlines()
        assert all(len(line) <= 80 for line in lines)
        shown = "\n".join(line for line in lines if "rsa4096" in line or "ifma8" in line)
        for cell in cells:
            assert cell in shown, text
