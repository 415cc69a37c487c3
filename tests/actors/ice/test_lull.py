"""When checks are left to gather."""

from exeunt.actors.ice.lull import MANY_PER_S, WINDOW_S, Lull


class Line:
    """A socket and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lull = Lull(self.now)

    def bring(self, per_s: float, seconds: float, *, data: bool = False) -> bool:
        for _ in range(round(per_s * seconds)):
            self.now += 1 / per_s
            self.lull.note(1, self.now, data=data)
        return self.lull.is_on


def test_many_checks_and_nothing_else_make_a_lull() -> None:
    assert Line().bring(MANY_PER_S * 1.1, 2.5 * WINDOW_S)
    assert not Line().bring(MANY_PER_S * 0.9, 2.5 * WINDOW_S)


def test_the_first_datagram_of_anything_else_ends_it_for_a_second() -> None:
    line = Line()
    assert line.bring(400, 2 * WINDOW_S)
    assert not line.bring(400, 1 / 400, data=True)
    assert not line.bring(400, 0.9 * WINDOW_S)
    assert line.bring(400, 2 * WINDOW_S)


def test_it_ends_when_the_peers_have_gone() -> None:
    line = Line()
    assert line.bring(400, 2 * WINDOW_S)
    line.now += WINDOW_S
    line.lull.note(0, line.now, data=False)
    assert line.lull.is_on  # the second that just ended had some
    line.now += WINDOW_S
    line.lull.note(0, line.now, data=False)
    assert not line.lull.is_on
