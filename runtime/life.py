"""How an actor lives: the machinery below `Actor`.

The node calls `pump` when something waits. Sync handlers run right there, one message after another: an actor that
has only those needs no task, and an idle one costs nothing but its memory. The first handler or hook that is async
gets the actor a task, one for its whole life (a task per message costs two to three times as much); while that task
is busy, nothing else of this actor runs, and when it is done it goes on with what waits.

    starting ──on_start──▶ running ──stop──▶ stopping ──on_stop──▶ exited
        └──────raises─────────┴──raises──▶ stopping ──on_crash──▶ exited

Whatever a hook or handler raises ends this actor only. `handling` has what happens between start and stop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .context import CURRENT, stand_in
from .envelope import Envelope
from .errors import ActorDead, Failure, to_failure
from .handling import Handling, Stage
from .stepping import as_task, first_step

if TYPE_CHECKING:
    from .node import Node
    from .ref import Ref

logger = logging.getLogger(__name__)

_TURNS = 128  # times that the task goes on without letting others have the loop


class Life(Handling):
    """The machinery of one actor, which its author need not know. On the loop's thread only."""

    has_started = False
    """Whether `on_start` has run to its end."""
    _started: asyncio.Future[None] | None = None
    _ended: asyncio.Future[None] | None = None
    _work: Any = None
    _wake: asyncio.Future[None] | None = None
    _failure: Failure | None = None
    _killed_because = "killed"
    _is_task = False
    """Whether messages are being handled in the name of the task, which waits."""
    _cancel_next = False
    _context: contextvars.Context
    """The task's."""

    # --- for the node ---

    def live(self, node: Node, ref: Ref, incarnation: int) -> None:
        """Begin to live; `on_start` runs in the loop's next turn."""
        self.node = node
        self.ref = ref
        self.incarnation = incarnation
        about = CURRENT.get()
        self._about = stand_in(about.trace if about else 0, about.id if about else 0, str(ref))
        node.schedule(self)

    @property
    def started(self) -> asyncio.Future[None]:
        """Done when `on_start` has run; fails with what it raised."""
        if self._started is None:
            self._started = self.node.loop.create_future()
            self._tell_started()
        return self._started

    async def until_ended(self) -> None:
        """Return when the actor has ended and its watchers have been told."""
        if self.state == "exited":
            return
        if self._ended is None:
            self._ended = self.node.loop.create_future()
        await asyncio.shield(self._ended)

    @property
    def is_idle(self) -> bool:
        """Whether it runs, and neither handles a message nor has one waiting."""
        return self.state == "running" and self.envelope is None and not self.busy and self.mailbox.empty()

    def pump(self) -> None:
        """Go on: start, handle what waits, or stop. The node calls this, on no actor's behalf."""
        if self.busy or self.state == "exited":
            return
        if self.state == "starting":
            work = self._call(Stage.START, self.actor.on_start, self._about)
        else:
            work = self._handle_waiting()
        if work is not None:
            self._hand_over(work)

    def _handle_waiting(self) -> Any:
        """Handle what waits, as the actor's task if there is one, and it waits."""
        task, wake = self.task, self._wake
        if task is None or wake is None or wake.done() or task.done():
            return self.handle_waiting()
        self._is_task = True
        try:
            return as_task(task, self.node.loop, self._context, self.handle_waiting)
        finally:
            self._is_task = False

    def kill(self, reason: str = "killed") -> None:
        """Cancel what runs now and end, without `on_stop`. Call it on the loop's thread."""
        if self.state == "exited":
            return
        if not self.killed:
            self.killed, self._killed_because = True, reason
        if self.busy:
            self.interrupt()
        elif self.envelope is None:
            self.end()

    # --- the task ---

    def _hand_over(self, work: Any) -> None:
        """Give what has to be awaited to the actor's task."""
        self.busy = True
        self._work = work
        if self.task is None:
            self._context = contextvars.copy_context()
            self.task = self.node.loop.create_task(self._run(), name=str(self.ref), context=self._context)
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _run(self) -> None:
        """Await what handlers and hooks return, one after another, as long as the actor lives."""
        while self.state != "exited":
            turns = 0
            while self._work is not None:
                work, self._work = self._work, None
                self._work = await self._await(work)
                turns += 1
                if turns % _TURNS == 0 and self._work is not None:
                    await self._pause()
            self.busy = False
            if self.state == "exited":
                return
            if not self.mailbox.empty():
                self.node.schedule(self)
            self._wake = self.node.loop.create_future()
            try:
                await self._wake
            except asyncio.CancelledError:
                self._cancelled_while_idle()

    def _cancelled_while_idle(self) -> None:
        if self._work is None:  # the loop is being shut down around us
            self.killed = True
            self.end()
        elif self.task is not None:  # meant for what has just been handed over (a timeout of it): see `_await`
            self.task.uncancel()
            self._cancel_next = True

    def first_step(self, coroutine: Any) -> Any:
        """Take the first step of a handler, if this is the actor's task, or runs in its name."""
        return first_step(coroutine) if self.busy or self._is_task else coroutine

    async def _await(self, work: Any) -> Any:
        CURRENT.set(self._about)
        task = self.task
        assert task is not None
        if self._cancel_next or self.killed or self.withdrawn:
            self._cancel_next = False
            task.cancel()
        self.awaits = True
        try:
            result = await work
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this actor and nobody else
            self.awaits = False
            if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
                self._cancelled()
            return self.settle(None, error)
        self.awaits = False
        if task.cancelling() > 0:  # the handler took no notice, or never waited
            await self._pause()
            self._cancelled()
        return self.settle(result, None)

    def _cancelled(self) -> None:
        """Tell `kill` and `withdraw` from a cancellation that a handler met in what it awaited: a crash like any."""
        while self.task is not None and self.task.cancelling() > 0:
            self.task.uncancel()
            if not self.withdrawn:
                self.killed = True

    async def _pause(self) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._cancelled()  # the next step sees it

    # --- one step after another ---

    def invoke(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a hook or handler; what it returns may have to be awaited."""
        return function(*args)

    def _call(self, stage: Stage, hook: Callable[..., Any], about: Envelope | None, *args: Any) -> Any:
        """Call a hook; return what has to be awaited, or what comes next."""
        self.stage = stage
        self._about = about
        CURRENT.set(about)
        try:
            result = self.invoke(hook, *args)
        except BaseException as error:  # noqa: BLE001 - as in `_await`
            return self.settle(None, error)
        return result if inspect.isawaitable(result) else self.settle(result, None)

    def settle(self, result: Any, error: BaseException | None) -> Any:
        """A hook or handler has ended; return what has to be awaited next, if anything."""
        if self.stage is Stage.HANDLE:
            return self.handled_async(result, error)
        if self.killed:
            return self.end()
        if error is None:
            if self.stage is not Stage.START:
                return self.end()
            self.state, self.has_started = "running", True
            self._tell_started()
            return self.handle_waiting()
        if self.stage is Stage.CRASH:  # it crashed while crashing: say so, end all the same
            logger.error("An actor's on_crash failed", extra={"event": "on_crash_failed", "error": repr(error)})
            return self.end()
        return self.crash(error)

    def go_on(self) -> Any:
        """No message is being handled: end or stop if that is due."""
        if self.killed:
            return self.end()
        if self.exit_reason and self.state == "running":
            self.state = "stopping"
            return self._call(Stage.STOP, self.actor.on_stop, self._because())
        return None

    def crash(self, error: BaseException) -> Any:
        """A hook or handler raised."""
        failure = self._failure = to_failure(error)
        self.exit_reason, self.state = "crashed", "stopping"
        logger.error(
            "An actor crashed",
            extra={
                "event": "actor_crashed",
                "error": f"{failure.type}: {failure.message}",
                "traceback": failure.traceback,
            },
        )
        return self._call(Stage.CRASH, self.actor.on_crash, self._because(), failure)

    def _because(self) -> Envelope:
        """Return what makes it stop or crash."""
        current = CURRENT.get()
        return current if current is not None else stand_in(0, 0, str(self.ref))

    def end(self) -> None:
        """It is over: answer whoever waits, tell whoever watches."""
        if self.state == "exited":
            return
        reason = self.exit_reason if self.exit_reason and not self.killed else self._killed_because
        self.state, self.exit_reason = "exited", reason
        self.release()
        for timer in list(self.timers):
            timer.cancel()
        for task in list((self.unanswered or {}).values()):
            task.cancel()
        self._tell_started()
        stashed, self.stashed = self.stashed or [], None
        for envelope in stashed:
            envelope.origin = ""  # flow control has seen it handled
        left = [*stashed, *self.mailbox.close()]
        self.node.actor_ended(self.actor, left, reason, self._failure)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if self.task is not None and self._wake is not None and not self._wake.done():
            self._wake.set_result(None)  # its task ends, too
        del self.actor  # the two know each other: together they would wait for the collector, with all that it holds

    def _tell_started(self) -> None:
        started = self._started
        if started is None or started.done():
            return
        if self.has_started:
            started.set_result(None)
        elif self.state == "exited":
            why = self._failure.message if self._failure else "killed"
            started.set_exception(ActorDead(f"{self.ref} did not start: {why}"))
            started.exception()


class ThreadLife(Life):
    """The machinery of an actor whose hooks and handlers run on a thread of its own."""

    interruptible = False  # nobody can end a call on its thread, and the next one may not begin before it has ended
    _thread: concurrent.futures.ThreadPoolExecutor

    def live(self, node: Node, ref: Ref, incarnation: int) -> None:
        """Begin to live, with a thread."""
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=ref.address.name)
        super().live(node, ref, incarnation)

    def invoke(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a hook or handler on the thread."""
        call = functools.partial(contextvars.copy_context().run, _blocking, function, *args)
        return self.node.loop.run_in_executor(self._thread, call)

    def table(self) -> dict[type, Callable[..., Any]]:
        """Return the handlers as functions that call them on the thread."""
        return {kind: functools.partial(self.invoke, function) for kind, function in super().table().items()}

    def end(self) -> None:
        """It is over. A killed actor's thread may still be inside a blocking call: nobody waits for it."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        super().end()


def _blocking(function: Callable[..., Any], *args: Any) -> Any:
    try:
        answer = function(*args)
    except StopIteration as error:  # an asyncio future cannot carry one: the actor would wait for ever
        raise RuntimeError("a handler raised StopIteration") from error
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError(f"{function.__name__} of a BlockingActor must not be async: it runs on a thread without a loop")
    return answer
