"""The choice of a pair, alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.ice.nomination import (
    DIRECT_WAIT_S,
    LONGEST_DIRECT_WAIT_S,
    LONGEST_RELAY_WAIT_S,
    RELAY_WAIT_S,
    Contender,
    decide,
)

CONTENDERS = st.lists(
    st.builds(
        Contender,
        key=st.integers(1, 10**9),
        relay_legs=st.integers(0, 2),
        priority=st.integers(0, 2**62),
        valid_since=st.none() | st.floats(0, 100),
        rtt_s=st.floats(0, 20),
    ),
    max_size=12,
    unique_by=lambda c: c.key,
)


def test_at_once_when_nothing_better_is_pending() -> None:
    best = Contender("best", 0, 10, valid_since=5.0)
    pending = Contender("pending", 0, 9, valid_since=None)
    assert decide([pending, best], selected=None, now=5.0).nominate == "best"


@pytest.mark.parametrize(
    ("legs", "rtt_s", "wait_s"),
    [
        (0, 0.030, 0.030 + DIRECT_WAIT_S),
        (0, 0.600, LONGEST_DIRECT_WAIT_S),
        (1, 0.100, 0.100 + RELAY_WAIT_S),
        (2, 0.250, 0.250 + RELAY_WAIT_S),
        (1, 3.000, LONGEST_RELAY_WAIT_S),
    ],
)
def test_a_better_one_has_a_round_trip_and_a_little_more(legs: int, rtt_s: float, wait_s: float) -> None:
    valid = Contender("valid", legs, 9, valid_since=5.0, rtt_s=rtt_s)
    pending = Contender("pending", 0, 10, valid_since=None)
    assert decide([pending, valid], selected=None, now=4.99 + wait_s) == (None, 5.0 + wait_s)
    assert decide([pending, valid], selected=None, now=5.0 + wait_s).nominate == "valid"


def test_one_leg_beats_two_whatever_the_priority() -> None:
    one, two = Contender("one", 1, 1, valid_since=5.0), Contender("two", 2, 99, valid_since=1.0)
    assert decide([two, one], selected=None, now=5.0).nominate == "one"


def test_what_works_is_replaced_only_to_save_a_relay() -> None:
    selected = Contender("selected", 1, 1, valid_since=1.0)
    same = Contender("same", 1, 99, valid_since=2.0)
    direct = Contender("direct", 0, 0, valid_since=3.0)
    assert decide([selected, same], selected=selected, now=9.0) == (None, None)
    assert decide([selected, same, direct], selected=selected, now=9.0).nominate == "direct"


@pytest.mark.slow
@given(contenders=CONTENDERS, now=st.floats(0, 200))
def test_never_nominates_what_is_not_proven_and_never_waits_for_ever(contenders: list[Contender], now: float) -> None:
    decision = decide(contenders, selected=None, now=now)
    valid = [c for c in contenders if c.valid_since is not None]
    if decision.nominate is not None:
        [chosen] = [c for c in contenders if c.key == decision.nominate]
        assert chosen in valid
        assert chosen.rank == min(c.rank for c in valid)
    elif valid:
        assert decision.wait_until is not None
        assert decision.wait_until > now
        assert decide(contenders, selected=None, now=decision.wait_until).nominate is not None
    else:
        assert decision.wait_until is None


@pytest.mark.slow
@given(contenders=CONTENDERS, now=st.floats(0, 200))
def test_the_chosen_one_is_not_replaced_by_the_next_decision(contenders: list[Contender], now: float) -> None:
    decision = decide(contenders, selected=None, now=now)
    for chosen in contenders:
        if chosen.key == decision.nominate:
            again = decide(contenders, selected=chosen, now=now + 60)
            assert again.nominate is None or again.nominate != chosen.key
            better = [c for c in contenders if c.valid_since is not None and c.relay_legs < chosen.relay_legs]
            assert (again.nominate is not None) == bool(better)
