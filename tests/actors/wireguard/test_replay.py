"""The replay window against a model that remembers everything."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.wireguard.replay import ReplayWindow
from exeunt.actors.wireguard.timing import REJECT_AFTER_MESSAGES, REPLAY_WINDOW_PACKETS


def test_each_counter_is_accepted_once_in_any_order() -> None:
    window = ReplayWindow()
    order = [5, 0, 3, 4, 1, 2, 64, 63, 128, 127]
    assert all(window.mark(counter) for counter in order)
    assert not any(window.mark(counter) for counter in order)


def test_the_window_is_8192_wide_to_the_packet() -> None:
    window = ReplayWindow()
    window.mark(100_000)
    assert window.is_fresh(100_000 - REPLAY_WINDOW_PACKETS + 1)
    assert not window.is_fresh(100_000 - REPLAY_WINDOW_PACKETS)


def test_a_leap_to_the_last_counter_forgets_all_before() -> None:
    window = ReplayWindow()
    window.mark(7)
    assert window.mark(REJECT_AFTER_MESSAGES - 1)
    assert not window.mark(8)
    assert window.mark(REJECT_AFTER_MESSAGES - REPLAY_WINDOW_PACKETS)
    assert window.highest == REJECT_AFTER_MESSAGES - 1


STEP = st.one_of(st.integers(-200, 200), st.integers(-8300, 8300), st.integers(0, 100_000))


@pytest.mark.slow
@settings(max_examples=1_000, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_agrees_with_a_set_of_all_counters_seen(steps: list[int]) -> None:
    window = ReplayWindow()
    seen: set[int] = set()
    highest = -1
    for step in steps:
        counter = max(0, highest + step)
        expected = counter not in seen and counter > highest - REPLAY_WINDOW_PACKETS
        assert window.is_fresh(counter) is expected
        assert window.mark(counter) is expected
        if expected:
            seen.add(counter)
            highest = max(highest, counter)
