"""What benchmarks.handshake would measure here: CPU per handshake of stock Envoy and of the offload. Pure.

Measured on the host: signatures in software, and the service at saturation: CPU per operation with its kernels, rate
and batches. Taken from calibration.py and scaled to the host: Envoy's part.

A busy worker sends requests and receives signatures along with the rest of its work. If the signatures are the limit
(slow ones, in software), the worker sleeps in between, and each batch of responses wakes it: the share of its time in
which it is idle is estimated from the slowest stage, and costs what wakes cost with one connection at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import geometric_mean

from offload.bench import calibration

CONCURRENCY = 64


class Load(StrEnum):
    server = "server"  # Envoy as the server, TLS 1.3
    mtls = "mtls"  # two Envoys of the same node, both with a key of this type


@dataclass(frozen=True)
class Prediction:
    """Microseconds of CPU per full handshake, at saturation by 64 concurrent connections to one worker."""

    stock_us: float
    offload_us: float
    daemon_us: float  # part of offload_us
    stock_per_s: float  # the rate of stock Envoy's worker for which this holds

    @property
    def ratio(self) -> float:
        return self.stock_us / self.offload_us

    def as_dict(self) -> dict[str, float]:
        return {
            "stock_us": round(self.stock_us, 1),
            "offload_us": round(self.offload_us, 1),
            "daemon_us": round(self.daemon_us, 1),
            "stock_over_offload": round(self.ratio, 3),
            "stock_handshakes_per_s": round(self.stock_per_s),
        }


def host_factor(software_us: Mapping[str, float]) -> float:
    """How much slower this host is than that of the calibration, by the signatures that both measured; else 1."""
    shares = [
        software_us[name] / reference
        for name, reference in calibration.REFERENCE_SIGNATURE_US.items()
        if name in software_us
    ]
    return geometric_mean(shares) if shares else 1.0


@dataclass(frozen=True)
class Measured:
    """The measurements of the host for one key type."""

    software_us: float  # one of our signatures in software
    daemon_us: float  # the service's CPU per operation at saturation, kernels included
    per_s: float  # operations of the service at saturation
    batch: float  # mean size of its batches there


def predict(
    key: str, load: Load, measured: Measured, has_vector_kernels: bool, factor: float, processors: int
) -> Prediction:
    """`factor`: result of host_factor; `processors`: shared by Envoy, the daemon and the clients."""
    software_us, daemon_us = measured.software_us, measured.daemon_us
    signature = software_us * calibration.STOCK_SIGNATURE_SHARE.get(key, 1.0)
    saved = calibration.KEY_EXCHANGE_SAVED_US if has_vector_kernels else 0.0
    if load is Load.server:
        ends, rest, handover = 1, calibration.SERVER_REST_US * factor, calibration.SERVER_HANDOVER_US
    else:
        ends, rest, handover = 2, calibration.MTLS_REST_US * factor, calibration.MTLS_HANDOVER_US
        rest += calibration.MTLS_VERIFICATIONS.get(key, 0.0) * signature
    stock = rest + ends * signature
    busy = rest / ends + (handover - saved) * factor
    if load is Load.server:
        client = calibration.CLIENT_US * factor + calibration.MTLS_VERIFICATIONS.get(key, 0.0) / 2 * signature
        idle = _idle_share(busy, client, measured, processors)
        busy += calibration.ALONE_US * factor * idle / measured.batch
    offload = ends * (busy + daemon_us)
    # The busier of the two workers does half of the work of a connection, and limits its rate.
    return Prediction(stock, offload, ends * daemon_us, 1e6 * ends / stock)


def _idle_share(worker_us: float, client_us: float, measured: Measured, processors: int) -> float:
    """Idle share of Envoy's one worker while one client thread makes handshakes: the slowest of the stages decides.

    Between two Envoys no such share is added: MTLS_HANDOVER_US was measured with workers that wait for each other.
    """
    shared_us = (worker_us + measured.daemon_us + client_us) / processors
    return 1 - worker_us / max(worker_us, client_us, 1e6 / measured.per_s, shared_us)
