"""Which worker gets the next connection."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.placement import Placement
from exeunt.actors.timing import TAKE_OVER_S

WORKERS = ("peers-1", "peers-2", "peers-3")


def test_the_one_with_the_fewest_and_among_equals_the_first() -> None:
    placement = Placement(WORKERS)
    assert placement.choose([], 0.0) == "peers-1"
    assert placement.choose(["peers-1"], 0.0) == "peers-2"
    assert placement.choose(["peers-1", "peers-1", "peers-2", "peers-3", "peers-3"], 0.0) == "peers-2"


@given(st.lists(st.booleans()))
def test_whoever_comes_and_goes_nobody_is_given_more_than_the_fewest(arrives: list[bool]) -> None:
    placement, taken = Placement(WORKERS), list[str]()
    for comes in arrives:
        if comes or not taken:
            fewest = min(Counter(taken)[worker] for worker in WORKERS)
            chosen = placement.choose(taken, 0.0)
            assert Counter(taken)[chosen] == fewest
            taken.append(chosen)
        else:
            taken.pop(0)


def test_a_worker_that_was_lost_gets_nobody_until_it_is_back() -> None:
    placement = Placement(WORKERS)
    placement.lost("peers-1", 10.0)
    assert placement.choose([], 10.0) == "peers-2"
    placement.back("peers-1")
    assert placement.choose([], 10.0) == "peers-1"


def test_a_report_that_never_comes_is_not_waited_for_for_ever() -> None:
    placement = Placement(WORKERS)
    placement.lost("peers-1", 10.0)
    assert placement.choose([], 10.0 + TAKE_OVER_S) == "peers-1"


def test_where_all_are_lost_somebody_is_chosen_all_the_same() -> None:
    placement = Placement(WORKERS[:2])
    placement.lost("peers-1", 10.0)
    placement.lost("peers-2", 10.0)
    assert placement.choose(["peers-1"], 10.0) == "peers-2"
