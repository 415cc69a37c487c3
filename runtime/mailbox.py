"""The mailbox of one actor: bounded, two lanes, closed exactly once.

It lives on its worker's loop and is touched from that thread only; this is what closes pykka's race between `put` and
`stop`: after `close` nothing can slip in, and what was inside is handed back to be answered or counted as dead letters.
System messages (stop) do not wait behind ordinary ones and are not bounded: only the runtime sends them.

What happens when the bound is reached is the actor's policy:

    reject        the new message is not taken: an ask fails with `MailboxFull`, a tell is a dead letter (the default)
    drop_oldest   the oldest message gives way, in the same manner: for readings of which only the last ones count
    block         it is taken, and the actor of this worker that sent it handles nothing more before half of the
                  mailbox is empty; who cannot be held up so (no actor, or the actor itself) is rejected. What comes
                  from other workers is taken, too: flow control bounds it (`flow`)

A queue costs 600 bytes even when empty, so there is none before the first message: most of 100,000 actors are idle.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Literal

import msgspec

from .envelope import Envelope, Kind
from .messages import Terminated

if TYPE_CHECKING:
    from .life import Life

DEFAULT_BOUND = 10_000  # messages; a few MB of typical ones

Policy = Literal["reject", "drop_oldest", "block"]


class Rejected(msgspec.Struct):
    """Stands where messages of one worker were rejected, so that flow control settles all in their order. Its envelope
    has the id of the last one.
    """

    count: int = 1


class Mailbox:
    """Envelopes waiting for one actor. Implements pykka's `ActorInbox` (`put`, `get`, `empty`)."""

    __slots__ = (
        "_rejected",
        "bound",
        "closed",
        "draining",
        "dropped_total",
        "full",
        "held",
        "ordinary",
        "policy",
        "rejected_total",
        "system",
        "waiters",
    )

    def __init__(self, bound: int = DEFAULT_BOUND, policy: Policy = "reject") -> None:
        self.bound = bound
        """How many ordinary messages may wait."""
        self.policy: Policy = policy
        self.closed = False
        self.draining = False
        """Nothing new is taken any more; what waits is handled."""
        self.full = False
        """It has been full, and not half empty since."""
        self.rejected_total = 0
        self.dropped_total = 0
        self.system: deque[Envelope] | None = None
        self.ordinary: deque[Envelope] | None = None
        self.held: list[Life] | None = None
        """Senders that handle nothing before there is room."""
        self.waiters: list[asyncio.Future[None]] | None = None
        """Who awaits room."""
        self._rejected = 0

    def __len__(self) -> int:
        ordinary = len(self.ordinary) - self._rejected if self.ordinary else 0
        return ordinary + (len(self.system) if self.system else 0)

    def empty(self) -> bool:
        """Say whether nothing waits."""
        return not self.system and not self.ordinary

    def put(self, envelope: Envelope, /, *, forced: bool = False) -> Envelope | None:
        """Take an ordinary message; return the one that had to go, if any: this one, or the oldest.

        `forced` ignores the bound (a `Terminated`; a message whose sender is slowed instead).
        """
        assert not self.closed, "the node looks before it puts"
        ordinary = self.ordinary
        if ordinary is None:
            ordinary = self.ordinary = deque()
        if forced or len(ordinary) - self._rejected < self.bound:
            ordinary.append(envelope)
            return None
        if self.policy == "drop_oldest":
            oldest = self._take_oldest(ordinary)
            if oldest is not None:
                self.dropped_total += 1
                ordinary.append(envelope)
                return oldest
        self.reject(envelope)
        return envelope

    def put_all(self, envelopes: list[Envelope]) -> bool:
        """Take all of them, if there is room; else none, and return False."""
        ordinary = self.ordinary
        if ordinary is None:
            ordinary = self.ordinary = deque()
        if self.draining or len(ordinary) - self._rejected + len(envelopes) >= self.bound:
            return False
        ordinary.extend(envelopes)
        return True

    def reject(self, envelope: Envelope) -> None:
        """Count a message that is not taken. Where it came from, it takes up room until all before it are done with."""
        self.rejected_total += 1
        if not envelope.origin:
            return
        if self.ordinary is None:
            self.ordinary = deque()
        last = self.ordinary[-1] if self.ordinary else None
        if last is not None and type(last.body) is Rejected and last.origin == envelope.origin:
            last.body.count += 1
            last.id = envelope.id
            return
        stand_in = Envelope(envelope.id, 0, 0, "", envelope.to, Kind.SYSTEM, 0, Rejected(), origin=envelope.origin)
        self.ordinary.append(stand_in)
        self._rejected += 1

    def put_system(self, envelope: Envelope) -> None:
        """Take a system message: never refused, handled before any ordinary one."""
        if self.system is None:
            self.system = deque()
        self.system.append(envelope)

    def drain(self, stop: Envelope) -> None:
        """Take no more; the stop is for after all that waits."""
        self.draining = True
        if self.ordinary is None:
            self.ordinary = deque()
        self.ordinary.append(stop)

    def get(self) -> Envelope:
        """Return the next envelope. Raises IndexError when nothing waits."""
        if self.system:
            return self.system.popleft()
        if not self.ordinary:
            raise IndexError("nothing waits")
        return self.ordinary.popleft()

    def passed(self, rejected: Envelope) -> int:
        """Return for how many rejected messages this stands, now that it is their turn."""
        self._rejected -= 1
        body: Rejected = rejected.body
        return body.count

    def put_back(self, envelopes: list[Envelope]) -> None:
        """Put envelopes before all that waits, in this order; the bound does not count them out."""
        if self.ordinary is None:
            self.ordinary = deque()
        self.ordinary.extendleft(reversed(envelopes))

    def withdraw(self, ask_id: int) -> Envelope | None:
        """Take out an ask whose asker has given up; None when it does not wait here."""
        for index, envelope in enumerate(self.ordinary or ()):
            if envelope.id == ask_id and envelope.kind == Kind.ASK:
                assert self.ordinary is not None
                del self.ordinary[index]
                return envelope
        return None

    def has_room_again(self) -> None:
        """Let those go on who were held, or wait, since it was full."""
        self.full = False
        held, self.held = self.held, None
        for sender in held or ():
            sender.release()
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> list[Envelope]:
        """Close for good; return what was not handled."""
        self.closed = True
        left = [*(self.system or ()), *(self.ordinary or ())]
        self.system = self.ordinary = None
        self._rejected = 0
        self.has_room_again()  # whoever waits for a dead actor's room hears that it is dead
        return left

    def _take_oldest(self, ordinary: deque[Envelope]) -> Envelope | None:
        """Remove and return the oldest message that may go: a `Terminated` comes once, and must come."""
        for index, envelope in enumerate(ordinary):
            if type(envelope.body) not in (Rejected, Terminated) and envelope.kind != Kind.SYSTEM:
                del ordinary[index]
                return envelope
        return None
