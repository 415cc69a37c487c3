"""The timer of a connection: it wakes in time, and says what for."""

import asyncio

import pytest

from exeunt.actors.peer.alarm import Alarm
from exeunt.runtime.testing import FakeClock
from exeunt.runtime.wakeups import wakeups_of


@pytest.mark.parametrize("is_coarse", [False, True])
def test_a_wake_up_has_the_name_of_what_it_was_set_for(is_coarse: bool) -> None:
    async def main() -> tuple[list[float], dict[str, int]]:
        loop, rung = asyncio.get_running_loop(), list[float]()

        def wake() -> None:
            rung.append(loop.time())

        alarm = Alarm(is_coarse=is_coarse)
        alarm.set(loop, (120.0, "rekey"), 0.0, wake)
        alarm.set(loop, (10.0, "liveness"), 0.0, wake)  # is sooner: takes its place
        alarm.set(loop, (25.0, "idle"), 0.0, wake)  # is later: the one that is set stays
        await asyncio.sleep(60)
        alarm.set(loop, (60.5, "goodbye is repeated"), 60.0, wake)
        await asyncio.sleep(60)
        return rung, wakeups_of(loop).counts

    rung, counts = FakeClock().run(main())
    assert rung == [10.0, 60.5]
    woken = {"timer:liveness": 1, "timer:goodbye is repeated": 1}
    # A point of the grid stays when nobody is expected there any more.
    assert counts == ({**woken, "timer:rekey": 1} if is_coarse else woken)
