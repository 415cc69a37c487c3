"""One process's share of the runtime: who lives here, who asked whom, who watches whom, and which way a message goes.

Everything here happens on one thread, the loop's. A ref that is used on another thread hops over (`hop`), so that
mailboxes, pending asks and watches need no locks and their races don't exist: an ask or a tell that meets a stop is
either handled, or answered with `ActorDead`, or a dead letter. Nothing is lost in silence.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .address import Address
from .codec import Codec
from .context import CURRENT, current
from .delivery import Delivery
from .deposits import Deposits
from .envelope import ASK, SYSTEM, TELL, Envelope, Message
from .errors import ActorDead, Failure, MailboxFull, NameTaken
from .groups import Groups, Names
from .messages import Link, Stop, Terminated, Unlink, Unwatch, Watch
from .recorder import Event, Recorder
from .ref import DEFAULT_ASK_TIMEOUT_S, Ref
from .reply import FarReply, NearReply, Reply

if TYPE_CHECKING:
    from .actor import Actor
    from .life import Life

logger = logging.getLogger(__name__)


class Node(Delivery):
    """The actors of one process, and their way to those of others."""

    def __init__(
        self,
        name: str,
        worker: str,
        *,
        codec: Codec,
        loop: asyncio.AbstractEventLoop | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__(name, worker, codec=codec, loop=loop, recorder=recorder)
        self.resources: dict[str, Any] = {}
        """What the actors of this process share beside messages (a device, a socket). Never crosses a process."""
        self.deposits = Deposits()
        """What the actors of this process want said in their names if it dies (`last_words`)."""
        self.on_exit: Callable[[Actor, str, Failure | None], None] = lambda _actor, _reason, _failure: None
        """Called when a local actor has ended, with its reason."""
        self.groups = Groups(self)
        """Groups of actors across workers."""
        self.names = Names()
        """Where the program's children live."""

    # --- who lives here ---

    def ref(self, address: Address | str) -> Ref:
        """Return a ref to any actor of any worker."""
        return Ref(address if isinstance(address, Address) else Address.parse(address), self)

    def local(self, name: str) -> Ref:
        """Return a ref to the actor of that name in this worker."""
        return Ref(Address(self.name, self.worker, name), self)

    def whereis(self, child_id: str) -> Ref | None:
        """Return a ref to a child of the program, by its id; None for one that is not known here (any more)."""
        address = self.names.address(child_id)
        return self.ref(address) if address is not None else None

    def start(self, actor: Actor, name: str, *, incarnation: int = 1) -> Ref:
        """Start an actor here. Its `on_start` runs in the loop's next turn; see `Actor.started`. Raises NameTaken."""
        if name in self.actors:
            raise NameTaken(f"{self.prefix}{name} already lives")
        self.actors[name] = self.by_address[f"{self.prefix}{name}"] = actor
        actor.attach(self, Address(self.name, self.worker, name), incarnation)
        for envelope in self.mail.started(f"{self.prefix}{name}"):
            self.deliver(envelope)
        return actor.ref

    def actor_ended(self, actor: Actor, left: list[Envelope], reason: str, failure: Failure | None) -> None:
        """Forget a local actor, answer what it left, tell its watchers. The actor itself calls this, last."""
        address = str(actor.ref)
        self.actors.pop(address[len(self.prefix) :], None)
        self.by_address.pop(address, None)
        for envelope in left:
            self.undeliverable(envelope, ActorDead(f"{envelope.to} ended ({reason}) before it handled this"))
        self.groups.ended(address)
        watchers = self.watches.of_target(address)
        for watcher, watch in watchers:
            self.system(watcher, Terminated(address, reason, actor.incarnation, failure, watch), sender=address)
        told = {watcher for watcher, _ in watchers}
        for target, tie in self.watches.forget_watcher(address):
            self.system(target, Unwatch(tie.id), sender=address)
            if tie.linked and target not in told:  # its half of the link is still on its way to us
                self.system(target, Terminated(address, reason, actor.incarnation), sender=address)
        self.on_exit(actor, reason, failure)

    # --- sending ---

    def tell(self, to: str, message: Message) -> None:
        """Send and forget. From any thread."""
        id_, context = next(self.ids), CURRENT.get()
        if context is None:
            envelope = Envelope(id_, id_, 0, self.outside, to, TELL, 0, message)
        else:
            envelope = Envelope(id_, context.trace or id_, context.id, context.to, to, TELL, 0, message)
        if threading.get_ident() == self.thread:
            actor = self.by_address.get(to)
            if actor is None:
                self.route_tell(envelope)
            else:
                envelope.received_ns = time.time_ns()
                self.put(actor, envelope)
        elif not self.hop(lambda: self._land_tell(envelope)):
            self.dead_letters.add(envelope, "this process's loop has ended")

    def tell_self(self, actor: Life, message: Message) -> None:
        """Put a message into an actor's own mailbox, whatever its bound: a timer's."""
        address = str(actor.ref)
        self.put(actor.actor, self.envelope(address, message, TELL, sender=address), forced=True)

    async def offer(self, to: str, message: Message, *, timeout_s: float) -> None:
        """Tell as soon as there is room. Raises MailboxFull when that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                while (room := self.room(to)) is not None:
                    await room
        except TimeoutError:
            raise MailboxFull(f"{to} had no room within {timeout_s:g} s") from None
        self.tell(to, message)

    def ask(self, to: str, message: Message, *, timeout_s: float | None = None) -> Reply:
        """Send and get a `Reply`. From any thread."""
        context = CURRENT.get()
        now_s = self.loop.time()
        if timeout_s is None:
            timeout_s = DEFAULT_ASK_TIMEOUT_S
            if context is not None and context.deadline_ns:
                timeout_s = max(0.0, min(timeout_s, context.deadline_ns / 1e9 - now_s))
        envelope = self.envelope(to, message, ASK, deadline_ns=int((now_s + timeout_s) * 1e9))
        if context is not None:
            envelope.chain = context.chain
            if context.kind in (TELL, ASK):  # its handler waits for this, as far as we know
                envelope.chain = (*context.chain, (context.to, context.id))
        if threading.get_ident() == self.thread:
            near = NearReply(loop=self.loop)
            near.abandoned = self._abandoned
            self.asks.begin(envelope.id, to, near, timeout_s, now_s)
            actor = self.by_address.get(to)
            if actor is None:
                self.route(envelope)
            else:
                envelope.received_ns = time.time_ns()
                if self.recorder is not None:
                    self.recorder.record(Event.SENT, envelope, at_ns=envelope.received_ns)
                self.put(actor, envelope)
            return near
        return self._ask_from_afar(envelope, timeout_s)

    def watch(self, target: str) -> None:
        """Have the actor that runs now told when `target` ends."""
        watcher, watch = self._me(), next(self.ids)
        if self.watches.add(watcher, target, watch):
            self.system(target, Watch(self.watches.id_of(watcher, target)), sender=watcher)

    def unwatch(self, target: str) -> None:
        """Take a watch back."""
        watcher = self._me()
        watch = self.watches.drop(watcher, target)
        if watch:
            self.system(target, Unwatch(watch), sender=watcher)

    def link(self, target: str) -> None:
        """Tie the actor that runs now to `target`, and `target` to it."""
        me = self._me()
        self.tie(me, target)
        self.system(target, Link(), sender=me)

    def unlink(self, target: str) -> None:
        """Untie them."""
        me = self._me()
        self.untie(me, target)
        self.system(target, Unlink(), sender=me)

    def stop_actor(
        self,
        target: str,
        reason: str,
        *,
        how: Literal["stop", "drain", "kill"] = "stop",
        incarnation: int = 0,
    ) -> None:
        """Send a stop, ahead of what waits in the mailbox. From any thread."""
        envelope = self.envelope(target, Stop(reason, how, incarnation), SYSTEM)
        if threading.get_ident() == self.thread:
            self.route(envelope)
        else:
            self.hop(lambda: self.route(envelope))

    def worker_down(self, worker: str, ring: str = "", *, succeeded: bool = False) -> None:
        """`worker` is gone: fail the asks that wait for it and tell its actors' watchers, at once. Its flight
        recorder, if its file can be read, says which of our tells it had begun to handle. `succeeded`: it has handed
        over, and what is for its actors waits for the successor.
        """
        self.lost(worker, Path(ring) if ring else None, succeeded=succeeded)
        self.groups.worker_down(worker)

    def expect_nobody(self) -> None:
        """Whoever was to be started here as a successor has been, or won't be: what waits for them learns that."""
        for envelope in self.mail.give_up():
            self.deliver(envelope)

    # --- inside ---

    def _land_tell(self, envelope: Envelope) -> None:
        """Send what another thread has told. It gets its id now: ids are in the order of sending."""
        begins = envelope.trace == envelope.id
        envelope.id = next(self.ids)
        if begins:
            envelope.trace = envelope.id
        self.route(envelope)

    def _me(self) -> str:
        context = current()
        if context is None:
            raise RuntimeError("only an actor can watch: call this in a handler or a hook")
        return context.to

    def _ask_from_afar(self, envelope: Envelope, timeout_s: float) -> Reply:
        far = FarReply(timeout_s)
        far.ask_id = envelope.id

        def abandoned(ask_id: int) -> None:
            self.hop(lambda: self._abandoned(ask_id))

        far.abandoned = abandoned

        def begin() -> None:
            self.asks.begin(envelope.id, envelope.to, far, timeout_s, self.loop.time())
            self.route(envelope)

        if not self.hop(begin):
            far.fail(ActorDead(f"{envelope.to} cannot be reached: this process's loop has ended"))
        return far

    def _abandoned(self, ask_id: int) -> None:
        to = self.asks.forget(ask_id)
        if to:
            self.withdraw(ask_id, to)
