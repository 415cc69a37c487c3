"""How far away a server is: asked several times in a row, of which the quickest counts. Pure.

Whatever else goes on at the same time, on this host and on the way, only ever makes an answer later. So the least of a
few round trips is the best guess at the path's own.
"""

from typing import Final

from exeunt.actors.turn.codec import Address

from .questions import Questions

REPETITIONS: Final = 4


class Latency:
    """Asks one server, the next time when it has answered; one that does not answer is not asked again."""

    def __init__(self, server: Address, questions: Questions | None = None) -> None:
        self.questions = questions or Questions()
        self._server = server
        self._names = [f"time {number}" for number in range(1, REPETITIONS + 1)]
        self._asked = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self._asked > 0 and not self.questions.is_open(*self._names)

    def handle_start(self, now: float) -> None:
        """Begin."""
        self._ask(now)

    def handle_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take what came in."""
        self.questions.handle_datagram(data, source, now)
        if self.is_done and self._asked < REPETITIONS and self.questions.answers.get(self._names[self._asked - 1]):
            self._ask(now)

    def handle_timeout(self, now: float) -> None:
        """Go on without what has not come."""
        self.questions.handle_timeout(now)

    @property
    def rtt_s(self) -> float | None:
        """The least round trip; None if there was none."""
        answers = (self.questions.answers.get(name) for name in self._names)
        return min((answer.rtt_s for answer in answers if answer and answer.source == self._server), default=None)

    def _ask(self, now: float) -> None:
        self.questions.ask(self._names[self._asked], self._server, now)
        self._asked += 1
