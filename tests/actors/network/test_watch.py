"""What counts as a change of network, and what does not."""

from exeunt.actors.network.watch import NetworkWatch
from exeunt.actors.timing import CLOCK_LOOK_S, NETWORK_SETTLE_MAX_S, NETWORK_SETTLE_S, SUSPEND_S

HOME = frozenset({"192.0.2.7", "out 192.0.2.7"})
CAFE = frozenset({"198.51.100.9", "out 198.51.100.9"})
BOOT = 5000.0


def watch(now: float = 100.0) -> NetworkWatch:
    return NetworkWatch(HOME, now, BOOT + now)


def test_many_events_are_one_look_once_they_are_over() -> None:
    one = watch()
    for tenths in range(4):
        one.handle_event(100 + tenths / 10)
        assert not one.wants_picture(100 + tenths / 10)
    due = one.poll_timeout()
    assert due == (100.3 + NETWORK_SETTLE_S, "the network has settled")
    assert one.wants_picture(due[0])


def test_a_network_that_never_settles_is_looked_at_all_the_same() -> None:
    one = watch()
    now = 100.0
    while not one.wants_picture(now):
        one.handle_event(now)
        now += 0.1
    assert now - 100 <= NETWORK_SETTLE_MAX_S + 0.15


def test_the_same_picture_is_no_change_and_the_next_event_looks_again() -> None:
    one = watch()
    one.handle_event(100.0)
    assert one.handle_picture(HOME) is None
    assert not one.wants_picture(200.0)
    one.handle_event(200.0)
    assert one.handle_picture(CAFE) == "addresses changed: 2 came, 2 went"
    assert one.handle_picture(CAFE) is None
    assert one.handle_picture(frozenset()) == "addresses changed: 0 came, 2 went"


def test_a_host_that_slept_is_told_by_its_boot_time_clock() -> None:
    one = watch()
    now = 100 + CLOCK_LOOK_S
    assert one.handle_clocks(now, BOOT + now) is None
    now += CLOCK_LOOK_S
    assert one.handle_clocks(now, BOOT + now + 3600) == "this host slept for 3600 s"
    now += CLOCK_LOOK_S
    assert one.handle_clocks(now, BOOT + now + 3600) is None


def test_a_process_that_was_stopped_is_told_by_its_late_timer() -> None:
    one = watch()
    assert one.handle_clocks(100 + CLOCK_LOOK_S + 60, BOOT + 162) == "this process was stopped for 60 s"
    assert one.handle_clocks(162 + CLOCK_LOOK_S + SUSPEND_S - 1, BOOT + 166 + CLOCK_LOOK_S) is None


def test_clocks_are_compared_when_it_is_time_and_not_with_every_event() -> None:
    one = watch()
    assert one.handle_clocks(100.5, BOOT + 100.5 + 3600) is None
    assert one.poll_timeout() == (100 + CLOCK_LOOK_S, "clocks are compared")
