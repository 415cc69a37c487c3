"""When another path is asked for: once, soon, and again when this host has moved."""

import pytest

from exeunt.actors.peer.restarts import Restarts, RestartWanted
from exeunt.actors.timing import RESTART_ANSWER_S, RESTART_REPEAT_S, RESTART_S, RESTART_SPACING_S


def asked(restarts: Restarts) -> list[str]:
    found: list[str] = []
    while (event := restarts.poll_event()) is not None:
        found.append(event.reason)
    return found


def test_silence_asks_once_until_it_can_be_in_vain() -> None:
    restarts = Restarts()
    for tenths in range(int(RESTART_REPEAT_S * 10)):
        restarts.handle_wanted("silence", 100 + tenths / 10)
    assert asked(restarts) == ["silence"]
    restarts.handle_wanted("silence", 100 + RESTART_REPEAT_S)
    assert asked(restarts) == ["silence"]


def test_a_search_under_way_is_the_answer_to_silence() -> None:
    restarts = Restarts()
    restarts.handle_wanted("silence", 100)
    assert restarts.handle_began(1, 100.1)
    assert restarts.is_under_way
    assert asked(restarts) == ["silence"]
    restarts.handle_wanted("silence", 100 + RESTART_S)
    assert asked(restarts) == []
    restarts.handle_over(1)
    restarts.handle_wanted("silence", 100 + RESTART_S)
    assert asked(restarts) == ["silence"]


def test_a_search_that_never_says_it_is_over_does_not_block_for_ever() -> None:
    restarts = Restarts()
    restarts.handle_began(1, 100)
    restarts.handle_wanted("silence", 100 + RESTART_S + RESTART_REPEAT_S)
    assert asked(restarts) == ["silence"]


def test_a_host_that_moved_asks_although_a_search_is_under_way() -> None:
    restarts = Restarts()
    restarts.handle_began(1, 100)
    restarts.handle_wanted("another address", 100 + RESTART_SPACING_S, moved=True)
    assert asked(restarts) == ["another address"]


def test_a_host_that_moves_and_moves_asks_once_a_second() -> None:
    restarts = Restarts()
    restarts.handle_wanted("first", 99.9, moved=True)
    assert restarts.handle_began(1, 100)
    for tenths in range(1, 10):
        restarts.handle_wanted("second", 100 + tenths / 10, moved=True)
    assert asked(restarts) == ["first"]
    due = restarts.poll_timeout()
    assert due is not None
    assert due == (100 + RESTART_SPACING_S, "a restart is due")
    restarts.handle_timeout(100.5)
    assert asked(restarts) == []
    restarts.handle_timeout(due[0])
    assert asked(restarts) == ["second"]


def test_a_portal_that_does_not_answer_is_doubted_and_told_again() -> None:
    restarts = Restarts()
    restarts.handle_wanted("silence", 100)
    assert restarts.poll_event() == RestartWanted("silence")
    assert restarts.poll_timeout() == (100 + RESTART_ANSWER_S, "a restart is due")
    restarts.handle_timeout(100 + RESTART_ANSWER_S)
    assert restarts.poll_event() == RestartWanted("silence", again=True)
    assert restarts.poll_timeout() is None, "once for each wish"


def test_a_portal_that_answers_is_not_doubted() -> None:
    restarts = Restarts()
    restarts.handle_wanted("silence", 100)
    assert restarts.handle_began(1, 100.2)
    assert restarts.poll_timeout() is None


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_only_a_newer_generation_begins(generation: int) -> None:
    restarts = Restarts()
    assert restarts.handle_began(2, 100)
    assert not restarts.handle_began(generation, 101)
    assert restarts.generation == 2


def test_the_end_of_an_older_search_is_not_the_newer_ones() -> None:
    restarts = Restarts()
    restarts.handle_began(1, 100)
    restarts.handle_began(2, 100.5)
    restarts.handle_over(1)
    assert restarts.is_under_way
    restarts.handle_over(2)
    assert not restarts.is_under_way
