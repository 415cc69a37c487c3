"""The end of a program: begun once, by whoever comes first; what it comes to is its `Outcome`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from .outcome import Outcome
from .shutdown import APPLICATION, CHILDREN, ROOT, WORKERS, PhaseReport, Shutdown, Work

logger = logging.getLogger(__name__)

_OURS = (APPLICATION, CHILDREN, WORKERS, ROOT)


class Ending:
    """The end of one program. On its loop only."""

    def __init__(self, shutdown: Shutdown, works: Mapping[str, Work], *, close: Callable[[], tuple[str, ...]]) -> None:
        """`works`: what is to be done in each standard phase. `close` is called last; it returns what was left over.

        Raises ValueError when `shutdown` lacks a standard phase, or has them in another order.
        """
        if tuple(phase.name for phase in shutdown.phases if phase.name in _OURS) != _OURS:
            raise ValueError(f"a shutdown has the phases {', '.join(_OURS)}, in this order")
        for phase, work in works.items():
            shutdown.add(phase, phase, work)
        self.has_begun = False
        self._shutdown = shutdown
        self._close = close
        self._reason, self._failed = "", False
        self._task: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[Outcome] | None = None

    def open(self) -> None:
        """The program starts: from now on it can end."""
        self._outcome = asyncio.get_running_loop().create_future()

    async def wait(self) -> Outcome:
        """Return when it is over."""
        assert self._outcome is not None, "start() first"
        return await asyncio.shield(self._outcome)

    def begin(self, reason: str, *, failed: bool = True, planned: bool = False) -> None:
        """Begin, unless it has begun. Only an end that was planned waits for the application, and tells everybody its
        reason; the others are a `shutdown`.
        """
        self.has_begun = True
        if not planned:
            self._shutdown.skip_to(CHILDREN)
        if self._task is None:
            self._reason, self._failed = reason, failed
            self._task = asyncio.get_running_loop().create_task(self._run(reason if planned else "shutdown"))

    def force(self) -> None:
        """Begin, or go on, at once; it is a failure in any case."""
        self.begin("forced")
        self._reason, self._failed = "forced", True

    async def _run(self, how: str) -> None:
        phases: tuple[PhaseReport, ...] = ()
        leftovers: tuple[str, ...] = ()
        try:
            phases = await self._shutdown.run(how)
            leftovers = self._close()
        except Exception:
            logger.exception("The end failed", extra={"event": "end_failed"})
            self._failed = True
        finally:
            assert self._outcome is not None
            if not self._outcome.done():
                broken = any(one.failed or one.timed_out for one in phases if one.name in {WORKERS, ROOT})
                failed = self._failed or broken or bool(leftovers)
                self._outcome.set_result(Outcome(failed, self._reason, leftovers, phases))
