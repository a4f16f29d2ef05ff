"""What `offload bench` concludes from its figures, and the service that it measures."""

from __future__ import annotations

import pytest

from offload.bench import service
from offload.bench.service import SIDECARS, ServiceBenchError
from offload.bench.verdict import Choice, handover_us, judge, summary


def test_rsa_on_lanes_pays() -> None:
    judged = judge(software_us=600, service_cpu_us=80, handover_us=60)
    assert judged.choice is Choice.OFFLOAD
    assert judged.saved_us == 460
    assert "460 us" in judged.text
    assert "77%" in judged.text


def test_a_cheap_signature_does_not() -> None:
    judged = judge(software_us=35, service_cpu_us=15, handover_us=60)
    assert judged.choice is Choice.ENVOY
    assert "40 us of CPU more" in judged.text


def test_vector_kernels_also_make_the_key_exchange_cheaper() -> None:
    assert 0 < handover_us(has_vector_kernels=True) < handover_us(has_vector_kernels=False)


@pytest.mark.parametrize(
    ("service_cpu", "choice"),
    [(479, Choice.OFFLOAD), (480, Choice.EVEN), (540, Choice.EVEN), (600, Choice.EVEN), (601, Choice.ENVOY)],
)
def test_close_is_even(service_cpu: float, choice: Choice) -> None:
    assert judge(software_us=600, service_cpu_us=service_cpu, handover_us=60).choice is choice


def test_one_sentence_for_the_host() -> None:
    rsa, p256 = judge(600, 80), judge(35, 15)
    assert summary({"rsa2048": rsa, "p256": p256}, True) == (
        "On this host the offload saves CPU with rsa2048; with p256 it is for where the keys are."
    )
    assert "none of these" in summary({"p256": p256}, True)
    assert "no AVX-512 IFMA" in summary({"rsa2048": rsa}, False)


def test_the_service_is_loaded_for_real() -> None:
    with service.running(["p256"]) as running:
        result = running.measure("p256", seconds=0.05)
    assert result.saturation_per_s > 0
    assert tuple(one.count for one in result.sidecars) == SIDECARS
    assert all(1 <= one.mean_batch <= 8 and one.cpu_us > 0 for one in result.sidecars)


def test_a_missing_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "KEYLOAD", service.KEYLOAD.with_name("no-such-program"))
    with service.running(["p256"]) as running, pytest.raises(ServiceBenchError, match="pip install"):
        running.measure("p256")
