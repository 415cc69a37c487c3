"""The answer to an ask, awaited on a loop or waited for on a thread.

pykka's `Future` blocks the loop when awaited; this one has both faces. Which one it uses is decided where the ask
is made: on the node's loop an asyncio future, elsewhere a thread-safe one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Generator
from typing import Any

import pykka

from .errors import ActorDead, AskTimeout

_LOOP_GRACE_S = 1.0  # the loop's own timer comes first while the loop runs, with the better message


class Reply(pykka.Future[Any]):
    """What `ask` returns: `await` it on a loop, or `get()` it on a thread. It always resolves, by the ask's
    deadline at the latest.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, on_loop: bool, timeout_s: float | None = None) -> None:
        super().__init__()
        self._timeout_s = timeout_s
        self._near: asyncio.Future[Any] | None = loop.create_future() if on_loop else None
        self._far: concurrent.futures.Future[Any] | None = None if on_loop else concurrent.futures.Future()
        self.timer: asyncio.TimerHandle | None = None

    @property
    def done(self) -> bool:
        """Say whether the answer is there."""
        future = self._near if self._near is not None else self._far
        assert future is not None
        return future.done()

    def set(self, value: Any = None) -> None:
        """Resolve with the answer (the node does this, on its loop)."""
        future = self._near if self._near is not None else self._far
        assert future is not None
        if not future.done():
            future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Resolve with an error (the node does this, on its loop)."""
        if self._near is not None:
            if not self._near.done():
                self._near.set_exception(error)
                self._near.exception()  # marks it as seen: an abandoned ask is no warning
        elif self._far is not None and not self._far.done():
            self._far.set_exception(error)

    def get(self, *, timeout: float | None = None) -> Any:
        """Block this thread until the answer is there. Raises what the ask ended with, or AskTimeout: after `timeout`
        seconds, and at the ask's own deadline even if the loop that would say so no longer runs.

        On the node's own loop that would wait for ever, so there it raises RuntimeError.
        """
        if self._far is None:
            raise RuntimeError("get() would block the loop that brings the answer: await the reply instead")
        if timeout is None and self._timeout_s is not None:
            timeout = self._timeout_s + _LOOP_GRACE_S
        try:
            return self._far.result(timeout)
        except TimeoutError as error:
            if isinstance(error, AskTimeout):
                raise
            raise AskTimeout(f"no answer within {timeout} s") from None
        except concurrent.futures.CancelledError:
            raise ActorDead("the ask was abandoned") from None

    def __await__(self) -> Generator[None, None, Any]:
        """Wait on a loop without blocking it."""
        if self._near is not None:
            return (yield from self._near.__await__())
        assert self._far is not None
        return (yield from asyncio.wrap_future(self._far).__await__())
