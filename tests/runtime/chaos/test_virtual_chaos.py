"""Chaos in virtual time: the same rules as with processes, and a network that is at fault itself."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runtime.chaos.reckoning import Reckoning
from tests.runtime.chaos.weather import ALWAYS, DOUBLES, LOSSES, Weather

FAULTS = 200
EXAMPLES = int(os.environ.get("EXEUNT_CHAOS_EXAMPLES", "5"))
ASK_MS = 1_000.0
RELIABLY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SEEDS = st.integers(0, 2**32)


def weathered(weather: Weather) -> Reckoning:
    """Have it hit; check what must be so whatever it was."""
    assert weather.run(FAULTS) == [0, 0, 0, 0], "asks are still pending"
    reckoning = Reckoning(weather.books, weather.rings, killed=weather.killed, lost=weather.lost)
    assert max(facts.slowest_ms for facts in reckoning.facts) <= ASK_MS  # no grace: time is exact
    return reckoning


@pytest.mark.slow
@RELIABLY
@given(seed=SEEDS)
def test_what_is_neither_handled_nor_a_dead_letter_was_lost_by_the_network(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    weather = Weather(tmp_path_factory.mktemp("weather"), seed, (*ALWAYS, *LOSSES))
    weathered(weather).check()


@pytest.mark.slow
@RELIABLY
@given(seed=SEEDS)
def test_what_is_handled_twice_was_brought_twice(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    weather = Weather(tmp_path_factory.mktemp("weather"), seed, (*ALWAYS, *DOUBLES))
    reckoning = weathered(weather)
    fates = reckoning.recorded + reckoning.dropped
    assert {id_ for id_, times in fates.items() if times > 1} <= weather.twice
    assert max(fates.values()) <= 2
    assert set(reckoning.told) <= set(fates), "a tell was lost in silence"
