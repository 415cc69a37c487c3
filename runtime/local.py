"""What a node is before any mail: a loop and its turns, ids, envelopes, evidence.

The lowest of four layers: `LocalNode` gives actors their turns and makes envelopes, `Routing` sends those on their way,
`Delivery` takes what arrives where it belongs, `Node` is what actors and supervisors use. On the loop's thread only,
but for `hop`.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import secrets
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .codec import Run
from .context import CURRENT, stand_in
from .dead_letters import DeadLetters
from .envelope import ASK, FAILURE, LIFE_SHIFT, LIVES, REPLY, SYSTEM, Envelope, Message
from .errors import Failure
from .events import Event as Happening
from .events import Events
from .recorder import Event, Recorder

if TYPE_CHECKING:
    from .actor import Actor
    from .handling import Handling


class LocalNode:
    """The loop's turns, and what is sent and recorded in them."""

    def __init__(
        self, name: str, worker: str, loop: asyncio.AbstractEventLoop | None, recorder: Recorder | None
    ) -> None:
        self.name = name
        self.worker = worker
        self.loop = loop or asyncio.get_running_loop()
        self.recorder = recorder
        """The flight recorder, if there is one."""
        self.prefix = f"{name}/{worker}/"
        """How the addresses of this worker's actors begin."""
        self.outside = f"{name}/{worker}/$outside"
        """The sender of what no actor sends."""
        self.actors: dict[str, Actor] = {}
        """The living, by name, in order of start."""
        self.by_address: dict[str, Actor] = {}
        """The same by address."""
        self.events = Events()
        """What happens here."""
        self.dead_letters = DeadLetters(self.events, self.loop)
        """What could not be delivered."""
        self.life = 1 + secrets.randbelow(LIVES - 1)
        """Tells this life of the worker from others: the ids of its envelopes begin so."""
        self.ids = itertools.count((self.life << LIFE_SHIFT) | 1)
        self.thread = threading.get_ident()
        """The loop's."""
        self._hopping: deque[Callable[[], None]] = deque()
        self._hop_scheduled = False
        self._ready: deque[Handling] = deque()
        self._pumping = False
        self._context = contextvars.Context()
        """The actors' turns', in which nothing but what is handled is ever set."""
        self.turning = False
        """Whether `turn` will be called, by the transport that delivers."""

    # --- turns ---

    def schedule(self, actor: Handling) -> None:
        """Have an actor go on in the loop's next turn."""
        if not actor.scheduled:
            actor.scheduled = True
            self._ready.append(actor)
            if not self._pumping and not self.turning:
                self._pumping = True
                self.loop.call_soon(self._pump, context=self._context)

    def begin_turn(self) -> None:
        """Whoever is scheduled until `turn` need not be otherwise."""
        self.turning = True

    def turn(self) -> None:
        """Have those who can go on do so now, if nobody else will. Not on an actor's behalf."""
        self.turning = False
        self._run_ready()

    def _pump(self) -> None:
        self._pumping = False
        self._run_ready()

    def _run_ready(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):
            actor = ready.popleft()
            actor.scheduled = False
            CURRENT.set(None)
            try:
                actor.pump()
            except Exception as error:  # noqa: BLE001 - a fault in here must not keep the others from their turns
                self.loop.call_exception_handler({"message": f"the machinery of {actor.ref}", "exception": error})
        CURRENT.set(None)
        if ready and not self._pumping:
            self._pumping = True
            self.loop.call_soon(self._pump, context=self._context)

    def hop(self, action: Callable[[], None]) -> bool:
        """Have the loop's thread do it; False when the loop has been closed. From any thread."""
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
            try:
                self._hopping.popleft()()
            except Exception as error:  # noqa: BLE001 - what other threads wanted is done all the same
                self.loop.call_exception_handler({"message": "what another thread wanted", "exception": error})

    # --- envelopes ---

    def envelope(self, to: str, message: Any, kind: int, *, deadline_ns: int = 0, sender: str = "") -> Envelope:
        """Return an envelope that what is handled now has caused. From any thread."""
        id_ = next(self.ids)
        context = CURRENT.get()
        if context is None:
            return Envelope(id_, id_, 0, sender or self.outside, to, kind, deadline_ns, message)
        # An actor that was started outside of any trace begins its own.
        return Envelope(id_, context.trace or id_, context.id, sender or context.to, to, kind, deadline_ns, message)

    def system(self, to: str, message: Message, *, sender: str) -> None:
        """Send one of the runtime's own messages."""
        self.route(self.envelope(to, message, SYSTEM, sender=sender))

    def system_because(self, because: Envelope | None, to: str, message: Message, *, sender: str) -> None:
        """The same, caused by another envelope."""
        token = CURRENT.set(stand_in(because.trace, because.id, sender) if because is not None else None)
        try:
            self.system(to, message, sender=sender)
        finally:
            CURRENT.reset(token)

    def answer(self, ask: Envelope, body: Message | Failure | None, *, sender: str, late: bool = False) -> None:
        """Send the answer of an ask; of anything else, do nothing. `late`: its handler has ended some time ago."""
        if ask.kind == ASK:
            kind = FAILURE if type(body) is Failure else REPLY
            answer = Envelope(next(self.ids), ask.trace, ask.id, sender, ask.sender, kind, 0, body)
            if late:
                self.record(Event.SENT, answer)
            if ask.sender.startswith(self.prefix):
                self.answered(answer)
            else:
                self.route(answer)

    def answered(self, envelope: Envelope) -> None:
        """Give an answer to who asked, here."""
        raise NotImplementedError

    def route(self, envelope: Envelope) -> None:
        """Send an envelope on its way."""
        raise NotImplementedError

    # --- evidence ---

    def record(self, event: Event, envelope: Envelope) -> None:
        """Write to the flight recorder, if there is one."""
        if self.recorder is not None:
            self.recorder.record(event, envelope)

    def record_run(self, run: Run) -> None:
        """Write that a run leaves for another worker. Answers are recorded where they arrive."""
        told = isinstance(run.bodies[0], Happening)  # what happens is no message that anybody traces
        if self.recorder is not None and run.kind not in (REPLY, FAILURE) and not told:
            self.recorder.sent(run)

    def happened(self, event: Happening) -> None:
        """Publish an event."""
        self.events.publish(event)

    def living(self, address: str) -> Actor | None:
        """Return a local actor that takes messages."""
        return self.by_address.get(address)
