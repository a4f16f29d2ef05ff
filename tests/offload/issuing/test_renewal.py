"""The pure core of renewals: never asleep over the end of a certificate, never asking in a loop."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offload.issuing.renewal import BACKOFF_FIRST_S, BACKOFF_MAX_S, TRANSITIONS, Event, Renewal, State

DAY = 86400.0


def renewal(number: float = 0.5) -> Renewal:
    return Renewal(lambda: number)


def test_the_first_is_due_at_once() -> None:
    one = renewal()
    assert one.is_due(0)
    one.asked()
    assert not one.is_due(1e12), "it is being asked for"


@pytest.mark.parametrize(("number", "share"), [(0, 0.45), (0.5, 0.5), (1, 0.55)])
def test_half_of_its_life_with_jitter(number: float, share: float) -> None:
    one = renewal(number)
    one.asked()
    one.issued(1000, 1000, 1000 + DAY)
    assert one.due_at == pytest.approx(1000 + share * DAY)


def test_an_issuer_may_say_when() -> None:
    one = renewal()
    one.asked()
    one.issued(0, 0, DAY, renew_at=0.9 * DAY)
    assert one.due_at == pytest.approx(0.9 * DAY)


def test_backoff_doubles_up_to_a_bound() -> None:
    one, now, pauses = renewal(1), 0.0, []
    for _ in range(12):
        one.asked()
        one.refused(now)
        pauses.append(one.due_at - now)
        now = one.due_at
    assert pauses[:4] == [BACKOFF_FIRST_S * n for n in (1, 2, 4, 8)]
    assert pauses[-1] == BACKOFF_MAX_S
    one.asked()
    one.issued(now, now, now + DAY)
    assert one.failures == 0


def test_a_clock_that_is_set_forward_makes_one_renewal() -> None:
    one = renewal()
    one.asked()
    one.issued(0, 0, DAY)
    assert not one.is_due(0.4 * DAY)
    assert one.is_due(10 * DAY)
    one.asked()
    one.issued(10 * DAY, 10 * DAY, 11 * DAY)
    assert not one.is_due(10 * DAY + 1)


def test_a_clock_that_is_set_back_makes_one_renewal() -> None:
    """What was issued while it was ahead is not valid yet."""
    one = renewal()
    one.asked()
    one.issued(10 * DAY, 10 * DAY - 60, 11 * DAY)
    assert not one.is_due(10 * DAY - 30), "still valid"
    assert one.is_due(5 * DAY)
    one.asked()
    one.issued(5 * DAY, 5 * DAY - 60, 6 * DAY)
    assert not one.is_due(5 * DAY + 1)


def test_an_issuer_whose_clock_is_ahead_is_not_asked_in_a_loop() -> None:
    one = renewal()
    one.asked()
    one.issued(1000, 1100, 1100 + DAY)
    assert not one.is_due(1001)


def test_a_backoff_ends_when_the_clock_is_set_back() -> None:
    one = renewal()
    one.asked()
    one.refused(DAY)
    assert one.is_due(0)
    one.asked()
    one.refused(0)
    assert not one.is_due(0.1)


def test_events_out_of_order_are_mistakes() -> None:
    one = renewal()
    with pytest.raises(KeyError):
        one.issued(0, 0, 1)
    with pytest.raises(KeyError):
        one.refused(0)
    assert (State.ASKING, Event.ASKED) not in TRANSITIONS


@given(
    seed=st.integers(0, 2**32),
    life=st.floats(2, 90 * DAY),
    age_at_issue=st.floats(0, 0.99),
    outage=st.floats(0, 0.3),
)
def test_whatever_happens_it_is_renewed_in_time(seed: int, life: float, age_at_issue: float, outage: float) -> None:
    """An issuer that is away for up to 30% of the certificate's life, from the moment it is asked on."""
    source = random.Random(seed)
    one = Renewal(source.random)
    one.asked()
    now = 1e9
    begins = now - age_at_issue * life
    ends = begins + life
    one.issued(now, begins, ends)
    assert one.due_at > now, "never in a loop"
    now = one.due_at
    back = now + outage * (ends - now)
    asked = 0
    while now < back:
        assert one.is_due(now)
        one.asked()
        one.refused(now)
        asked += 1
        assert one.due_at >= now + 0.5 * BACKOFF_FIRST_S
        now = one.due_at
    if ends - back > 0.15 * (ends - one.due_at) + 2 * BACKOFF_FIRST_S and ends - back > 20:
        assert now < ends, "asked again before it ended"
    assert asked < 1 + 2 * (back - 1e9) / BACKOFF_FIRST_S
