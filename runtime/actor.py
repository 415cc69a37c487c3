"""Actors: a mailbox, a task, one message at a time.

`Actor` is pykka's actor moved onto an asyncio loop: hooks and names are pykka's, the machinery around them is not.
One long-lived task per actor runs its handlers, sync or async (a task per message costs two to three times as
much). pykka's registry, and its habit of stopping every actor of the process on a `SystemExit`, are not inherited:
whatever a handler raises ends this actor only, reaches the asker, and is reported to whoever supervises it.

`BlockingActor` runs its hooks and handlers on a thread of its own, for work that must block; mailbox and stop stay
on the loop, so it has the same guarantees.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pykka

from .address import Address
from .context import CURRENT, Context
from .envelope import Envelope, Message
from .errors import ActorDead, Failure, Refused, UnknownMessage, to_failure
from .mailbox import DEFAULT_BOUND, Mailbox
from .messages import Stop
from .recorder import Event
from .ref import Ref
from .reply import Reply

if TYPE_CHECKING:
    from .node import Node

    PykkaActor = object  # pykka types its hooks as synchronous; ours may be coroutines
else:
    PykkaActor = pykka.Actor

logger = logging.getLogger(__name__)

_BATCH = 64  # messages handled before the loop gets a turn

Handler = TypeVar("Handler", bound=Callable[..., Any])


def receive(*types: type[Message]) -> Callable[[Handler], Handler]:
    """Mark a method as the handler of these message types. What it returns answers an ask."""

    def mark(method: Handler) -> Handler:
        method.__exeunt_receives__ = types  # type: ignore[attr-defined]
        return method

    return mark


class Later:
    """Return it from a handler to answer an ask later: the actor goes on, the ask ends as `work` ends.

    `work` runs as a task beside the actor, on its loop; it is cancelled, and the ask fails with `ActorDead`, when the
    actor ends first. For waiting only: what changes the actor's state belongs into handlers.
    """

    def __init__(self, work: Coroutine[Any, Any, Message | None]) -> None:
        self.work = work


class Actor(PykkaActor):
    """Something that handles one message at a time, on its worker's loop.

    Mark handlers with `@receive(Type)`. Inside, `self.ref` is this actor, `self.node` finds others, `self.sender`
    is who sent the message. Start one with `Node.start`, or let a supervisor do it.
    """

    mailbox_bound: ClassVar[int] = DEFAULT_BOUND
    """How many messages may wait before senders are told `MailboxFull`."""

    _handlers: ClassVar[dict[type[Message], str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        handlers = dict(cls._handlers)
        for name, method in vars(cls).items():
            for kind in getattr(method, "__exeunt_receives__", ()):
                handlers[kind] = name
        cls._handlers = handlers

    def __init__(self) -> None:
        # pykka's own __init__ makes a uuid, a lock and a ref to a live object for each; addresses replace all three.
        self.mailbox = Mailbox(self.mailbox_bound)
        self.handled_total = 0
        self.incarnation = 0
        self.state = "starting"
        """`starting`, `running`, `stopping`, `exited`."""
        self.has_started = False
        """Whether `on_start` has run to its end."""
        self.started_ns = time.time_ns()
        self._unanswered: set[asyncio.Task[Message | Failure | None]] = set()
        self.exit_reason = ""
        """Set before `on_stop` runs: the stop's reason, or `normal` after `self.stop()`."""

    # --- for subclasses ---

    def on_start(self) -> Any:
        """Run once, before the first message, in the actor's own task (or thread). May be async. Raising ends the
        actor.
        """

    def on_stop(self) -> Any:
        """Run once, after the last message, unless the actor crashed or was killed. May be async; `exit_reason`
        says why.
        """

    def on_crash(self, failure: Failure) -> Any:
        """Run once, instead of `on_stop`, after a handler or `on_start` raised. May be async. Release what must be
        released.
        """

    def on_receive(self, message: Any) -> Any:
        """Handle a message that has no marked handler. The default refuses it: an ask fails, a tell is logged."""
        raise Refused("unknown_message", f"{type(self).__name__} does not handle {type(message).__name__}")

    @property
    def ref(self) -> Ref:
        """This actor's own ref."""
        return self._ref

    @property
    def sender(self) -> Ref | None:
        """Who sent the message that is being handled; None if that was no actor."""
        envelope = self._envelope
        if envelope is None or envelope.sender.endswith("$outside"):
            return None
        return self.node.ref(envelope.sender)

    def stop(self, reason: str = "normal") -> None:
        """Stop after the current message. Call it from a hook, a handler, or a task or thread that one of them started.

        Only a permanent child is restarted after `normal`.
        """
        if self.state == "running" and self._envelope is None:
            self._ref.stop(reason)  # it waits for a message: this one
        elif not self.exit_reason:
            self.exit_reason = reason

    def kill(self) -> None:
        """Cancel what runs now and end, without `on_stop`. Call it on the loop's thread."""
        if self.task is not None:
            self.task.cancel()

    # --- for the node ---

    task: asyncio.Task[None] | None = None
    _envelope: Envelope | None = None

    def attach(self, node: Node, address: Address, incarnation: int) -> None:
        """Become the actor at `address` of `node` and begin to run. The node calls this, once."""
        self.node = node
        self._ref = Ref(address, node)
        self.incarnation = incarnation
        self.started: asyncio.Future[None] = node.loop.create_future()
        """Done when `on_start` has run; fails with what it raised."""
        self._start_actor_loop()

    def _start_actor_loop(self) -> None:
        self.task = self.node.loop.create_task(self._run(), name=str(self._ref))

    async def _run(self) -> None:
        """The whole life of an actor."""
        failure: Failure | None = None
        try:
            CURRENT.set(Context(*self._birth(), str(self._ref), 0))
            await self._call(self.on_start)
            self.state, self.has_started = "running", True
            if not self.started.done():
                self.started.set_result(None)
            await self._handle_all()
            self.state = "stopping"
            await self._call(self.on_stop)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this actor and nobody else
            if self._is_kill(error):
                self.exit_reason = "killed"
            else:
                failure = to_failure(error)
                self.exit_reason, self.state = "crashed", "stopping"
                await self._crashed(failure)
        finally:
            self._end(failure)

    def _is_kill(self, error: BaseException) -> bool:
        """Tell `kill` from a cancellation that a handler met in what it awaited; the latter is a crash like any."""
        cancelled = isinstance(error, asyncio.CancelledError) and self.task is not None and self.task.cancelling() > 0
        return cancelled or isinstance(error, GeneratorExit)

    def _birth(self) -> tuple[int, int]:
        context = CURRENT.get()
        return (context.trace, context.cause) if context is not None else (0, 0)

    async def _handle_all(self) -> None:
        mailbox = self.mailbox
        count = 0
        while not self.exit_reason:
            if mailbox.empty():
                await mailbox.wait()
            envelope = mailbox.get()
            if isinstance(envelope.body, Stop):
                self._context(envelope)
                self.node.record(Event.STARTED, envelope)
                self.exit_reason = envelope.body.reason
                self.node.record(Event.ENDED, envelope)
                return
            await self._handle(envelope)
            count += 1
            if count % _BATCH == 0:
                await asyncio.sleep(0)

    def _context(self, envelope: Envelope) -> None:
        CURRENT.set(Context(envelope.trace, envelope.id, str(self._ref), envelope.deadline_ns))

    async def _handle(self, envelope: Envelope) -> None:
        self._context(envelope)
        self._envelope = envelope
        node = self.node
        node.record(Event.STARTED, envelope)
        try:
            answer = _checked(await self._call(self._dispatch, envelope.body))
        except Refused as refusal:
            node.record(Event.REFUSED, envelope)
            node.answer(envelope, to_failure(refusal), sender=str(self._ref))
        except BaseException as error:
            node.record(Event.FAILED, envelope)
            cause = ActorDead(f"{self._ref} was killed") if self._is_kill(error) else error
            node.answer(envelope, to_failure(cause), sender=str(self._ref))
            raise
        else:
            node.record(Event.ENDED, envelope)
            if isinstance(answer, Later):
                self._answer_later(envelope, answer)
            else:
                node.answer(envelope, answer, sender=str(self._ref))
        finally:
            self.handled_total += 1
            self._envelope = None

    def _answer_later(self, envelope: Envelope, later: Later) -> None:
        task = self.node.loop.create_task(_outcome(later.work))
        self._unanswered.add(task)

        def answer(done: asyncio.Task[Message | Failure | None]) -> None:
            self._unanswered.discard(done)
            if done.cancelled():
                later.work.close()  # it may not have begun
                body: Message | Failure | None = to_failure(ActorDead(f"{self._ref} ended before it answered"))
            else:
                body = done.result()
            self.node.answer(envelope, body, sender=str(self._ref))

        task.add_done_callback(answer)

    def _dispatch(self, message: Message) -> Any:
        name = self._handlers.get(type(message))
        return getattr(self, name)(message) if name is not None else self.on_receive(message)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        result = function(*args)
        return await result if inspect.isawaitable(result) else result

    async def _crashed(self, failure: Failure) -> None:
        logger.error(
            "An actor crashed",
            extra={
                "event": "actor_crashed",
                "error": f"{failure.type}: {failure.message}",
                "traceback": failure.traceback,
            },
        )
        try:
            await self._call(self.on_crash, failure)
        except BaseException as error:  # noqa: BLE001 - it crashed while crashing: say so, end all the same
            logger.error("An actor's on_crash failed", extra={"event": "on_crash_failed", "error": repr(error)})

    def _end(self, failure: Failure | None) -> None:
        self.state = "exited"
        for task in self._unanswered:
            task.cancel()
        if not self.started.done():
            self.started.set_exception(
                ActorDead(f"{self._ref} did not start: {failure.message if failure else 'killed'}")
            )
            self.started.exception()
        self.node.actor_ended(self, self.mailbox.close(), self.exit_reason or "killed", failure)

    # --- what pykka's machinery would do, and must not ---

    @classmethod
    def start(cls, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse: pykka's `start` registers the actor process-wide. Use `Node.start`."""
        raise TypeError("start actors with Node.start, or through a supervisor")

    @staticmethod
    def _create_actor_inbox() -> Any:
        return Mailbox()

    @staticmethod
    def _create_future() -> Any:
        return Reply(asyncio.get_running_loop(), on_loop=True)


class BlockingActor(Actor):
    """An actor whose hooks and handlers may block: they run one after another on a thread of its own.

    On that thread, `ask(...).get()` waits. Its mailbox, and the stop, stay on the loop.
    """

    def attach(self, node: Node, address: Address, incarnation: int) -> None:
        """Begin to run, with a thread."""
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=address.name)
        super().attach(node, address, incarnation)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        context = contextvars.copy_context()
        call = functools.partial(context.run, _blocking, function, *args)
        return await self.node.loop.run_in_executor(self._thread, call)

    def _end(self, failure: Failure | None) -> None:
        # A killed actor's thread may still be inside a blocking call: don't wait for it on the loop.
        self._thread.shutdown(wait=False, cancel_futures=True)
        super()._end(failure)


def _checked(answer: Any) -> Message | Later | None:
    if answer is None or isinstance(answer, (Message, Later)):
        return answer
    raise UnknownMessage(f"a handler answers with a Message or None, not {type(answer).__name__}")


async def _outcome(work: Coroutine[Any, Any, Message | None]) -> Message | Failure | None:
    """Run to an answer or a failure as data: even a SystemExit must not reach the loop, which would end with it."""
    try:
        answer = _checked(await work)
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the asker's answer
        return to_failure(error)
    return answer if not isinstance(answer, Later) else to_failure(UnknownMessage("a Later answers with a Message"))


def _blocking(function: Callable[..., Any], *args: Any) -> Any:
    try:
        answer = function(*args)
    except StopIteration as error:  # an asyncio future cannot carry one: the actor would wait for ever
        raise RuntimeError("a handler raised StopIteration") from error
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError(f"{function.__name__} of a BlockingActor must not be async: it runs on a thread without a loop")
    return answer
