"""What a supervisor does when a child ends, decided without doing it (OTP's `supervisor`, as a function of facts
and time).

Give it the specs in order of start; tell it each exit with the time; it answers whom to stop, whom to start, after
which delay, or that it is time to give up. It never looks at a clock and starts nothing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable

import msgspec

from .backoff import Backoff
from .child_spec import Intensity, Restart, Strategy
from .messages import NORMAL_REASONS


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision needs to know of a child."""

    id: str
    restart: Restart = Restart.PERMANENT
    significant: bool = False


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about an exit."""

    stop: tuple[str, ...] = ()
    """These living children first, in this order (right to left). Temporary ones among them are not in `start`: they
    are forgotten.
    """
    start: tuple[str, ...] = ()
    """Then these, in this order (left to right)."""
    delay_s: float = 0.0
    """Wait so long before the start."""
    give_up: bool = False
    """Too many restarts: stop everybody, and fail."""
    leave: bool = False
    """A significant child has ended for good: stop everybody, and that is fine."""


class Supervision:
    """The memory of one supervisor: who its children are and when it restarted any."""

    def __init__(
        self,
        children: Iterable[Child] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        backoff: Backoff | None = None,
        rng: random.Random,
    ) -> None:
        self._children = {child.id: child for child in children}
        self._strategy = strategy
        self._intensity = intensity or Intensity()
        self._backoff = backoff or Backoff()
        self._rng = rng
        self._restarts: deque[float] = deque()

    def add(self, child: Child) -> None:
        """A further child, right of all others."""
        self._children[child.id] = child

    def forget(self, child_id: str) -> None:
        """It will not be restarted any more."""
        self._children.pop(child_id, None)

    def handle_exit(self, child_id: str, reason: str, now: float, *, blameless: bool = False) -> Decision:
        """Decide about a child that ended with `reason` at `now` (seconds).

        `blameless`: it ended with its worker, whose own supervision counts that; it is started again at once, on
        its own.
        """
        child = self._children.get(child_id)
        if child is None:
            return Decision()
        if not _wants_restart(child.restart, reason):
            del self._children[child_id]
            return Decision(leave=child.significant)
        if blameless:
            return Decision(start=(child_id,))
        failures = self._count(now)
        if failures > self._intensity.restarts:
            return Decision(give_up=True)
        ids = self._together_with(child_id)
        again = tuple(one for one in ids if self._children[one].restart is not Restart.TEMPORARY)
        for one in set(ids) - set(again):
            del self._children[one]
        return Decision(
            stop=tuple(one for one in reversed(ids) if one != child_id),
            start=again,
            delay_s=self._backoff.delay_s(failures, self._rng),
        )

    def _count(self, now: float) -> int:
        self._restarts.append(now)
        while self._restarts and self._restarts[0] <= now - self._intensity.period_s:
            self._restarts.popleft()
        return len(self._restarts)

    def _together_with(self, child_id: str) -> tuple[str, ...]:
        ids = tuple(self._children)
        if self._strategy is Strategy.ONE_FOR_ALL:
            return ids
        if self._strategy is Strategy.REST_FOR_ONE:
            return ids[ids.index(child_id) :]
        return (child_id,)


def _wants_restart(restart: Restart, reason: str) -> bool:
    return restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and reason not in NORMAL_REASONS)
