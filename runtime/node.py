"""One process's share of the runtime: who lives here, who asked whom, who watches whom, and which way a message goes.

Everything here happens on one thread, the loop's. A ref that is used on another thread hops over (`_hop`), so that
mailboxes, pending asks and watches need no locks and their races don't exist: an ask or a tell that meets a stop is
either handled, or answered with `ActorDead`, or a dead letter. Nothing is lost in silence.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .address import Address
from .carrier import Carrier
from .codec import Codec, Malformed, MalformedFrame
from .context import current
from .envelope import Envelope, Kind, Message
from .errors import (
    ActorDead,
    AskTimeout,
    ExeuntError,
    Failure,
    LocalError,
    MailboxFull,
    NameTaken,
    UnknownMessage,
    to_error,
    to_failure,
)
from .groups import Groups, Names
from .messages import Stop, Terminated, Unwatch, Watch
from .recorder import Event, Recorder
from .ref import Ref
from .reply import Reply
from .watches import Watches

if TYPE_CHECKING:
    from .actor import Actor

logger = logging.getLogger(__name__)

DEAD_LETTERS_KEPT = 100


class Node:
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
        self.name = name
        self.worker = worker
        self.loop = loop or asyncio.get_running_loop()
        self.recorder = recorder
        self.transport: Carrier | None = None
        """None while this process is on its own."""
        self.resources: dict[str, Any] = {}
        """What the actors of this process share beside messages (a device, a socket). Never crosses a process."""
        self.on_exit: Callable[[Actor, str, Failure | None], None] = lambda _actor, _reason, _failure: None
        """Called when a local actor has ended, with its reason."""
        self.actors: dict[str, Actor] = {}
        """The living, by name, in order of start."""
        self.dead_letters_total = 0
        self.malformed_total = 0
        self.dead_letters: deque[Envelope] = deque(maxlen=DEAD_LETTERS_KEPT)
        self._codec = codec
        self._outside = f"{name}/{worker}/$outside"
        self._prefix = f"{name}/{worker}/"
        self._ids = itertools.count((secrets.randbits(24) << 40) | 1)
        self._pending: dict[int, tuple[Reply, str]] = {}
        self._watches = Watches()
        self.groups = Groups(self)
        """Groups of actors across workers."""
        self.names = Names()
        """Where the program's children live."""
        self._thread = threading.get_ident()
        self._hopping: deque[Callable[[], None]] = deque()
        self._hop_scheduled = False

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
        """Start an actor here. Its `on_start` runs in its own task; see `Actor.started`. Raises NameTaken."""
        if name in self.actors:
            raise NameTaken(f"{self._prefix}{name} already lives")
        self.actors[name] = actor
        actor.attach(self, Address(self.name, self.worker, name), incarnation)
        return actor.ref

    def actor_ended(self, actor: Actor, left: list[Envelope], reason: str, failure: Failure | None) -> None:
        """Forget a local actor, answer what it left, tell its watchers. The actor's own task calls this, last."""
        name = actor.ref.address.name
        self.actors.pop(name, None)
        for envelope in left:
            self._undeliverable(envelope, ActorDead(f"{envelope.to} ended ({reason}) before it handled this"))
        self.groups.ended(str(actor.ref))
        terminated = Terminated(str(actor.ref), reason, actor.incarnation, failure)
        for watcher in self._watches.of_target(str(actor.ref)):
            self._send(watcher, terminated, Kind.SYSTEM, sender=str(actor.ref))
        for target in self._watches.forget_watcher(str(actor.ref)):
            self._send(target, Unwatch(), Kind.SYSTEM, sender=str(actor.ref))
        self.on_exit(actor, reason, failure)

    # --- sending ---

    def tell(self, to: str, message: Message) -> None:
        """Send and forget. From any thread."""
        self._on_loop(self._envelope(to, message, Kind.TELL))

    def ask(self, to: str, message: Message, *, timeout_s: float) -> Reply:
        """Send and get a `Reply`. From any thread."""
        on_loop = threading.get_ident() == self._thread
        reply = Reply(self.loop, on_loop=on_loop, timeout_s=timeout_s)
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        envelope = self._envelope(to, message, Kind.ASK, deadline_ns=deadline_ns)

        def begin() -> None:
            self._pending[envelope.id] = (reply, to)
            reply.timer = self.loop.call_later(timeout_s, self._ask_timed_out, envelope.id, timeout_s)
            self._route(envelope)

        if on_loop:
            begin()
        elif not self._hop(begin):
            reply.fail(ActorDead(f"{to} cannot be reached: this process's loop has ended"))
        return reply

    def watch(self, target: str) -> None:
        """Have the actor that runs now told when `target` ends."""
        watcher = self._me()
        if self._watches.add(watcher, target):
            self._send(target, Watch(), Kind.SYSTEM, sender=watcher)

    def unwatch(self, target: str) -> None:
        """Take a watch back."""
        watcher = self._me()
        if self._watches.remove(watcher, target):
            self._send(target, Unwatch(), Kind.SYSTEM, sender=watcher)

    def stop_actor(self, target: str, reason: str) -> None:
        """Send a stop, ahead of what waits in the mailbox. From any thread."""
        self._on_loop(self._envelope(target, Stop(reason), Kind.SYSTEM))

    def answer(self, ask: Envelope, body: Message | Failure | None, *, sender: str) -> None:
        """Send the answer of an ask; of anything else, do nothing."""
        if ask.kind != Kind.ASK:
            return
        kind = Kind.FAILURE if isinstance(body, Failure) else Kind.REPLY
        self._route(Envelope(next(self._ids), ask.trace, ask.id, sender, ask.sender, kind, 0, body))

    # --- what comes from outside ---

    def handle_frame(self, frame: bytes) -> None:
        """Deliver what another worker sent. What cannot be read is counted and dropped."""
        try:
            for envelope in self._codec.decode(frame):
                self._deliver(envelope)
        except MalformedFrame as error:
            self.malformed_total += 1
            logger.warning("Dropped a malformed frame", extra={"event": "frame_malformed", "reason": str(error)})

    def worker_up(self, worker: str, endpoint: str) -> None:
        """Reach `worker` there from now on."""
        if self.transport is not None and worker != self.worker:
            self.transport.connect(worker, endpoint)

    def worker_down(self, worker: str) -> None:
        """`worker` is gone: fail the asks that wait for it and tell its actors' watchers, at once."""
        if self.transport is not None:
            self.transport.disconnect(worker)
        prefix = f"{self.name}/{worker}/"
        for ask_id, (_, to) in list(self._pending.items()):
            if to.startswith(prefix):
                self._resolve(ask_id, error=ActorDead(f"{to}: its worker died"))
        for watcher, target in self._watches.by_target_prefix(prefix):
            self._terminated(watcher, Terminated(target, "worker_died"), None)
        self._watches.forget_watchers_of(prefix)
        self.groups.worker_down(worker)

    def record(self, event: Event, envelope: Envelope) -> None:
        """Write to the flight recorder, if there is one."""
        if self.recorder is not None:
            self.recorder.record(event, envelope)

    # --- inside ---

    def _me(self) -> str:
        context = current()
        if context is None:
            raise RuntimeError("only an actor can watch: call this in a handler or a hook")
        return context.address

    def _envelope(self, to: str, message: Any, kind: Kind, *, deadline_ns: int = 0, sender: str = "") -> Envelope:
        id_ = next(self._ids)
        context = current()
        if context is None:
            return Envelope(id_, id_, 0, sender or self._outside, to, kind, deadline_ns, message)
        trace = context.trace or id_  # an actor that was started outside of any trace begins its own
        return Envelope(id_, trace, context.cause, sender or context.address, to, kind, deadline_ns, message)

    def _send(self, to: str, message: Message, kind: Kind, *, sender: str) -> None:
        self._route(self._envelope(to, message, kind, sender=sender))

    def _on_loop(self, envelope: Envelope) -> None:
        if threading.get_ident() == self._thread:
            self._route(envelope)
        elif not self._hop(lambda: self._route(envelope)):
            self.dead_letters_total += 1
            self.dead_letters.append(envelope)

    def _hop(self, action: Callable[[], None]) -> bool:
        """Have the loop's thread do it; False when the loop has been closed."""
        if self.loop.is_closed():
            return False
        self._hopping.append(action)
        if not self._hop_scheduled:
            self._hop_scheduled = True  # set and cleared without a lock: at worst one wake-up too many
            try:
                # A context of its own: what lands belongs to many threads, and carries its causality itself.
                self.loop.call_soon_threadsafe(self._land, context=contextvars.Context())
            except RuntimeError:
                return False  # closed since we looked
        return True

    def _land(self) -> None:
        self._hop_scheduled = False
        while self._hopping:
            self._hopping.popleft()()

    def _route(self, envelope: Envelope) -> None:
        self.record(Event.SENT, envelope)
        if envelope.to.startswith(self._prefix):
            self._deliver(envelope)
            return
        node, _, rest = envelope.to.partition("/")
        worker = rest.partition("/")[0] if node == self.name else ""
        try:
            encoded = self._codec.encode(envelope)
        except LocalError as error:
            self._unencodable(envelope, error)
            return
        if self.transport is None or not self.transport.send(worker, encoded):
            self._undeliverable(envelope, ActorDead(f"{envelope.to}: no such worker"))

    def _deliver(self, envelope: Envelope) -> None:
        kind = envelope.kind
        if kind in (Kind.REPLY, Kind.FAILURE):
            self._answered(envelope)
            return
        if isinstance(envelope.body, Malformed):
            self.malformed_total += 1
            self._undeliverable(envelope, UnknownMessage(envelope.body.reason))
            return
        if kind == Kind.SYSTEM:
            self._system(envelope)
            return
        actor = self._living(envelope.to)
        if actor is None:
            self._undeliverable(envelope, ActorDead(f"{envelope.to} does not live"))
        elif actor.mailbox.put(envelope):
            self.record(Event.RECEIVED, envelope)
        else:
            self._undeliverable(envelope, MailboxFull(f"{envelope.to} has {actor.mailbox.bound} messages waiting"))

    def _system(self, envelope: Envelope) -> None:
        body = envelope.body
        if isinstance(body, Terminated):
            self._taken_care_of(envelope)
            self._terminated(envelope.to, body, envelope)
            return
        actor = self._living(envelope.to)
        if isinstance(body, Watch):
            self._taken_care_of(envelope)
            if actor is not None:
                self._watches.add_remote(envelope.sender, envelope.to)
            else:
                self._no_such_actor(envelope)
        elif isinstance(body, Unwatch):
            self._taken_care_of(envelope)
            self._watches.remove_remote(envelope.sender, envelope.to)
        elif isinstance(body, Stop) and actor is not None:
            self.record(Event.RECEIVED, envelope)
            actor.mailbox.put_system(envelope)
        else:
            self.record(Event.DROPPED, envelope)

    def _living(self, to: str) -> Actor | None:
        actor = self.actors.get(to[len(self._prefix) :]) if to.startswith(self._prefix) else None
        return None if actor is None or actor.mailbox.closed else actor

    def _taken_care_of(self, envelope: Envelope) -> None:
        """Record a system message that the node itself handles, so that no trace waits for it."""
        self.record(Event.RECEIVED, envelope)
        self.record(Event.ENDED, envelope)

    def _no_such_actor(self, watch: Envelope) -> None:
        terminated = Terminated(watch.to, "no_such_actor")
        self._route(
            Envelope(next(self._ids), watch.trace, watch.id, watch.to, watch.sender, Kind.SYSTEM, 0, terminated)
        )

    def _terminated(self, watcher: str, message: Terminated, because: Envelope | None) -> None:
        """Give a `Terminated` to a local watcher, once; a second one, or one after `unwatch`, finds no entry."""
        if not self._watches.remove(watcher, message.address):
            return
        actor = self._living(watcher)
        if actor is not None:
            envelope = self._envelope(watcher, message, Kind.TELL, sender=message.address)
            if because is not None:
                envelope.trace, envelope.cause = because.trace, because.id
            self.record(Event.SENT, envelope)
            self.record(Event.RECEIVED, envelope)
            actor.mailbox.put(envelope, forced=True)

    def _answered(self, envelope: Envelope) -> None:
        if envelope.cause not in self._pending:
            self.record(Event.DROPPED, envelope)  # its asker gave up
            return
        self.record(Event.RECEIVED, envelope)
        if envelope.kind == Kind.REPLY and not isinstance(envelope.body, Malformed):
            self._resolve(envelope.cause, value=envelope.body)
        elif isinstance(envelope.body, Failure):
            self._resolve(envelope.cause, error=to_error(envelope.body))
        else:
            self._resolve(envelope.cause, error=UnknownMessage("the answer could not be read"))

    def _resolve(self, ask_id: int, *, value: Any = None, error: BaseException | None = None) -> None:
        reply, _ = self._pending.pop(ask_id)
        if reply.timer is not None:
            reply.timer.cancel()
        if error is not None:
            reply.fail(error)
        else:
            reply.set(value)

    def _ask_timed_out(self, ask_id: int, timeout_s: float) -> None:
        if ask_id in self._pending:
            to = self._pending[ask_id][1]
            self._resolve(ask_id, error=AskTimeout(f"{to} did not answer within {timeout_s:g} s"))

    def _unencodable(self, envelope: Envelope, error: LocalError) -> None:
        """Tell whoever waits. The asker of an answer that cannot be sent hears why, rather than nothing."""
        if envelope.kind != Kind.REPLY:
            self._undeliverable(envelope, error)
            return
        self.record(Event.DROPPED, envelope)
        failed = Envelope(
            next(self._ids), envelope.trace, envelope.cause, envelope.sender, envelope.to, Kind.FAILURE, 0, None
        )
        failed.body = to_failure(error)
        self._route(failed)

    def _undeliverable(self, envelope: Envelope, error: ExeuntError) -> None:
        self.record(Event.DROPPED, envelope)
        if envelope.kind == Kind.ASK:
            if envelope.id in self._pending:
                self._resolve(envelope.id, error=error)
            else:
                self.answer(envelope, to_failure(error), sender=envelope.to)
        elif envelope.kind == Kind.TELL:
            self.dead_letters_total += 1
            self.dead_letters.append(envelope)
        elif isinstance(envelope.body, Watch):
            self._terminated(envelope.sender, Terminated(envelope.to, "no_such_actor"), envelope)
