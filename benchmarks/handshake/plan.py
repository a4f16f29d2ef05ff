"""What is measured: cells of the full and of the quick run, and how long that takes. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import product

MODES = ("stock", "ifma", "soft")
KEYS = ("rsa2048", "rsa3072", "rsa4096", "p256", "p384")
CONCURRENCIES = (1, 8, 64, 256)
SIDECARS = (1, 8, 32)
RATE_SHARES = (0.3, 0.6, 0.9)  # of stock's saturation
USUAL_CONCURRENCY = 64
SIDECAR_SHARE = 0.6  # many sidecars, one total rate: of stock's saturation with one
OPEN_CONCURRENCY = 1024  # bound on concurrent connections in open loop; far above what a healthy server needs


@dataclass(frozen=True)
class Load:
    """One load that all modes get in turn."""

    key: str = "rsa2048"
    tls: str = "1.3"
    mtls: bool = False
    two_envoys: bool = False  # a second Envoy is the client, with a key of the same type; else the load generator is
    resumed: bool = False
    sidecars: int = 1
    concurrency: int = USUAL_CONCURRENCY
    rate_share: float | None = None  # open loop, of stock's saturation with this key; None: closed loop

    @property
    def name(self) -> str:
        """For people, and for progress."""
        parts = [self.key, f"TLS {self.tls}"]
        parts += ["mTLS between two Envoys" if self.two_envoys else "mTLS"] if self.mtls else []
        parts += ["resumed"] if self.resumed else []
        parts += [f"{self.sidecars} sidecars"] if self.sidecars > 1 else []
        share = self.rate_share
        parts.append(f"{self.concurrency} at once" if share is None else f"at {share:.0%} of stock's limit")
        return ", ".join(parts)


@dataclass(frozen=True)
class Plan:
    """The loads in order; closed loops of a key come before its open ones, which need stock's saturation."""

    loads: tuple[Load, ...]
    slice_s: float
    rounds: int
    headline_rounds: int  # for the loads that the summary is made from

    def rounds_of(self, load: Load) -> int:
        return self.headline_rounds if load == headline(load.key) else self.rounds

    @property
    def seconds(self) -> float:
        """Estimate: the slices, and the time between them (start of the tool, sessions, settling)."""
        return sum(map(self.rounds_of, self.loads)) * len(MODES) * (self.slice_s + 0.25) + 20

    def only(self, keys: Collection[str]) -> Plan:
        return replace(self, loads=tuple(load for load in self.loads if load.key in keys))

    @property
    def sidecars(self) -> int:
        """The largest number that any load needs."""
        return max(load.sidecars for load in self.loads)

    @property
    def callers(self) -> bool:
        """Whether any load needs the second Envoy."""
        return any(load.two_envoys for load in self.loads)


def headline(key: str) -> Load:
    """Server TLS 1.3, no resumption, concurrency 64: the load that the summary is made from."""
    return Load(key=key)


def open_loop(load: Load, share: float) -> Load:
    return replace(load, rate_share=share, concurrency=OPEN_CONCURRENCY)


def many_sidecars(key: str, sidecars: int) -> Load:
    return replace(open_loop(headline(key), SIDECAR_SHARE), sidecars=sidecars)


def between_envoys(key: str, tls: str = "1.3") -> Load:
    """A mesh's usual connection: mTLS, with the keys of both ends at Envoys."""
    return Load(key=key, tls=tls, mtls=True, two_envoys=True)


def quick() -> Plan:
    """At most three minutes: the required table, latencies and mTLS of the two usual keys, the effect of sidecars."""
    loads = [headline(key) for key in KEYS]
    loads += [open_loop(headline(key), share) for key in ("rsa2048", "p256") for share in RATE_SHARES]
    loads += [many_sidecars("rsa2048", 8)]
    loads += [between_envoys(key) for key in ("rsa2048", "p256")]
    return Plan(tuple(loads), slice_s=0.8, rounds=3, headline_rounds=4)


def full() -> Plan:
    """Each axis crossed with the usual values of the others; keys, versions, mTLS and resumption with each other."""
    loads = [headline(key) for key in KEYS]
    loads += [
        Load(key=key, tls=tls, mtls=mtls, resumed=resumed)
        for key, tls, mtls, resumed in product(KEYS, ("1.3", "1.2"), (False, True), (False, True))
    ]
    loads += [between_envoys(key, tls) for key, tls in product(KEYS, ("1.3", "1.2"))]
    loads += [Load(key=key, concurrency=concurrency) for key in KEYS for concurrency in CONCURRENCIES]
    loads += [open_loop(headline(key), share) for key in KEYS for share in RATE_SHARES]
    loads += [many_sidecars(key, count) for key in KEYS for count in SIDECARS]
    return Plan(tuple(dict.fromkeys(loads)), slice_s=1.5, rounds=3, headline_rounds=9)
