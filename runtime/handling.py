"""How an actor handles its messages: one at a time, as fast as Python allows.

The flight recorder has a record for each message that is handled. Tells of one kind from one sender that are handled
back to back share one, as long as that takes less than 0.1 ms (see `recorder`).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from enum import Enum
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from .context import CURRENT, stand_in
from .envelope import ASK, TELL, Envelope, Message
from .errors import ActorDead, Failure, Refused, to_failure
from .later import Later, checked, outcome
from .mailbox import Rejected
from .messages import Stop
from .recorder import Event
from .timers import Timer
from .wakeups import call_later

if TYPE_CHECKING:
    from .actor import Actor
    from .node import Node
    from .ref import Ref

_BATCH = 1_024  # messages handled before others get a turn
_TURN_NS = 1_000_000  # or so long, as far as there is a record to look at the clock for
_SHARED_AT_MOST = 64  # messages to a record
_SHARED_NS = 100_000  # a record that took longer is the last one to be shared for now


class Stage(Enum):
    """What runs now."""

    START = 1
    HANDLE = 2
    STOP = 3
    CRASH = 4


class Handling:
    """The part of an actor's life between start and stop. On the loop's thread only."""

    node: Node
    ref: Ref
    incarnation = 0

    # Class attributes where an instance would mostly hold the default: an idle actor stays small.
    state = "starting"
    """`starting`, `running`, `stopping`, `exited`."""
    exit_reason = ""
    """Set before `on_stop` runs: the stop's reason, or `normal` after `self.stop()`."""
    handled_total = 0
    envelope: Envelope | None = None
    """The message that is being handled."""
    scheduled = False
    """Whether the node will pump it."""
    stage = Stage.START
    busy = False
    """Whether its task runs something of it."""
    killed = False
    withdrawn = False
    """Whether the asker of what is being handled has given up, and the handler is being cancelled for that."""
    held = False
    interruptible = True
    """Whether cancelling its task ends what the handler does."""
    awaits = False
    """Whether its task is inside what a handler or hook awaits."""
    unanswered: dict[int, asyncio.Task[Any]] | None = None
    """Answers that are given later, by the id of the ask."""
    stashed: list[Envelope] | None = None
    _timers: set[Timer] | None = None
    _about: Envelope | None = None
    _record = -1
    _began_ns = 0
    _share = 1
    _let_go: asyncio.TimerHandle | None = None
    _open = (-1, 0, 0, 0, "")
    """The record that is open: its number, of how many messages, where it counts them, since when, whose."""

    task: asyncio.Task[None] | None = None
    """What runs async handlers; None as long as there was none."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.mailbox = actor.mailbox

    @property
    def timers(self) -> set[Timer]:
        """The pending timers."""
        if self._timers is None:
            self._timers = set()
        return self._timers

    def hold(self, at_most_s: float) -> bool:
        """Handle no ordinary message until `release`, or for so long; False when it is held already."""
        if self.held:
            return False
        self.held = True
        self._let_go = call_later(self.node.loop, at_most_s, "held", self.release)
        return True

    def release(self) -> None:
        """Go on after `hold`."""
        if self.held:
            self.held = False
            if self._let_go is not None:  # else it would end a later hold before its time
                self._let_go.cancel()
                self._let_go = None
            self.node.schedule(self)

    def withdraw(self, ask_id: int) -> None:
        """Whoever made this ask no longer waits: don't handle it if it waits, and stop waiting on its behalf."""
        handled = self.envelope
        stashed = next((one for one in self.stashed or () if one.id == ask_id), None)
        if self.stashed and stashed is not None:
            self.stashed.remove(stashed)
        if self.unanswered and ask_id in self.unanswered:
            self.unanswered.pop(ask_id).cancel()
        elif handled is not None and handled.id == ask_id:
            if self.busy and self.interruptible and type(handled.body) in type(self.actor).cancellable:
                self.withdrawn = True
                self.interrupt()
        elif (waiting := stashed or self.mailbox.withdraw(ask_id)) is not None:
            self.node.record(Event.CANCELLED, waiting)
            self._look_for_room()

    def interrupt(self) -> None:
        """Cancel what its task awaits; if it is about to await something, that."""
        if self.awaits and self.task is not None:
            self.task.cancel()

    def table(self) -> dict[type, Callable[..., Any]]:
        """Return the actor's handlers as functions, looked up once for each class."""
        cls = type(self.actor)
        table: dict[type, Callable[..., Any]] | None = cls.__dict__.get("__exeunt_functions__")
        if table is None:
            table = {kind: getattr(cls, name) for kind, name in cls.receives.items()}
            setattr(cls, "__exeunt_functions__", table)  # noqa: B010 - a cache that is each class's own
        return table

    def pump(self) -> None:
        """Go on with whatever is due."""
        raise NotImplementedError

    def invoke(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a hook or handler; what it returns may have to be awaited."""
        raise NotImplementedError

    def first_step(self, coroutine: Any) -> Any:
        """Take the first step of a handler; return its answer, or what has to be awaited."""
        raise NotImplementedError

    def go_on(self) -> Any:
        """No message is being handled: end or stop if that is due."""
        raise NotImplementedError

    def crash(self, error: BaseException) -> Any:
        """A hook or handler raised."""
        raise NotImplementedError

    def handle_waiting(self) -> Any:  # noqa: C901, PLR0912, PLR0915 - the one hot loop: every call would cost a tenth
        """Handle what waits, until nothing does, a handler has to be awaited, or others should have a turn.

        Return what has to be awaited, if anything.
        """
        actor, mailbox, handlers = self.actor, self.mailbox, self.table()
        recorder, share = self.node.recorder, self._share
        count = began_ns = count_at = overwritten = 0  # of the record that is open, and may be shared
        next_id, number, sender, shared_kind, origin = -1, -1, "", None, ""
        until_ns, last_turn = 0, False
        for _ in range(_BATCH):
            if last_turn or self.exit_reason or self.killed:
                break
            if mailbox.system:
                envelope = mailbox.system.popleft()
            elif mailbox.ordinary and not self.held:
                envelope = mailbox.ordinary.popleft()
            else:
                break
            body: object = envelope.body
            kind: type = type(body)
            is_tell = envelope.kind == TELL
            if envelope.id == next_id and envelope.sender is sender and kind is shared_kind and count < share:
                count += 1
                next_id += 1
                if recorder is not None and recorder.written < overwritten:
                    recorder.u16[count_at] = count  # before its handler starts
            else:
                if count:
                    share = self._close(number, count, began_ns, origin, next_id - 1)
                    count, next_id = 0, -1  # what comes next is not of this record, whatever is skipped meanwhile
                if not self._is_to_be_handled(envelope):
                    continue
                count, sender, shared_kind, origin = 1, envelope.sender, kind, envelope.origin
                next_id = envelope.id + 1 if is_tell else -1
                if recorder is not None:
                    began_ns = time.time_ns()
                    until_ns = until_ns or began_ns + _TURN_NS
                    last_turn = began_ns > until_ns  # this one still, then others
                    number = recorder.start(envelope, began_ns)
                    count_at, overwritten = recorder.count_at(number), number + recorder.capacity
            self.envelope = envelope
            CURRENT.set(envelope)
            handler = handlers.get(kind)
            try:
                answer = handler(actor, body) if handler is not None else self.invoke(actor.on_receive, body)
                if type(answer) is CoroutineType:
                    answer = self.first_step(answer)
                if answer is None and is_tell:
                    self.envelope = None
                    continue
                if answer is not None and not isinstance(answer, Message) and inspect.isawaitable(answer):
                    self._open = (number, count, count_at, began_ns, origin)
                    self._alone(envelope)
                    self.stage, self._about, self._share = Stage.HANDLE, envelope, share
                    self._look_for_room()
                    return answer
                checked(answer)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this actor and nobody else
                self._open = (number, count, count_at, began_ns, origin)
                self._alone(envelope)
                self._share = 1
                following = self._failed(envelope, error)
                if following is not None or self.state != "running":
                    return following
                count, next_id, share = 0, -1, 1
                continue
            share = self._close(number, count, began_ns, origin, envelope.id)
            self._answer(envelope, answer)
            count, next_id = 0, -1
            self.envelope = None
        if count:
            share = self._close(number, count, began_ns, origin, next_id - 1)
        self._share = share
        return self._after_batch()

    def handled_async(self, result: Any, error: BaseException | None) -> Any:
        """A handler that was awaited has ended; return what has to be awaited next."""
        envelope = self.envelope
        assert envelope is not None
        if error is None:
            try:
                answer = checked(result)
            except Exception as wrong:  # noqa: BLE001 - as if the handler had raised it
                error = wrong
            else:
                self._close(self._record, 1, self._began_ns, envelope.origin, envelope.id)
                self._answer(envelope, answer)
                self.envelope = None
                self.withdrawn = False  # too late: it has answered
                return self.handle_waiting() if not self.killed else self.go_on()
        following = self._failed(envelope, error)
        if following is not None or self.state != "running":
            return following
        return self.handle_waiting()

    # --- inside ---

    def _close(  # noqa: PLR0917 - called for every record
        self, number: int, count: int, began_ns: int, origin: str, last: int, event: Event = Event.ENDED
    ) -> int:
        """Complete a record of `count` messages, up to the id `last`; return how many may share the next one."""
        self.handled_total += count
        if origin:
            self.node.settled(origin, str(self.ref), count, last)
        recorder = self.node.recorder
        if recorder is None:
            return _SHARED_AT_MOST
        ran_ns = time.time_ns() - began_ns
        recorder.end(number, event, ran_ns)
        recorder.handled(count)
        return 1 if ran_ns > _SHARED_NS else min(_SHARED_AT_MOST, 2 * count)

    def _is_to_be_handled(self, envelope: Envelope) -> bool:
        """Say whether a handler is to see this; see to what is for the runtime itself."""
        if envelope.kind not in (TELL, ASK):
            self._runtime_message(envelope)
            return False
        return True

    def _alone(self, envelope: Envelope) -> None:
        """Give a message a record of its own that shares the open one with those before it, which are done with."""
        number, count, count_at, began_ns, origin = self._open
        recorder = self.node.recorder
        if count > 1:
            if recorder is not None and recorder.written < number + recorder.capacity:
                recorder.u16[count_at] = count - 1
            self._close(number, count - 1, began_ns, origin, envelope.id - 1)
            if recorder is not None:
                began_ns = time.time_ns()
                number = recorder.start(envelope, began_ns)
        self._record, self._began_ns = number, began_ns

    def _failed(self, envelope: Envelope, error: BaseException) -> Any:
        """A handler raised: answer, record, and crash or end, unless it only refused or was withdrawn."""
        refused = isinstance(error, Refused)
        withdrawn = self.withdrawn and isinstance(error, asyncio.CancelledError)
        event = Event.REFUSED if refused else Event.CANCELLED if withdrawn else Event.FAILED
        cause = ActorDead(f"{self.ref} was killed") if self.killed and not refused else error
        self._close(self._record, 1, self._began_ns, envelope.origin, envelope.id, event)
        if not withdrawn:
            self.node.answer(envelope, to_failure(cause), sender=str(self.ref))
        if self.stashed and self.stashed[-1] is envelope:
            self.stashed.pop()  # it has been dealt with
        self.envelope = None
        self.withdrawn = False
        if self.killed:
            return self.go_on()
        return None if refused or withdrawn else self.crash(error)

    def _answer(self, envelope: Envelope, answer: Message | Later | None) -> None:
        if isinstance(answer, Later):
            self._answer_later(envelope, answer)
        elif envelope.kind == ASK and not (self.stashed and self.stashed[-1] is envelope):
            self.node.answer(envelope, answer, sender=str(self.ref))

    def _answer_later(self, envelope: Envelope, later: Later) -> None:
        # What it sends belongs to the trace; but the actor does not wait for it, so no ask of it can close a cycle.
        token = CURRENT.set(stand_in(envelope.trace, envelope.id, str(self.ref), envelope.deadline_ns, envelope.chain))
        task = self.node.loop.create_task(outcome(later.work))
        CURRENT.reset(token)
        unanswered = self.unanswered = self.unanswered if self.unanswered is not None else {}
        unanswered[envelope.id] = task

        def answer(done: asyncio.Task[Message | Failure | None]) -> None:
            withdrawn = unanswered.pop(envelope.id, None) is None
            if done.cancelled():
                later.work.close()  # it may not have begun
                if withdrawn:
                    return
                body: Message | Failure | None = to_failure(ActorDead(f"{self.ref} ended before it answered"))
            else:
                body = done.result()
            self.node.answer(envelope, body, sender=str(self.ref), late=True)

        task.add_done_callback(answer)

    def _runtime_message(self, envelope: Envelope) -> None:
        body = envelope.body
        if isinstance(body, Stop):
            CURRENT.set(envelope)
            self.exit_reason = body.reason
            self.node.record(Event.RECEIVED, envelope)
            self.node.record(Event.ENDED, envelope)
        elif isinstance(body, Rejected):
            self.node.settled(envelope.origin, str(self.ref), self.mailbox.passed(envelope), envelope.id)

    def _after_batch(self) -> Any:
        if self.killed or self.exit_reason:
            return self.go_on()
        mailbox = self.mailbox
        if mailbox.system or (mailbox.ordinary and not self.held):
            self.node.schedule(self)
        self._look_for_room()
        return None

    def _look_for_room(self) -> None:
        """Let those go on who wait for room in the mailbox, if there is."""
        mailbox = self.mailbox
        if (mailbox.full or mailbox.held or mailbox.waiters) and len(mailbox) * 2 <= mailbox.bound:
            mailbox.has_room_again()
