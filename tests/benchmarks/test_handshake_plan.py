from __future__ import annotations

from benchmarks.handshake import plan, run
from benchmarks.handshake.plan import KEYS, headline, open_loop


def test_the_quick_run_is_quick_and_has_the_required_table() -> None:
    quick = plan.quick()
    assert quick.seconds <= 170, "at most three minutes, the start of everything included"
    assert {headline(key) for key in KEYS} <= set(quick.loads)
    assert quick.sidecars == 8


def test_the_full_run_covers_every_axis() -> None:
    loads = plan.full().loads
    assert len(set(loads)) == len(loads)
    for axis, values in {
        "key": KEYS,
        "tls": ("1.2", "1.3"),
        "mtls": (False, True),
        "resumed": (False, True),
        "concurrency": plan.CONCURRENCIES,
        "sidecars": plan.SIDECARS,
        "rate_share": (*plan.RATE_SHARES, None),
    }.items():
        assert set(values) <= {getattr(load, axis) for load in loads}, axis


def test_an_open_loop_comes_after_the_saturation_that_its_rate_is_a_share_of() -> None:
    for chosen in (plan.quick(), plan.full()):
        for position, load in enumerate(chosen.loads):
            if load.rate_share is not None:
                assert headline(load.key) in chosen.loads[:position], load.name


def test_rates_are_shares_of_stock() -> None:
    load = open_loop(headline("p256"), 0.6)
    cells = [
        {"mode": mode, **vars(headline("p256")), "handshakes_per_s": rate}
        for mode, rate in (("stock", 1000), ("ifma", 9))
    ]
    assert run.rate_of(load, cells) == 600
    assert run.rate_of(headline("p256"), cells) is None


def test_every_mode_is_first_once() -> None:
    assert [run.rotated(["a", "b", "c"], number)[0] for number in range(3)] == ["a", "b", "c"]
    assert sorted(run.rotated(["a", "b", "c"], 7)) == ["a", "b", "c"]


def test_keys_can_be_chosen() -> None:
    assert {load.key for load in plan.quick().only(["p256"]).loads} == {"p256"}


def test_names_tell_loads_apart() -> None:
    loads = plan.full().loads
    assert len({load.name for load in loads}) == len(loads)
