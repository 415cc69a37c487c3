"""One incarnation of a worker that Ray has placed, as the supervisor sees it.

Its life is a chain of calls to its seat: `take`, `live`, `rest`. Each is pending until the seat answers, or until Ray
says that the seat is gone. The connection may know earlier; then Ray has a moment left to say how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ..lifeline import REFUSED
from ..wakeups import call_later
from ..worker import Boot
from .seat import Left, Taken

logger = logging.getLogger(__name__)

_RAYS_WORD_S = 0.25  # measured: Ray knows of a dead process after 10 ms, of a dead machine after seconds
_TRIES = 3
_KILL_S = 2.0  # for the end of what was killed to be seen; the network may be what is broken


class PlacedWorker:
    """A worker on a machine of a Ray cluster. On the supervisor's loop only."""

    def __init__(self, boot: Boot, ray: Any) -> None:
        self.boot = boot
        self.ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Done with the pid when the worker listens; fails when it ends before that."""
        self.ended = asyncio.Event()
        self.exit_reason = "running"
        self.taken: Taken | None = None
        """Where it lives, once Ray has placed it."""
        self.left: Left | None = None
        """What it reported when it left; None if it could not."""
        self.unconfirmed = False
        """It has ended by all that is known here, but Ray does not know yet."""
        self.survives = False
        """It was killed, and there is no sign that it is gone."""
        self._ray = ray
        self._seat: Any = None
        self._lost = asyncio.Event()
        self._refused = False
        self._killed = False
        self._life: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process on its machine; 0 before it was placed."""
        return self.taken.pid if self.taken is not None else 0

    @property
    def is_ready(self) -> bool:
        """Say whether the worker has reported that it listens."""
        return self.ready.done() and self.ready.exception() is None

    async def until_ready(self) -> int:
        """Wait until the worker listens. Raises RuntimeError when it ends before that."""
        return await asyncio.shield(self.ready)

    def start(
        self,
        *,
        place: Callable[[], Any],
        arguments: tuple[str, ...],
        on_taken: Callable[[Taken], None],
        on_kill: Callable[[], None],
        on_end: Callable[[PlacedWorker], None],
    ) -> None:
        """Have it placed, with the further `arguments` of `Seat.take`; `on_end` is called once, when it has ended."""
        self._on_kill = on_kill

        def over(life: asyncio.Task[None]) -> None:
            if not life.cancelled() and life.exception() is not None:
                logger.error("A worker could not run", exc_info=life.exception(), extra={"event": "worker_failed"})
                self.exit_reason = "could not run"
            self.ended.set()
            if not self.ready.done():
                self.ready.set_exception(
                    RuntimeError(f"worker {self.boot.worker} ended at its start: {self.exit_reason}")
                )
                self.ready.exception()
            on_end(self)

        live = self._live(place, arguments, on_taken)
        self._life = asyncio.get_running_loop().create_task(live, name=f"{self.boot.node}:{self.boot.worker}")
        self._life.add_done_callback(over)

    def kill(self) -> None:
        """Have Ray kill its process."""
        if self._killed or self.ended.is_set():
            return
        self._killed = True
        self.exit_reason = "killed"
        self._on_kill()
        self._end_seat()
        call_later(asyncio.get_running_loop(), _KILL_S, "a worker is killed", self._lost.set)

    def lost(self, how: str) -> None:
        """Take note that its connection has ended for good."""
        if not self._killed and self.exit_reason == "running":
            self.exit_reason = f"lost: {how}"
        self._refused = how == REFUSED
        self._lost.set()

    # --- inside ---

    async def _live(
        self, place: Callable[[], Any], arguments: tuple[str, ...], on_taken: Callable[[Taken], None]
    ) -> None:
        if self._killed:
            return
        errors = self._ray.exceptions
        try:
            self.taken = await self._take(place, arguments)
            on_taken(self.taken)
            left: Left = await self._word(self._seat.live.remote())
            self.left = left
            self._ended_as(f"exit code {left.code}")
            rest = self._seat.rest.remote()
            self._end_seat()
            await self._word(rest)
        except errors.RayTaskError as error:
            logger.error(  # Ray's error has the other end's traceback
                "A worker could not run",
                extra={"event": "worker_failed", "of": self.boot.worker, "error": str(error)},
            )
            self._ended_as(f"could not run: {error.cause!r}")
        except errors.ActorUnavailableError:
            self._ended_as("lost: Ray does not reach it")
            self.unconfirmed = self.left is None
        except errors.RayError as error:
            self._ended_as(f"its process or its machine has ended ({type(error).__name__})")
        except TimeoutError:
            self.unconfirmed = self.left is None
            self.survives = self._killed and not self._refused
        finally:
            self._end_seat()

    async def _take(self, place: Callable[[], Any], arguments: tuple[str, ...]) -> Taken:
        """Have it placed; again, if the machine was lost before Ray knew."""
        document = msgspec.msgpack.encode(self.boot)
        tries = 0
        while True:
            tries += 1
            self._seat = place()
            try:
                taken: Taken = await self._word(self._seat.take.remote(document, *arguments))
            except self._ray.exceptions.RayActorError:
                if tries == _TRIES or self._killed:
                    raise
                self._end_seat()
            else:
                return taken

    def _ended_as(self, reason: str) -> None:
        if not self._killed:
            self.exit_reason = reason

    def _end_seat(self) -> None:
        if self._seat is not None:
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.kill(self._seat, no_restart=True)

    async def _word(self, call: Any) -> Any:
        """Wait for what a call to the seat answers. Raises RayError if it ends first, TimeoutError if it is lost."""
        answer = _future(call)
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await asyncio.wait({answer}, timeout=_RAYS_WORD_S)
        finally:
            lost.cancel()
        if not answer.done():
            raise TimeoutError
        return answer.result()


def _future(call: Any) -> asyncio.Future[Any]:
    """Return a future of this loop for a call's answer, which comes on a thread of Ray's."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(answer: Any) -> None:
        if future.done():
            return
        error = answer.exception()
        if error is None:
            future.set_result(answer.result())
        else:
            future.set_exception(error)
            future.exception()  # it may come after everybody has stopped waiting

    def answered(answer: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, answer)

    call.future().add_done_callback(answered)
    return future
