"""What benchmarks.handshake would measure here: CPU per handshake of stock Envoy and of the offload. Pure.

Measured on the host: signatures in software, and the daemon's CPU per operation at saturation, its kernels included.
Taken from calibration.py and scaled to the host: Envoy's part.
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
    """Microseconds of CPU per full handshake, at saturation by 64 connections at once to one worker."""

    stock_us: float
    offload_us: float
    daemon_us: float  # of offload_us
    stock_per_s: float  # the rate of stock Envoy's worker at which this holds

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
    """How much longer this host takes than that of the calibration: by the signatures that both measured; else 1."""
    shares = [
        software_us[name] / reference
        for name, reference in calibration.REFERENCE_SIGNATURE_US.items()
        if name in software_us
    ]
    return geometric_mean(shares) if shares else 1.0


def predict(
    key: str, load: Load, software_us: float, daemon_us: float, has_vector_kernels: bool, factor: float
) -> Prediction:
    """`software_us`: one of our signatures; `daemon_us`: the service's CPU per operation at saturation."""
    signature = software_us * calibration.STOCK_SIGNATURE_SHARE.get(key, 1.0)
    saved = calibration.KEY_EXCHANGE_SAVED_US if has_vector_kernels else 0.0
    if load is Load.server:
        ends, rest, handover = 1, calibration.SERVER_REST_US * factor, calibration.SERVER_HANDOVER_US
    else:
        ends, rest, handover = 2, calibration.MTLS_REST_US * factor, calibration.MTLS_HANDOVER_US
        rest += calibration.MTLS_VERIFICATIONS.get(key, 0.0) * signature
    stock = rest + ends * signature
    offload = rest + ends * ((handover - saved) * factor + daemon_us)
    # The busier of the two workers does half of the work of a connection, and bounds its rate.
    return Prediction(stock, offload, ends * daemon_us, 1e6 * ends / stock)
