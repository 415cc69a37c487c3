"""The answer to an ask, awaited on a loop or waited for on a thread.

pykka's `Future` blocks the loop when awaited. Which of two futures an ask returns is decided where it is made: on the
node's loop an asyncio future, elsewhere a thread-safe one. Whoever gives up says so to the recipient: cancelling the
reply, or the task that awaits it, withdraws the ask.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Generator
from typing import Any, Protocol

from .errors import ActorDead, AskTimeout

_LOOP_GRACE_S = 1.0  # the loop's own timer comes first while the loop runs, with the better message


class Reply(Protocol):
    """What `ask` returns: `await` it on a loop, or `get()` it on a thread. It always resolves, by the ask's
    deadline at the latest.
    """

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait on a loop without blocking it."""
        ...

    def get(self, *, timeout: float | None = None) -> Any:
        """Block this thread until the answer is there. Raises what the ask ended with, or AskTimeout: after `timeout`
        seconds, and at the ask's own deadline even if the loop that would say so no longer runs.

        On the node's own loop that would wait for ever, so there it raises RuntimeError.
        """
        ...

    def done(self) -> bool:
        """Say whether it has resolved."""
        ...

    def cancel(self) -> bool:
        """Give up: nobody waits any more, and the recipient is told. False when it has resolved."""
        ...


class NearReply(asyncio.Future[Any]):
    """A `Reply` for who asks on the node's loop."""

    ask_id = 0
    to = ""
    abandoned: Callable[[int], None] | None = None
    """What to call when somebody gives up."""

    def get(self, *, timeout: float | None = None) -> Any:
        """Raise RuntimeError: see `Reply.get`."""
        raise RuntimeError("get() would block the loop that brings the answer: await the reply instead")

    def cancel(self, msg: Any = None) -> bool:
        """Give up."""
        if not super().cancel(msg):
            return False
        if self.abandoned is not None:
            self.abandoned(self.ask_id)
        return True

    def resolve(self, value: Any) -> None:
        """Be answered (the node does this)."""
        if not self.done():
            self.set_result(value)

    def fail(self, error: BaseException) -> None:
        """End with an error (the node does this)."""
        if not self.done():
            self.set_exception(error)
            self.exception()  # marks it as seen: an ask whose reply nobody awaits is no warning


class FarReply:
    """A `Reply` for who asks on any other thread."""

    def __init__(self, timeout_s: float) -> None:
        self.ask_id = 0
        self.to = ""
        self.abandoned: Callable[[int], None] | None = None
        self._timeout_s = timeout_s
        self._future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._future.add_done_callback(self._done)

    def done(self) -> bool:
        """Say whether it has resolved."""
        return self._future.done()

    def cancel(self) -> bool:
        """Give up."""
        return not self._future.done() and self._future.cancel()

    def resolve(self, value: Any) -> None:
        """Be answered (the node does this)."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled just now, by its thread
            self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """End with an error (the node does this)."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self._future.set_exception(error)

    def get(self, *, timeout: float | None = None) -> Any:
        """Block this thread until the answer is there; see `Reply.get`."""
        if timeout is None:
            timeout = self._timeout_s + _LOOP_GRACE_S
        try:
            return self._future.result(timeout)
        except TimeoutError as error:
            if isinstance(error, AskTimeout):
                raise
            raise AskTimeout(f"no answer within {timeout} s") from None
        except concurrent.futures.CancelledError:
            raise ActorDead("the ask was abandoned") from None

    def _done(self, future: concurrent.futures.Future[Any]) -> None:
        # Here, since what is cancelled may be the future that another loop awaits in place of this one.
        if future.cancelled() and self.abandoned is not None:
            self.abandoned(self.ask_id)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait on a loop without blocking it."""
        return asyncio.wrap_future(self._future).__await__()
