"""What the figures mean for somebody who has to choose; a pure function of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from offload.bench import calibration
from offload.bench.prediction import CONCURRENCY, Prediction

# Smaller differences, in either direction, are within the variation of hosts and loads.
EVEN_SHARE = 0.1


class Choice(Enum):
    OFFLOAD = "offload"
    EVEN = "even"
    ENVOY = "envoy"


@dataclass(frozen=True)
class Verdict:
    """The verdict for one key type."""

    choice: Choice
    server: Prediction
    mtls: Prediction
    text: str


def judge(server: Prediction, mtls: Prediction) -> Verdict:
    """A key is used for both: it pays if it saves in one and costs nothing in the other."""
    gains = [1 - one.offload_us / one.stock_us for one in (server, mtls)]
    text = f"server {_in_words(gains[0])}, mTLS {_in_words(gains[1])}"
    if min(gains) < -EVEN_SHARE:
        return Verdict(Choice.ENVOY, server, mtls, text + ": offload it to keep the key out of Envoy, not to save CPU")
    if max(gains) > EVEN_SHARE:
        return Verdict(Choice.OFFLOAD, server, mtls, text + ": offload")
    return Verdict(Choice.EVEN, server, mtls, text + ": about even; offload it to keep the key out of Envoy")


def _in_words(gain: float) -> str:
    return f"saves {gain:.0%}" if gain >= 0 else f"costs {-gain:.0%} more"


def summary(verdicts: dict[str, Verdict], has_vector_kernels: bool) -> str:
    """The conclusion for the whole host, and for which load it holds."""
    holds = (
        f"These are predictions for an Envoy at its limit ({CONCURRENCY} connections at once to one worker); with one "
        f"at a time both ends are woken for each signature, which costs {calibration.ALONE_US:.0f} us more per "
        "handshake, on virtual machines."
    )
    pays = [name for name, verdict in verdicts.items() if verdict.choice is Choice.OFFLOAD]
    if not has_vector_kernels:
        return (
            "This CPU has no AVX-512 IFMA: the daemon signs in software as Envoy would, and the hand-over comes "
            f"on top. Use the offload here for where the keys are, not to save CPU. {holds}"
        )
    if not pays:
        return f"On this host none of these key types saves CPU by the offload; it keeps the keys out of Envoy. {holds}"
    rest = [name for name in verdicts if name not in pays]
    end = f"; with {', '.join(rest)} it is for where the keys are." if rest else "."
    return f"On this host the offload saves CPU with {', '.join(pays)}{end} {holds}"
