"""The wall clock of both Envoys and the daemon is set, as when a machine without the right time is given it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from deploy.node.waiting import wait_for
from tests.envoy_ext.mesh import CART, PRICES
from tests.faults.rig import Result, Rig, none_failed, rig, saw_reason
from tests.faults.wall_clock import WallClock
from tests.offload.key_files import Authority, key_pem

HOUR = 3600
DAY = 24 * HOUR
SPARES = tuple(f"spiffe://mesh.test/spare/{number}" for number in range(3))
RENEWALS_SEEN_FOR_S = 1.5  # the daemon looks at its clock every second


def _issuer(folder: Path, authority: Authority) -> dict[str, Any]:
    """A CA on this node; its certificates last for a day."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "issuer.crt").write_bytes(authority.pem)
    (folder / "issuer.key").write_bytes(key_pem(authority.key))
    files = {"certificate": str(folder / "issuer.crt"), "key": str(folder / "issuer.key")}
    return {"here": {"local_ca": files | {"lifetime_hours": 24}}}


def _generated(folder: Path, who: str) -> dict[str, Any]:
    bundles = [{"file": str(folder / f"{who}-ca.pem"), "trust_domain": "mesh.test"}]
    rule = {"selectors": [{"uid": 0}], "usage": "any", "trust_bundles": bundles}
    return rule | {"source": {"generate": {"issuer": "here", "key_type": "p256"}}}


def _issued(there: Rig) -> int:
    return len(there.daemon.events("certificate issued"))


def clock_set_by_an_hour(folder: Path) -> Result:
    """All certificates stay valid. Those of the spare identities were just issued, so an hour earlier they were not."""
    clock, authority = WallClock(folder / "clock"), Authority.make()
    identities = {name: _generated(folder, "cart") for name in SPARES}
    more: dict[str, Any] = {"authority": authority, "issuers": _issuer(folder, authority), "identities": identities}
    with rig(folder, environment=clock.environment, **more) as there:
        there.daemon.wait_log("certificate issued", len(SPARES))
        for ahead, renewals in ((HOUR, 0), (-HOUR, len(SPARES)), (0, 0)):
            before = _issued(there)
            clock.is_ahead_by(ahead)
            if renewals:
                wait_for("renewals", lambda: _issued(there) >= before + renewals)  # noqa: B023
            time.sleep(RENEWALS_SEEN_FOR_S)
            assert _issued(there) == before + renewals, f"the clock is ahead by {ahead} s: no more than needed"
            there.load.wait_successes(50)
    return none_failed(
        there.judge(
            Result(
                "clock set by an hour, forward and back",
                "no request fails; each certificate is renewed once at most",
            )
        )
    )


def clock_set_past_the_end(folder: Path) -> Result:
    """The certificates are files, and nobody renews them."""
    clock = WallClock(folder / "clock")
    with rig(folder, environment=clock.environment) as there:
        clock.is_ahead_by(91 * DAY)
        wait_for("refusals", lambda: saw_reason(there, "certificate has expired"))
        before = there.load.successes()
        time.sleep(0.5)
        assert there.load.successes() == before, "nobody is let in by a certificate that has ended"
        clock.is_ahead_by(0)
        there.recovers()
    return there.judge(
        Result("clock set past the end of the certificates, and back", "rejected with that reason until it is right")
    )


def clock_set_past_the_end_of_generated(folder: Path) -> Result:
    """The daemon renews by itself: what has ended, and, with the clock set right again, what is not valid yet."""
    clock, authority = WallClock(folder / "clock"), Authority.make()
    identities = {CART: _generated(folder, "cart"), PRICES: _generated(folder, "prices")}
    with rig(
        folder,
        lambda services: services.client_tls(identities=(CART,), session_tickets=False),
        {"identities": (PRICES,)},
        environment=clock.environment,
        authority=authority,
        issuers=_issuer(folder, authority),
        identities=identities,
    ) as there:
        for ahead in (2 * DAY, 0):
            before = _issued(there)
            clock.is_ahead_by(ahead)
            there.recovers()
            time.sleep(RENEWALS_SEEN_FOR_S)
            assert _issued(there) == before + len(identities), "each once"
    return there.judge(
        Result("clock set past the end of generated certificates, and back", "they are renewed at once, each once")
    )


ALL = (clock_set_by_an_hour, clock_set_past_the_end, clock_set_past_the_end_of_generated)
