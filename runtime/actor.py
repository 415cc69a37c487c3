"""Actors: a mailbox, and one message at a time.

`Actor` is pykka's actor moved onto an asyncio loop: hooks and names are pykka's, the machinery around them (`life`)
is not. pykka's registry, and its habit of stopping every actor of the process on a `SystemExit`, are not inherited:
whatever a handler raises ends this actor only, reaches the asker, and is reported to whoever supervises it.

`BlockingActor` runs its hooks and handlers on a thread of its own, for work that must block; mailbox and stop stay
on the loop, so it has the same guarantees.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pykka

from .address import Address
from .context import current
from .envelope import Message
from .errors import Failure, LocalError, Refused
from .later import Later
from .life import Life, ThreadLife
from .mailbox import DEFAULT_BOUND, Mailbox, Policy
from .ref import Ref
from .timers import Timer

if TYPE_CHECKING:
    from .node import Node

    PykkaActor = object  # pykka types its hooks as synchronous; ours may be coroutines
else:
    PykkaActor = pykka.Actor

__all__ = ["Actor", "BlockingActor", "Later", "receive"]

_STASH_BOUND = 10_000  # messages; who puts more aside will never come back to them

Handler = TypeVar("Handler", bound=Callable[..., Any])


def receive(*types: type[Message], cancellable: bool = False) -> Callable[[Handler], Handler]:
    """Mark a method as the handler of these message types. What it returns answers an ask.

    `cancellable`: when whoever asked gives up, an async handler is cancelled where it awaits. The actor lives on, so
    its state must bear that. Otherwise a handler that has begun is finished.
    """

    def mark(method: Handler) -> Handler:
        method.__exeunt_receives__ = types  # type: ignore[attr-defined]
        method.__exeunt_cancellable__ = cancellable  # type: ignore[attr-defined]
        return method

    return mark


class Actor(PykkaActor):
    """Something that handles one message at a time, on its worker's loop.

    Mark handlers with `@receive(Type)`. Inside, `self.ref` is this actor, `self.node` finds others, `self.sender`
    is who sent the message. Start one with `Node.start`, or let a supervisor do it.
    """

    mailbox_bound: ClassVar[int] = DEFAULT_BOUND
    """How many messages may wait."""
    mailbox_policy: ClassVar[Policy] = "reject"
    """What happens to more: `reject`, `drop_oldest` or `block`; see `mailbox`."""
    receives: ClassVar[dict[type[Message], str]] = {}
    """The marked handlers' names, by type of message."""
    cancellable: ClassVar[frozenset[type[Message]]] = frozenset()
    """Types of messages whose handlers are cancelled when their asker gives up."""
    lifecycle_type: ClassVar[type[Life]] = Life
    trap_exits: ClassVar[bool] = False
    """Whether a linked actor's abnormal end is a `Terminated` to handle, rather than the end of this one."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        receives: dict[type[Message], str] = {}
        cancellable: set[type[Message]] = set()
        for base in reversed(cls.__mro__):  # of every base, where there are several
            for name, method in vars(base).items():
                for kind in getattr(method, "__exeunt_receives__", ()):
                    receives[kind] = name
                    (cancellable.add if method.__exeunt_cancellable__ else cancellable.discard)(kind)
        cls.receives, cls.cancellable = receives, frozenset(cancellable)

    def __init__(self) -> None:
        # pykka's own __init__ makes a uuid, a lock and a ref to a live object for each; addresses replace all three.
        self.mailbox = Mailbox(self.mailbox_bound, self.mailbox_policy)
        self.lifecycle = self.lifecycle_type(self)
        """The machinery: for the runtime, not for subclasses."""
        self.started_ns = time.time_ns()

    # --- for subclasses: hooks ---

    def on_start(self) -> Any:
        """Run once, before the first message, on the loop (or the actor's thread). May be async. Raising ends the
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

    def snapshot(self) -> Any:
        """Return the state as `exeunt show` is to print it: dicts, lists, numbers, text. Called on the loop (of a
        `BlockingActor`: on its thread) whenever somebody looks, while no code of the actor runs; an async handler may
        be waiting. So it must be quick, and change nothing. May be async.
        """

    # --- for subclasses: what there is ---

    @property
    def ref(self) -> Ref:
        """This actor's own ref."""
        return self.lifecycle.ref

    @property
    def sender(self) -> Ref | None:
        """Who sent the message that is being handled; None if that was no actor."""
        envelope = self.lifecycle.envelope
        if envelope is None or envelope.sender.endswith("$outside"):
            return None
        return self.node.ref(envelope.sender)

    @property
    def state(self) -> str:
        """`starting`, `running`, `stopping` or `exited`."""
        return self.lifecycle.state

    @property
    def exit_reason(self) -> str:
        """Set before `on_stop` runs: the stop's reason, or `normal` after `self.stop()`."""
        return self.lifecycle.exit_reason

    @property
    def incarnation(self) -> int:
        """Which start of the actor at this address this is."""
        return self.lifecycle.incarnation

    @property
    def handled_total(self) -> int:
        """How many messages it has handled."""
        return self.lifecycle.handled_total

    @property
    def has_started(self) -> bool:
        """Whether `on_start` has run to its end."""
        return self.lifecycle.has_started

    @property
    def started(self) -> asyncio.Future[None]:
        """Done when `on_start` has run; fails with `ActorDead` when it raised."""
        return self.lifecycle.started

    async def until_ended(self) -> None:
        """Return when it has ended, and its watchers have been told. Not for the actor itself."""
        await self.lifecycle.until_ended()

    @property
    def remaining_s(self) -> float | None:
        """How many seconds whoever asked still waits for the answer; None when nobody does. 0 when it is too late.

        An ask that a handler makes without naming a timeout waits no longer than that.
        """
        about = current()
        if about is None or not about.deadline_ns:
            return None
        return max(0.0, about.deadline_ns / 1e9 - self.node.loop.time())

    def after(self, delay_s: float, message: Message) -> Timer:
        """Send this actor a message later, once. For the actor itself: from its hooks and handlers."""
        return Timer(self.lifecycle, message, max(0.0, delay_s), None)

    def every(self, period_s: float, message: Message) -> Timer:
        """Send this actor a message again and again, the first time after one period. One that still waits in the
        mailbox when the next is due stands for both. For the actor itself, as `after`.
        """
        if period_s <= 0:
            raise ValueError("a period is longer than nothing")
        return Timer(self.lifecycle, message, period_s, period_s)

    def stash(self) -> None:
        """Put the message that is being handled aside, to be handled again after `unstash_all`: for what comes before
        its time. An ask is answered then. Raises LocalError outside of a handler, or for a message too many.
        """
        if self.lifecycle.envelope is None:
            raise LocalError("only a message that is being handled can be stashed")
        if self.lifecycle.stashed is None:
            self.lifecycle.stashed = []
        if self.lifecycle.stashed and self.lifecycle.stashed[-1] is self.lifecycle.envelope:
            return
        if len(self.lifecycle.stashed) >= _STASH_BOUND:
            raise LocalError(f"{_STASH_BOUND} messages are stashed already")
        self.lifecycle.stashed.append(self.lifecycle.envelope)

    def unstash_all(self) -> None:
        """Put what was stashed before all that waits, in the order in which it came."""
        if self.lifecycle.stashed:
            stashed, self.lifecycle.stashed = self.lifecycle.stashed, None
            for envelope in stashed:
                envelope.origin = ""  # flow control has seen it handled once
                # Another object, equal to the sender's address: messages share a record if they have the same one, and
                # all of a record are settled or none is.
                envelope.sender = f"{envelope.sender} "[:-1]
            self.mailbox.put_back(stashed)
            self.node.schedule(self.lifecycle)

    def stop(self, reason: str = "normal") -> None:
        """Stop after the current message. Call it from a hook, a handler, or a task or thread that one of them started.

        Only a permanent child is restarted after `normal`.
        """
        life = self.lifecycle
        if life.state == "running" and life.envelope is None:
            life.ref.stop(reason)  # it waits for a message: this one
        elif not life.exit_reason:
            life.exit_reason = reason

    def kill(self) -> None:
        """Cancel what runs now and end, without `on_stop`. Call it on the loop's thread."""
        self.lifecycle.kill()

    def attach(self, node: Node, address: Address, incarnation: int) -> None:
        """Become the actor at `address` of `node` and begin to run. The node calls this, once."""
        self.node = node
        self.lifecycle.live(node, Ref(address, node, incarnation), incarnation)

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
        raise TypeError("ask through a Ref")

    def _start_actor_loop(self) -> None:
        raise TypeError("start actors with Node.start, or through a supervisor")


class BlockingActor(Actor):
    """An actor whose hooks and handlers may block: they run one after another on a thread of its own.

    On that thread, `ask(...).get()` waits. Its mailbox, and the stop, stay on the loop. What it does to itself there
    (`stop`, `stash`, timers) is safe. Nobody can cancel a call on its thread, so none of its handlers is `cancellable`.
    """

    lifecycle_type: ClassVar[type[Life]] = ThreadLife
