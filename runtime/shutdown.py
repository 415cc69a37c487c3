"""Coordinated shutdown: a program ends in named phases, one after another, each with a deadline.

What one has to do at the end is a task of a phase. The tasks of a phase run side by side; the next phase begins when
all of them have ended, or at the phase's deadline: what still runs then is cut off and named in the report, and the
end goes on. Deadlines nest: those of the phases together are less than the total, so whoever waits for the whole
(a service manager, a person) can know how long that takes at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

logger = logging.getLogger(__name__)

Work = Callable[[str], Awaitable[None]]
"""What a task does; it gets the reason of the end."""


class Phase(msgspec.Struct, frozen=True):
    """One step of the end."""

    name: str
    deadline_s: float


class PhaseReport(msgspec.Struct, frozen=True):
    """How a phase went."""

    name: str
    took_s: float
    timed_out: tuple[str, ...] = ()
    """Tasks that were cut off at the deadline."""
    failed: tuple[str, ...] = ()
    """Tasks that raised."""
    skipped: bool = False
    """It was not begun, or cut off before its deadline, because somebody could not wait."""


APPLICATION, CHILDREN, WORKERS, ROOT = "application", "children", "workers", "root"

STANDARD = (
    Phase(APPLICATION, 20.0),  # goodbyes in the application's own order
    Phase(CHILDREN, 60.0),  # from right to left, each within its own `shutdown_ms`
    Phase(WORKERS, 20.0),  # side by side, each within its own `shutdown_ms`
    Phase(ROOT, 5.0),  # what is left over is killed, files are closed
)
"""The phases of a supervisor. Others may stand before, between and after them."""


class Shutdown:
    """The end of one program. On its loop only."""

    def __init__(self, phases: Sequence[Phase] = STANDARD, *, total_s: float = 110.0) -> None:
        """Raises ValueError when two phases have one name, or the deadlines don't nest."""
        names = [phase.name for phase in phases]
        if len(set(names)) != len(names):
            raise ValueError(f"two phases have one name: {', '.join(names)}")
        if any(phase.deadline_s <= 0 for phase in phases):
            raise ValueError("a phase has a deadline above 0 s")
        together_s = sum(phase.deadline_s for phase in phases)
        if together_s >= total_s:
            raise ValueError(f"the phases may take {together_s:g} s together, which is not below {total_s:g} s")
        self.phases = tuple(phases)
        self.total_s = total_s
        self.reports: list[PhaseReport] = []
        """Of the phases that are over, in order."""
        self._work: dict[str, dict[str, Work]] = {name: {} for name in names}
        self._skip_to = 0
        self._current = -1
        self._cut = asyncio.Event()

    def add(self, phase: str, name: str, work: Work) -> None:
        """Have something done in a phase. Raises KeyError for an unknown phase, ValueError when it has that task."""
        work_of_phase = self._work[phase]
        if name in work_of_phase:
            raise ValueError(f"phase {phase} has a task {name} already")
        work_of_phase[name] = work

    def skip_to(self, phase: str) -> None:
        """Begin this phase now: cut off what runs before it. Nothing happens when it has begun. KeyError: unknown."""
        index = list(self._work).index(phase) if phase in self._work else -1
        if index < 0:
            raise KeyError(phase)
        self._skip_to = max(self._skip_to, index)
        if self._current < index:
            self._cut.set()

    async def run(self, reason: str) -> tuple[PhaseReport, ...]:
        """Go through all phases; return how each went. Whatever its tasks do, each ends by its deadline."""
        for index, phase in enumerate(self.phases):
            self._current = index
            if index < self._skip_to:
                self.reports.append(PhaseReport(phase.name, 0.0, skipped=True))
                continue
            self._cut.clear()
            self.reports.append(await self._run(phase, reason))
        return tuple(self.reports)

    async def _run(self, phase: Phase, reason: str) -> PhaseReport:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        tasks = {
            loop.create_task(_do(work, reason), name=name)  # a task each: none holds up, or ends, another
            for name, work in self._work[phase.name].items()
        }
        cut = loop.create_task(self._cut.wait())
        pending = set(tasks)
        left_s = phase.deadline_s
        while pending and left_s > 0 and not cut.done():
            await asyncio.wait({*pending, cut}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            pending = {task for task in tasks if not task.done()}
            left_s = began_s + phase.deadline_s - loop.time()
        skipped = cut.done()
        cut.cancel()
        for task in pending:
            task.add_done_callback(_failed)
            task.cancel()  # it is not waited for: who does not heed this must not hold up the end either
        failed = tuple(sorted(_name(task) for task in tasks - pending if _failed(task)))
        timed_out = () if skipped else tuple(sorted(_name(task) for task in pending))
        if timed_out:
            extra = {"event": "phase_timed_out", "phase": phase.name, "tasks": list(timed_out)}
            logger.error("A phase of the shutdown took too long and is cut off", extra=extra)
        return PhaseReport(phase.name, round(loop.time() - began_s, 6), timed_out, failed, skipped)


async def _do(work: Work, reason: str) -> None:
    await work(reason)


def _name(task: asyncio.Task[None]) -> str:
    return task.get_name()


def _failed(task: asyncio.Task[None]) -> bool:
    if task.cancelled():
        return True
    if (error := task.exception()) is not None:
        extra = {"event": "shutdown_task_failed", "task": task.get_name()}
        logger.error("A task of the shutdown failed", exc_info=error, extra=extra)
        return True
    return False
