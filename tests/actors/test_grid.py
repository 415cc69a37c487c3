"""Wake-ups that meet on a grid."""

from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.grid import COARSE_AFTER_S, COARSE_S, on_grid


@given(st.floats(0, 1e6), st.floats(-10, 100))
def test_a_wake_up_is_never_late_and_little_too_early(now: float, ahead_s: float) -> None:
    due = now + ahead_s
    at = on_grid(due, now)
    assert due - COARSE_S <= at <= due
    if ahead_s <= COARSE_AFTER_S:
        assert at == due


def test_who_is_due_at_about_the_same_time_meets() -> None:
    assert {on_grid(100.0 + hundredth / 100, 90.0) for hundredth in range(25)} == {100.0}
