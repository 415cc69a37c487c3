"""The first step of a coroutine, taken at once: most handlers that are async never wait.

What a coroutine does before it first waits can as well be done by whoever called it. Only if it does wait must a task
take it over, and wake-ups be paid for. The step is taken in the name of that task (`asyncio.current_task`), and in
its context, so that timeouts, task groups and context variables work as if it had run there from the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

# Documented for whoever runs tasks ("Extending asyncio"), underscores and all.
enter: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None] = getattr(asyncio, "_enter_task")  # noqa: B009
leave: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None] = getattr(asyncio, "_leave_task")  # noqa: B009


class Rest:
    """What is left of a coroutine that has taken its first step. Await it in the task in whose name it was taken."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        """Go on where it waits."""
        coroutine, waits_for = self._coroutine, self._waits_for
        while True:
            step: Callable[[Any], Any]
            argument: Any
            try:
                sent = yield waits_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 - a cancellation, most likely: it is the coroutine's
                step, argument = coroutine.throw, error
            else:
                step, argument = coroutine.send, sent
            try:
                waits_for = step(argument)
            except StopIteration as end:
                return end.value


def first_step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Take a coroutine's first step; return its result, or a `Rest`. Raises what it raises."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration as end:
        return end.value
    return Rest(coroutine, waits_for)


def as_task(
    task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop, context: Context, function: Callable[[], Any]
) -> Any:
    """Call a function in the name of a task that waits, and in its context, from a callback of its loop."""
    enter(loop, task)
    try:
        return context.run(function)
    finally:
        leave(loop, task)
