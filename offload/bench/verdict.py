"""What the figures mean for somebody who has to choose; a pure function of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# CPU that Envoy spends on asking another process for a signature and being woken by the answer. Measured with
# benchmarks.handshake (docs/performance.md): what Envoy with the module costs more than stock Envoy without its
# signature. It differs by host; on virtual machines the wake-ups dominate it.
ENVOY_HANDOVER_US = 60.0
# What the module saves in the same handshake where the host has the vector kernels: X25519 (docs/decisions.md).
KEY_EXCHANGE_SAVED_US = 44.0
# Less than this, in either direction, is within what hosts and loads differ by.
EVEN_SHARE = 0.1


class Choice(Enum):
    OFFLOAD = "offload"
    EVEN = "even"
    ENVOY = "envoy"


@dataclass(frozen=True)
class Verdict:
    """Of one key type, per full handshake."""

    choice: Choice
    in_envoy_us: float  # the signature in Envoy's own BoringSSL
    offloaded_us: float  # daemon, socket and hand-over
    text: str

    @property
    def saved_us(self) -> float:
        return self.in_envoy_us - self.offloaded_us


def handover_us(has_vector_kernels: bool) -> float:
    """What Envoy with the module costs more than stock Envoy without its signature."""
    return ENVOY_HANDOVER_US - (KEY_EXCHANGE_SAVED_US if has_vector_kernels else 0)


def judge(software_us: float, service_cpu_us: float, handover_us: float = ENVOY_HANDOVER_US) -> Verdict:
    """`software_us`: one signature by BoringSSL; `service_cpu_us`: CPU of the daemon per signature under load."""
    offloaded = service_cpu_us + handover_us
    saved = software_us - offloaded
    if abs(saved) <= EVEN_SHARE * software_us:
        return Verdict(
            Choice.EVEN, software_us, offloaded, "about even in CPU; offload it to keep the key out of Envoy"
        )
    if saved > 0:
        share = saved / software_us
        text = f"offload: saves about {saved:.0f} us of CPU per handshake, {share:.0%} of the signature"
        return Verdict(Choice.OFFLOAD, software_us, offloaded, text)
    text = (
        f"costs about {-saved:.0f} us of CPU more per handshake; offload it to keep the key out of Envoy, not to save"
    )
    return Verdict(Choice.ENVOY, software_us, offloaded, text)


def summary(verdicts: dict[str, Verdict], has_vector_kernels: bool) -> str:
    """One sentence for the whole host."""
    pays = [name for name, verdict in verdicts.items() if verdict.choice is Choice.OFFLOAD]
    if not has_vector_kernels:
        return (
            "This CPU has no AVX-512 IFMA: the daemon signs in software as Envoy would, and the hand-over comes "
            "on top. Use the offload here for where the keys are, not to save CPU."
        )
    if not pays:
        return "On this host none of these key types saves CPU by the offload; it keeps the keys out of Envoy."
    rest = [name for name in verdicts if name not in pays]
    return f"On this host the offload saves CPU with {', '.join(pays)}" + (
        f"; with {', '.join(rest)} it is for where the keys are." if rest else "."
    )
