"""Which way a message goes, and what becomes of one that cannot be delivered.

The routing half of a node: `Node` has who lives here and what they may do. On the loop's thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .asks import Asks
from .carrier import Carrier
from .codec import Codec, Malformed, MalformedFrame
from .envelope import Envelope, Kind
from .errors import (
    ActorDead,
    AskCycle,
    ExeuntError,
    Failure,
    MailboxFull,
    Unencodable,
    UnknownMessage,
    to_error,
    to_failure,
)
from .events import MailboxFull as MailboxWasFull
from .events import StrangerRefused
from .flow import HELD_AT_MOST_S, WAITING_BOUND, WINDOWS, Accounts, Outboxes
from .local import LocalNode
from .mailbox import DEFAULT_BOUND, Rejected
from .messages import ABNORMAL_REASONS, Cancel, Link, Settled, Stop, Terminated, Unlink, Unwatch, Watch
from .recorder import Event, HandledIds, Recorder, RingUnreadable
from .watches import Watches

if TYPE_CHECKING:
    from .actor import Actor

logger = logging.getLogger(__name__)


class Delivery(LocalNode):
    """Routes and delivers."""

    def __init__(
        self,
        name: str,
        worker: str,
        *,
        codec: Codec,
        loop: asyncio.AbstractEventLoop | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__(name, worker, loop, recorder)
        self.codec = codec
        self.asks = Asks(self.loop, self.withdraw)
        """The asks of this node that wait for an answer."""
        self.watches = Watches()
        self.malformed_total = 0
        self._transport: Carrier | None = None
        self._outboxes = Outboxes(self.loop, self._leave)
        self._accounts = Accounts(self.loop, self._report, self._window)
        self._workers: dict[str, str] = {}

    @property
    def transport(self) -> Carrier | None:
        """The way to other workers; None while this process is on its own."""
        return self._transport

    @transport.setter
    def transport(self, transport: Carrier | None) -> None:
        self._transport = transport
        if transport is not None:
            transport.unsendable = self.unsendable
            transport.sent = self.record_run

    # --- what comes from outside ---

    def handle_frame(self, frame: bytes) -> None:
        """Deliver what another worker sent. What cannot be read is counted and dropped."""
        now_ns = time.time_ns()
        sender = origin = ""
        known = False
        try:
            for envelope in self.codec.decode(frame):
                envelope.received_ns = now_ns
                if envelope.kind == Kind.TELL:
                    if envelope.sender is not sender:
                        sender = envelope.sender
                        origin = self.worker_of(sender)
                        known = self._transport is not None and self._transport.knows(origin)
                    if known:
                        envelope.origin = origin
                self.deliver(envelope)
        except MalformedFrame as error:
            self.malformed_total += 1
            logger.warning("Dropped a malformed frame", extra={"event": "frame_malformed", "reason": str(error)})
            self.happened(StrangerRefused(self.worker, reason=f"a frame could not be read: {error}"))

    def worker_up(self, worker: str, endpoint: str) -> None:
        """Reach `worker` there from now on."""
        if self._transport is None or worker == self.worker:
            return
        if self._transport.knows(worker):  # what was sent to its predecessor does not reach it
            self._lose_tells(f"{self.name}/{worker}/", None)
        self._transport.connect(worker, endpoint)

    def lost(self, worker: str, ring: Path | None) -> None:
        """`worker` is gone; see `Node.worker_down`."""
        if self._transport is not None:
            self._transport.disconnect(worker)
        prefix = f"{self.name}/{worker}/"
        for ask_id, to in self.asks.to_prefix(prefix):
            self.asks.fail(ask_id, ActorDead(f"{to}: its worker died"))
        self._accounts.forget(worker)
        self._lose_tells(prefix, ring)
        for watcher, target in self.watches.by_target_prefix(prefix):
            self._terminated(watcher, Terminated(target, "worker_died"), None)
        self.watches.forget_watchers_of(prefix)

    def _lose_tells(self, prefix: str, ring: Path | None) -> None:
        """Count the tells that nobody has handled, and nobody will."""
        handled: HandledIds | None = None
        for in_doubt, waiting in self._outboxes.lost(prefix):
            if in_doubt and handled is None:
                handled = _handled(ring)
            for envelope in (*in_doubt, *waiting):
                if handled is None or envelope.id not in handled:
                    self.undeliverable(envelope, ActorDead(f"{envelope.to}: its worker died"))

    # --- ways ---

    def worker_of(self, address: str) -> str:
        """Return the worker of an address of this program; nothing for any other."""
        worker = self._workers.get(address)
        if worker is None:
            node, _, rest = address.partition("/")
            worker = rest.partition("/")[0] if node == self.name else ""
            if len(self._workers) > 10_000:  # names that come and go
                self._workers.clear()
            self._workers[address] = worker
        return worker

    def route(self, envelope: Envelope) -> None:
        """Send an envelope on its way."""
        to = envelope.to
        if to.startswith(self.prefix):
            if envelope.kind not in (Kind.REPLY, Kind.FAILURE):
                self.record(Event.SENT, envelope)
            envelope.received_ns = time.time_ns()
            self.deliver(envelope)
            return
        if self._transport is None or not self._transport.knows(self.worker_of(to)):
            self.undeliverable(envelope, ActorDead(f"{to}: no such worker"))
        elif not self.codec.knows(envelope.body):
            self._unencodable(
                envelope, UnknownMessage(f"{type(envelope.body).__name__} is not registered with the codec")
            )
        elif envelope.kind == Kind.TELL:
            self._route_tell(envelope)
        else:
            box = self._outboxes.known(to) if envelope.kind == Kind.ASK else None
            if box is not None and box.waiting:
                box.waiting.append(envelope)  # not ahead of what was told before
            else:
                self._leave(envelope)

    def _route_tell(self, envelope: Envelope) -> None:
        box = self._outboxes.of(envelope.to)
        if box.has_room:
            box.sent(envelope)
            self._leave(envelope)
        elif len(box.waiting) >= WAITING_BOUND:
            self.undeliverable(envelope, MailboxFull(f"{WAITING_BOUND} messages for {envelope.to} wait here"))
        else:
            box.waiting.append(envelope)
            sender = self.living(envelope.sender)
            if sender is not None:
                self._outboxes.hold(box, sender.lifecycle)

    def _leave(self, envelope: Envelope) -> None:
        worker = self.worker_of(envelope.to)
        if self._transport is None or not self._transport.send(worker, envelope):
            self.undeliverable(envelope, ActorDead(f"{envelope.to}: no such worker"))

    def room(self, to: str) -> asyncio.Future[None] | None:
        """Return what to await before there may be room for a tell; None when there is."""
        if to.startswith(self.prefix):
            actor = self.living(to)
            if actor is None or len(actor.mailbox) < actor.mailbox.bound:
                return None
            room: asyncio.Future[None] = self.loop.create_future()
            actor.mailbox.waiters = [*(actor.mailbox.waiters or ()), room]
            return room
        box = self._outboxes.known(to)
        if box is None or box.has_room:
            return None
        waiter: asyncio.Future[None] = self.loop.create_future()
        box.waiters.append(waiter)
        return waiter

    def settled(self, origin: str, address: str, count: int) -> None:
        """Messages of another worker to an actor here have been dealt with."""
        self._accounts.settle(origin, address, count)

    def withdraw(self, ask_id: int, to: str) -> None:
        """Tell a recipient that nobody waits for its answer any more."""
        self.system_because(None, to, Cancel(ask_id), sender=self.outside)

    def _report(self, worker: str, rows: list[tuple[str, int, int]]) -> None:
        if self._transport is not None and self._transport.knows(worker):
            to = f"{self.name}/{worker}/$node"
            self.system_because(None, to, Settled(tuple(rows)), sender=self.prefix + "$node")

    def _window(self, address: str) -> int:
        actor = self.living(address)
        bound = actor.mailbox.bound if actor is not None else DEFAULT_BOUND
        return max(WINDOWS[0], min(WINDOWS[1], bound // 2))

    # --- arrival ---

    def deliver(self, envelope: Envelope) -> None:
        """Put an envelope where it belongs."""
        kind = envelope.kind
        if kind in (Kind.REPLY, Kind.FAILURE):
            self._answered(envelope)
        elif type(envelope.body) is Malformed:
            self.malformed_total += 1
            self.undeliverable(envelope, UnknownMessage(envelope.body.reason))
        elif kind == Kind.SYSTEM:
            self._system(envelope)
        else:
            self.put(envelope)

    def put(self, envelope: Envelope, *, forced: bool = False) -> None:
        """Put an ordinary message into its actor's mailbox."""
        actor = self.living(envelope.to)
        if actor is None:
            self.undeliverable(envelope, ActorDead(f"{envelope.to} does not live"))
            return
        mailbox = actor.mailbox
        if mailbox.draining:
            mailbox.reject(envelope)
            self._gone(envelope, ActorDead(f"{envelope.to} is stopping"))
            return
        if envelope.chain and self._closes_cycle(actor, envelope):
            return
        refused = mailbox.put(envelope, forced=forced)
        if not actor.lifecycle.scheduled:
            self.schedule(actor.lifecycle)
        if refused is not None:
            error = MailboxFull(f"{envelope.to} has {mailbox.bound} messages waiting")
            if refused is envelope:  # its place in the order is kept: see `Mailbox.reject`
                self._gone(refused, error)
            else:
                self.undeliverable(refused, error)
        if refused is not None or len(mailbox) >= mailbox.bound:
            self._full(actor, envelope)

    def _full(self, actor: Actor, envelope: Envelope) -> None:
        mailbox = actor.mailbox
        if not mailbox.full:
            mailbox.full = True
            self.happened(MailboxWasFull(envelope.to, bound=mailbox.bound, policy=mailbox.policy))
        if mailbox.policy == "block":
            sender = self.living(envelope.sender)
            if sender is not None and sender is not actor and sender.lifecycle.hold():
                mailbox.held = [*(mailbox.held or ()), sender.lifecycle]
                self.loop.call_later(HELD_AT_MOST_S, sender.lifecycle.release)

    def _closes_cycle(self, actor: Actor, envelope: Envelope) -> bool:
        """Fail an ask to an actor that itself waits for its answer."""
        handled = actor.lifecycle.envelope
        if handled is None:
            return False
        chain = envelope.chain
        for index, (address, id_) in enumerate(chain):
            if id_ == handled.id and address == envelope.to:
                cycle = " → ".join([*(one for one, _ in chain[index:]), envelope.to])
                self.undeliverable(envelope, AskCycle(f"this ask would wait for itself: {cycle}"))
                return True
        return False

    def _system(self, envelope: Envelope) -> None:
        body = envelope.body
        if isinstance(body, Settled):
            for address, count, window in body.rows:
                self._outboxes.settled(address, count, window)
            return
        if isinstance(body, Terminated):
            self._taken_care_of(envelope)
            self._terminated(envelope.to, body, envelope)
            return
        actor = self.living(envelope.to)
        if isinstance(body, Stop) and actor is not None and body.incarnation in (0, actor.incarnation):
            self._stop(actor, envelope, body)
            return
        if isinstance(body, Watch):
            if actor is not None:
                self.watches.add_remote(envelope.sender, envelope.to, body.watch)
            else:
                gone = Terminated(envelope.to, "no_such_actor", watch=body.watch)
                self.system_because(envelope, envelope.sender, gone, sender=envelope.to)
        elif isinstance(body, Unwatch):
            self.watches.remove_remote(envelope.sender, envelope.to, body.watch)
        elif isinstance(body, Link):
            self._linked(actor, envelope)
        elif isinstance(body, Unlink):
            self.untie(envelope.to, envelope.sender)
        elif isinstance(body, Cancel) and actor is not None:
            actor.lifecycle.withdraw(body.ask)
        else:
            self.record(Event.DROPPED, envelope)
            return
        self._taken_care_of(envelope)

    def _stop(self, actor: Actor, envelope: Envelope, stop: Stop) -> None:
        if stop.how == "kill":
            self._taken_care_of(envelope)
            actor.kill()
        elif stop.how == "drain":
            actor.mailbox.drain(envelope)
            self.schedule(actor.lifecycle)
        else:
            actor.mailbox.put_system(envelope)
            self.schedule(actor.lifecycle)

    def _taken_care_of(self, envelope: Envelope) -> None:
        """Record a system message that the node itself handles, so that no trace waits for it."""
        self.record(Event.RECEIVED, envelope)
        self.record(Event.ENDED, envelope)

    # --- ties ---

    def tie(self, actor: str, other: str) -> None:
        """Link a local actor to another, which is asked to tell of its end."""
        watch = next(self.ids)
        if self.watches.add(actor, other, watch, linked=True):
            self.system(other, Watch(self.watches.id_of(actor, other)), sender=actor)

    def untie(self, actor: str, other: str) -> None:
        """Undo a local actor's half of a link."""
        watch = self.watches.drop(actor, other, linked=True)
        if watch:
            self.system(other, Unwatch(watch), sender=actor)

    def _linked(self, actor: Actor | None, link: Envelope) -> None:
        """Another actor has linked itself to one of ours: do our half, or say that ours is dead."""
        if actor is not None:
            self.tie(link.to, link.sender)
        else:
            self.system_because(link, link.sender, Terminated(link.to, "no_such_actor"), sender=link.to)

    def _terminated(self, watcher: str, message: Terminated, because: Envelope | None) -> None:
        """Tell a local watcher, once; a second one, or one after `unwatch`, finds no tie."""
        tie = self.watches.end(watcher, message.address, message.watch)
        actor = self.living(watcher)
        if tie is None or actor is None:
            return
        fatal = tie.linked and message.reason in ABNORMAL_REASONS and not actor.trap_exits
        if fatal:
            self.system_because(because, watcher, Stop("linked", "kill"), sender=message.address)
        elif tie.watched or (tie.linked and actor.trap_exits):
            envelope = self.envelope(watcher, message, Kind.TELL, sender=message.address)
            if because is not None:
                envelope.trace, envelope.cause = because.trace, because.id
            self.record(Event.SENT, envelope)
            envelope.received_ns = time.time_ns()
            self.put(envelope, forced=True)

    # --- answers, and what could not be delivered ---

    def _answered(self, envelope: Envelope) -> None:
        body: Any = envelope.body
        if envelope.kind == Kind.REPLY and type(body) is not Malformed:
            waited = self.asks.resolve(envelope.cause, body)
        elif type(body) is Failure:
            waited = self.asks.fail(envelope.cause, to_error(body))
        else:
            waited = self.asks.fail(envelope.cause, UnknownMessage("the answer could not be read"))
        self.record(Event.RECEIVED if waited else Event.DROPPED, envelope)  # dropped: its asker gave up

    def unsendable(self, envelope: Envelope, error: Unencodable) -> None:
        """An envelope that was to leave cannot be encoded."""
        box = self._outboxes.known(envelope.to)
        if envelope.kind == Kind.TELL and box is not None:
            box.withdraw(envelope.id)
        self._unencodable(envelope, error)

    def _unencodable(self, envelope: Envelope, error: ExeuntError) -> None:
        """Tell whoever waits. The asker of an answer that cannot be sent hears why, rather than nothing."""
        if envelope.kind != Kind.REPLY:
            self.undeliverable(envelope, error)
            return
        self.record(Event.DROPPED, envelope)
        failure = to_failure(error)
        self.route(
            Envelope(
                next(self.ids), envelope.trace, envelope.cause, envelope.sender, envelope.to, Kind.FAILURE, 0, failure
            )
        )

    def undeliverable(self, envelope: Envelope, error: ExeuntError) -> None:
        """Nobody will handle it: tell who waits, or count a dead letter; flow control has one message less."""
        if envelope.origin:
            self._accounts.settle(envelope.origin, envelope.to, self._standing_for(envelope))
        if type(envelope.body) is not Rejected:
            self._gone(envelope, error)

    def _standing_for(self, envelope: Envelope) -> int:
        return envelope.body.count if type(envelope.body) is Rejected else 1

    def _gone(self, envelope: Envelope, error: ExeuntError) -> None:
        self.record(Event.DROPPED, envelope)
        if envelope.kind == Kind.ASK:
            if not self.asks.fail(envelope.id, error):
                self.answer(envelope, to_failure(error), sender=envelope.to)
        elif envelope.kind == Kind.TELL:
            self.dead_letters.add(envelope, f"{type(error).__name__}: {error}")
            if self.recorder is not None:
                self.recorder.dead_letters(self.dead_letters.total)
        elif isinstance(envelope.body, Watch):
            gone = Terminated(envelope.to, "no_such_actor", watch=envelope.body.watch)
            self._terminated(envelope.sender, gone, envelope)
        elif isinstance(envelope.body, Link):
            self._terminated(envelope.sender, Terminated(envelope.to, "no_such_actor"), envelope)


def _handled(ring: Path | None) -> HandledIds:
    """Return what a dead worker had begun to handle; nothing, where nobody can tell."""
    if ring is not None:
        with contextlib.suppress(OSError, RingUnreadable):
            return HandledIds(ring)
    return HandledIds(None)
