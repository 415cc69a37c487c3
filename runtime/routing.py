"""Which way a message goes, and what becomes of one that cannot be delivered.

The routing half of a node: `Node` has who lives here and what they may do. On the loop's thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from .asks import Asks
from .carrier import Carrier
from .codec import Codec
from .envelope import ASK, FAILURE, LIFE_SHIFT, REPLY, TELL, Envelope, Kind
from .errors import (
    ActorDead,
    ExeuntError,
    MailboxFull,
    Unencodable,
    UnknownMessage,
    to_failure,
)
from .flow import WAITING_BOUND, WINDOWS, Accounts, Outboxes
from .inheritance import HAND_OVER
from .local import LocalNode
from .mail import Mail
from .mailbox import DEFAULT_BOUND, Rejected
from .messages import Cancel, Link, Settled, Terminated, Watch
from .recorder import Event, HandledIds, Recorder, RingUnreadable
from .watches import Watches

logger = logging.getLogger(__name__)


class Routing(LocalNode):
    """Sends envelopes on their way."""

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
        self.malformed_total: int = 0
        self.carrier: Carrier | None = None
        self.outboxes = Outboxes(self._leave)
        self.mail = Mail()
        """What meets actors that are between two processes."""
        self._accounts = Accounts(self.loop, self._report, self._window)
        self._workers: dict[str, str] = {}
        self._origins: dict[tuple[str, int], str] = {}

    @property
    def transport(self) -> Carrier | None:
        """The way to other workers; None while this process is on its own."""
        return self.carrier

    @transport.setter
    def transport(self, transport: Carrier | None) -> None:
        self.carrier = transport
        if transport is not None:
            transport.unsendable = self.unsendable
            transport.sent = self.record_run
            transport.before_turn = self.begin_turn
            transport.after_turn = self.turn

    def worker_up(self, worker: str, endpoint: str, public_key: str = "") -> None:
        """Reach `worker` there from now on; between machines, know it by its public key."""
        if self.carrier is None or worker == self.worker:
            return
        prefix = f"{self.name}/{worker}/"
        if self.carrier.knows(worker):  # what was sent to its predecessor does not reach it
            self._lose_tells(prefix, None)
        self.carrier.connect(worker, endpoint, public_key)
        self.outboxes.open(prefix)

    def worker_changing(self, worker: str) -> None:
        """`worker` is about to hand over: what is for its actors waits until `worker_up` says where its successor is,
        or until that one is lost as well.
        """
        self.outboxes.closed.add(f"{self.name}/{worker}/")

    def lost(self, worker: str, ring: Path | None, *, succeeded: bool) -> None:
        """`worker` is gone; see `Node.worker_down`."""
        if self.carrier is not None:
            self.carrier.disconnect(worker)
        prefix = f"{self.name}/{worker}/"
        (self.outboxes.closed.add if succeeded else self.outboxes.closed.discard)(prefix)
        kept = self.outboxes.waiting(prefix) if succeeded else []
        why = "its worker handed over" if succeeded else "its worker died"
        waiting = {envelope.id for envelope in kept}
        for ask_id, to in self.asks.to_prefix(prefix):
            if ask_id not in waiting:
                self.asks.fail(ask_id, ActorDead(f"{to}: {why}"))
        self._accounts.forget(worker)
        for key in [key for key in self._origins if key[0] == worker]:
            del self._origins[key]
        renewed = {(envelope.sender, envelope.to) for envelope in kept if isinstance(envelope.body, Watch)}
        for watcher, target in self.watches.by_target_prefix(prefix):
            if (watcher, target) not in renewed:
                self.terminated(watcher, Terminated(target, HAND_OVER if succeeded else "worker_died"), None)
        self._lose_tells(prefix, ring)
        self.watches.forget_watchers_of(prefix)

    def _lose_tells(self, prefix: str, ring: Path | None) -> None:
        """Count the tells that nobody has handled, and nobody will."""
        handled: HandledIds | None = None
        for in_doubt, waiting in self.outboxes.lost(prefix):
            if in_doubt and handled is None:
                handled = _handled(ring)
            for envelope in (*in_doubt, *waiting):
                if handled is None or envelope.id not in handled:
                    self.undeliverable(envelope, ActorDead(f"{envelope.to}: its worker died"))

    async def until_settled(self, within_s: float) -> None:
        """Return when it is known what became of every tell to another worker. What is not known by then is a dead
        letter: call it last. Tells to the supervisor don't count, who outlives us.
        """
        self._accounts.flush()
        supervisor = f"{self.name}/supervisor/"
        await self.outboxes.until_settled(within_s, but=supervisor)
        for address in self.outboxes.unsettled(but=supervisor):
            self._lose_tells(address, None)

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

    def origin(self, sender: str, id_: int) -> str:
        """Return whom to tell what has become of a tell: the sender's worker, and the life of it that sent it.

        Its mail may outlive it here, and may overtake the news of it: a worker that was stopped for a while gets both
        at once.
        """
        key = (self.worker_of(sender), id_ >> LIFE_SHIFT)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) > 10_000:  # whoever makes up lives
                self._origins.clear()
            origin = self._origins[key] = f"{key[0]}/{key[1]}" if key[0] else ""
        return origin

    def route(self, envelope: Envelope) -> None:
        """Send an envelope on its way."""
        kind = envelope.kind
        if kind == TELL:
            self.route_tell(envelope)
        elif envelope.to.startswith(self.prefix):
            if kind not in (REPLY, FAILURE):
                self.record(Event.SENT, envelope)
            envelope.received_ns = time.time_ns()
            self.deliver(envelope)
        else:
            box = self.outboxes.known(envelope.to) if kind == ASK else None
            if box is not None and box.waiting:
                box.waiting.append(envelope)  # not ahead of what was told before
            elif self.outboxes.closed and self._waits_for_successor(envelope):
                self.outboxes.of(envelope.to).waiting.append(envelope)
            else:
                self._leave(envelope)

    def route_tell(self, envelope: Envelope) -> None:
        """Send a tell on its way, if its recipient's window allows."""
        to = envelope.to
        box = self.outboxes.by_address.get(to)
        if box is None:
            if to.startswith(self.prefix):
                envelope.received_ns = time.time_ns()
                self.deliver(envelope)
                return
            box = self.outboxes.of(to)
        closed = bool(self.outboxes.closed) and self.outboxes.is_closed(to)
        if box.outstanding < box.window and not box.waiting and not closed:
            box.sent(envelope)  # before it leaves: see `Outboxes.send`
            if not self._leave(envelope):
                box.withdraw(envelope.id)
                self.outboxes.forget_idle(to)
        elif len(box.waiting) >= WAITING_BOUND:
            self.undeliverable(envelope, MailboxFull(f"{WAITING_BOUND} messages for {to} wait here"))
        else:
            box.waiting.append(envelope)
            sender = self.by_address.get(envelope.sender)
            if sender is not None and not closed:
                self.outboxes.hold(box, sender.lifecycle)

    def _waits_for_successor(self, envelope: Envelope) -> bool:
        """Say whether an ask or a watch is for a worker that is being succeeded. Answers, and what else the runtime has
        to say, are for who still lives there.
        """
        wanted = envelope.kind == ASK or isinstance(envelope.body, Watch)
        return wanted and self.outboxes.is_closed(envelope.to)

    def _leave(self, envelope: Envelope) -> bool:
        """Give an envelope to the transport; False when that is impossible, of which whoever waits has been told."""
        to = envelope.to
        worker = self._workers.get(to)
        if worker is None:
            worker = self.worker_of(to)
        try:
            if self.carrier is not None and self.carrier.send(worker, envelope):
                return True
        except (UnknownMessage, Unencodable) as error:
            self._unencodable(envelope, error)
        else:
            self.undeliverable(envelope, ActorDead(f"{envelope.to}: no such worker"))
        return False

    def room(self, to: str) -> asyncio.Future[None] | None:
        """Return what to await before there may be room for a tell; None when there is."""
        if to.startswith(self.prefix):
            actor = self.by_address.get(to)
            if actor is None or len(actor.mailbox) < actor.mailbox.bound:
                return None
            room: asyncio.Future[None] = self.loop.create_future()
            actor.mailbox.waiters = [*(one for one in actor.mailbox.waiters or () if not one.done()), room]
            return room
        box = self.outboxes.known(to)
        if box is None or box.has_room:
            return None
        waiter: asyncio.Future[None] = self.loop.create_future()
        box.waiters = [*(one for one in box.waiters if not one.done()), waiter]
        return waiter

    def settled(self, origin: str, address: str, count: int, last: int) -> None:
        """Messages of another worker to an actor here have been dealt with: so many, up to that with the id `last`."""
        self._accounts.settle(origin, address, count, last)

    def withdraw(self, ask_id: int, to: str) -> None:
        """Tell a recipient that nobody waits for its answer any more."""
        box = self.outboxes.known(to)
        unsent = box.take_back(ask_id) if box is not None else None
        if unsent is not None:
            self.record(Event.CANCELLED, unsent)
            self.outboxes.send_on(to)
        else:
            self.system_because(None, to, Cancel(ask_id), sender=self.outside)

    def _report(self, origin: str, rows: list[tuple[str, int, int]]) -> None:
        worker = origin.partition("/")[0]
        if self.carrier is not None and self.carrier.knows(worker):
            to = f"{self.name}/{worker}/$node"
            self.system_because(None, to, Settled(tuple(rows)), sender=self.prefix + "$node")

    def _window(self, address: str) -> int:
        actor = self.by_address.get(address)
        bound = actor.mailbox.bound if actor is not None else DEFAULT_BOUND
        return max(WINDOWS[0], min(WINDOWS[1], bound // 2))

    def unsendable(self, envelope: Envelope, error: Unencodable) -> None:
        """An envelope that was to leave cannot be encoded."""
        box = self.outboxes.known(envelope.to)
        if envelope.kind == TELL and box is not None:
            box.withdraw(envelope.id)
            self.loop.call_soon(self.outboxes.send_on, envelope.to)  # there is room; later, for order's sake
        self._unencodable(envelope, error)

    def _unencodable(self, envelope: Envelope, error: ExeuntError) -> None:
        """Tell whoever waits. The asker of an answer that cannot be sent hears why, rather than nothing."""
        if envelope.kind != REPLY:
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
            self._accounts.settle(envelope.origin, envelope.to, self.standing_for(envelope), envelope.id)
        if type(envelope.body) is not Rejected:
            self.gone(envelope, error)

    def standing_for(self, envelope: Envelope) -> int:
        """Return for how many messages an envelope stands: more than one where a mailbox rejected some in a row."""
        return envelope.body.count if type(envelope.body) is Rejected else 1

    def gone(self, envelope: Envelope, error: ExeuntError) -> None:
        """Nobody will handle it, and flow control knows: tell who waits, or count a dead letter; unless its recipient
        goes on in a successor, who gets it.
        """
        if isinstance(error, ActorDead) and envelope.to.startswith(self.prefix) and self.mail.is_late(envelope):
            return
        self.record(Event.DROPPED, envelope)
        if envelope.kind == ASK:
            if not self.asks.fail(envelope.id, error):
                self.answer(envelope, to_failure(error), sender=envelope.to)
        elif envelope.kind == TELL:
            self.dead_letters.add(envelope, f"{type(error).__name__}: {error}")
            if self.recorder is not None:
                self.recorder.dead_letters(self.dead_letters.total)
        elif isinstance(envelope.body, Watch):
            gone = Terminated(envelope.to, "no_such_actor", watch=envelope.body.watch)
            self.terminated(envelope.sender, gone, envelope)
        elif isinstance(envelope.body, Link):
            self.terminated(envelope.sender, Terminated(envelope.to, "no_such_actor"), envelope)

    def deliver(self, envelope: Envelope) -> None:
        """Put an envelope where it belongs."""
        raise NotImplementedError

    def terminated(self, watcher: str, message: Terminated, because: Envelope | None) -> None:
        """Tell a local watcher, once."""
        raise NotImplementedError


def _handled(ring: Path | None) -> HandledIds:
    """Return what a dead worker had begun to handle; nothing, where nobody can tell."""
    if ring is not None:
        with contextlib.suppress(OSError, RingUnreadable):
            return HandledIds(ring)
    return HandledIds(None)
