"""What arrives, and where it belongs: mailboxes, askers, watchers.

Between `Routing`, which has the ways out, and `Node`. On the loop's thread only.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from .codec import DamagedRun, Malformed, MalformedFrame, Run
from .envelope import FAILURE, REPLY, SYSTEM, TELL, Envelope, Kind
from .errors import (
    ActorDead,
    AskCycle,
    Failure,
    MailboxFull,
    UnknownMessage,
    to_error,
)
from .events import Event as Happening
from .events import MailboxFull as MailboxWasFull
from .events import StrangerRefused
from .flow import HELD_AT_MOST_S
from .messages import ABNORMAL_REASONS, Cancel, Link, Settled, Stop, Terminated, Unlink, Unwatch, Watch
from .recorder import Event
from .routing import Routing

if TYPE_CHECKING:
    from .actor import Actor

logger = logging.getLogger(__name__)

_QUIET_S = 1.0  # between two complaints of frames that could not be read; each is counted
_IDS = 1 << 64  # what the flight recorder can write


class Delivery(Routing):
    """Delivers."""

    _quiet_until_s = 0.0

    def handle_frame(self, frame: bytes) -> None:
        """Deliver what another worker sent. What cannot be read is counted and dropped."""
        now_ns = time.time_ns()
        try:
            for run in self.codec.runs(frame):
                if run.kind == TELL:
                    self._tells_arrive(run, now_ns)
                    continue
                for envelope in self.codec.envelopes(run):
                    envelope.received_ns = now_ns
                    self.deliver(envelope)
        except MalformedFrame as error:
            self.malformed_total += 1
            if self.loop.time() >= self._quiet_until_s:  # whoever sends a flood of them is not to fill the log
                self._quiet_until_s = self.loop.time() + _QUIET_S
                logger.warning("Dropped a malformed frame", extra={"event": "frame_malformed", "reason": str(error)})
                self.happened(StrangerRefused(self.worker, reason=f"a frame could not be read: {error}"))

    def _tells_arrive(self, run: Run, now_ns: int) -> None:
        """Put a whole run into a mailbox that has room for it; else each of it where it belongs."""
        if run.id + len(run.bodies) > _IDS:
            raise MalformedFrame("an id is no 64-bit number")
        origin = self.origin(run.sender, run.id) if self.carrier is not None else ""
        sender, to, cause, trace = run.sender, run.to, run.cause, run.trace
        envelopes = [
            Envelope(id_, trace or id_, cause, sender, to, TELL, 0, body, (), now_ns, origin)
            for id_, body in enumerate(run.bodies, run.id)
        ]
        actor = self.by_address.get(to)
        if actor is None or type(run) is DamagedRun or not actor.mailbox.put_all(envelopes):
            for envelope in envelopes:
                self.deliver(envelope)
        elif not actor.lifecycle.scheduled:
            self.schedule(actor.lifecycle)

    def deliver(self, envelope: Envelope) -> None:
        """Put an envelope where it belongs."""
        kind = envelope.kind
        if kind in (REPLY, FAILURE):
            self.answered(envelope)
        elif type(envelope.body) is Malformed:
            self._unreadable(envelope, envelope.body)
        elif kind == SYSTEM:
            self._system(envelope)
        else:
            actor = self.by_address.get(envelope.to)
            if actor is None:
                if not self.mail.is_early(envelope):
                    self.undeliverable(envelope, ActorDead(f"{envelope.to} does not live"))
            else:
                self.put(actor, envelope)

    def _unreadable(self, envelope: Envelope, body: Malformed) -> None:
        self.malformed_total += 1
        actor = self.by_address.get(envelope.to)
        if actor is None or not envelope.origin:
            self.undeliverable(envelope, UnknownMessage(body.reason))
            return
        actor.mailbox.reject(envelope)  # settled when it is its turn: see `flow`
        self.schedule(actor.lifecycle)
        self.gone(envelope, UnknownMessage(body.reason))

    def put(self, actor: Actor, envelope: Envelope, *, forced: bool = False) -> None:
        """Put an ordinary message into an actor's mailbox."""
        mailbox = actor.mailbox
        if mailbox.draining:
            mailbox.reject(envelope)
            self.gone(envelope, ActorDead(f"{envelope.to} is stopping"))
            return
        if envelope.chain and self._closes_cycle(actor, envelope):
            return
        if mailbox.policy == "block" and not forced and len(mailbox) >= mailbox.bound:
            sender = envelope.sender
            forced = bool(envelope.origin) or (sender in self.by_address and sender != envelope.to)
        refused = mailbox.put(envelope, forced=forced)
        if not actor.lifecycle.scheduled:
            self.schedule(actor.lifecycle)
        if refused is not None:
            error = MailboxFull(f"{envelope.to} has {mailbox.bound} messages waiting")
            if refused is envelope:  # its place in the order is kept: see `Mailbox.reject`
                self.gone(refused, error)
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
            sender = self.by_address.get(envelope.sender)
            if sender is not None and sender is not actor and sender.lifecycle.hold(HELD_AT_MOST_S):
                mailbox.held = [*(one for one in mailbox.held or () if one is not sender.lifecycle), sender.lifecycle]

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

    def answered(self, envelope: Envelope) -> None:
        """Give an answer to who asked, here."""
        body: Any = envelope.body
        if envelope.kind == REPLY and type(body) is not Malformed:
            waited = self.asks.resolve(envelope.cause, body)
        elif type(body) is Failure:
            waited = self.asks.fail(envelope.cause, to_error(body))
        else:
            waited = self.asks.fail(envelope.cause, UnknownMessage("the answer could not be read"))
        self.record(Event.RECEIVED if waited else Event.DROPPED, envelope)  # dropped: its asker gave up

    def _system(self, envelope: Envelope) -> None:
        body = envelope.body
        if isinstance(body, Settled):
            self._settled(envelope, body)
            return
        if isinstance(body, Happening):
            self.happened(body)  # of a worker, for whoever listens to the whole program
            return
        if isinstance(body, Terminated):
            self._taken_care_of(envelope)
            self.terminated(envelope.to, body, envelope)
            return
        actor = self.by_address.get(envelope.to)
        if isinstance(body, Stop) and actor is not None and body.incarnation in (0, actor.incarnation):
            self._stop(actor, envelope, body)
            return
        if isinstance(body, Watch):
            if actor is None and self.mail.is_early(envelope):
                return
            self._watched(actor, envelope, body)
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

    def _watched(self, actor: Actor | None, envelope: Envelope, body: Watch) -> None:
        if actor is not None:
            self.watches.add_remote(envelope.sender, envelope.to, body.watch)
        else:
            gone = Terminated(envelope.to, "no_such_actor", watch=body.watch)
            self.system_because(envelope, envelope.sender, gone, sender=envelope.to)

    def _settled(self, envelope: Envelope, body: Settled) -> None:
        worker = self.worker_of(envelope.sender)
        for address, last, window in body.rows:
            if self.worker_of(address) == worker:  # each speaks for its own actors
                self.outboxes.settled(address, last, window)

    def _stop(self, actor: Actor, envelope: Envelope, stop: Stop) -> None:
        if stop.how == "kill":
            self._taken_care_of(envelope)
            actor.lifecycle.kill("linked" if stop.reason == "linked" else "killed")
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

    def terminated(self, watcher: str, message: Terminated, because: Envelope | None) -> None:
        """Tell a local watcher, once; a second one, or one after `unwatch`, finds no tie."""
        tie = self.watches.end(watcher, message.address, message.watch)
        actor = self.by_address.get(watcher)
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
            self.put(actor, envelope, forced=True)
