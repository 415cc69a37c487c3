"""Flow control between workers: a slow actor slows its senders instead of filling memory.

For each actor of another worker a node has a *window*: so many tells may be under way to it, or wait in its mailbox,
at once. Its worker says when they have been dealt with (handled, or a dead letter there), in the order in which they
were sent. What exceeds the window waits here, in order, and the actor that sent it handles nothing more meanwhile; who
is not an actor awaits `Ref.offer`, or meets `MailboxFull` at a bound. Asks take up no window, since each is answered,
but wait behind the tells that wait.

Because it is known what has not been dealt with, a worker that is killed loses no tell in silence: its flight
recorder says what it had begun to handle, and the rest are dead letters here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from .envelope import LIFE_SHIFT, TELL, Envelope
from .wakeups import call_later

if TYPE_CHECKING:
    from .life import Life

FIRST_WINDOW = 1_024  # messages, before the recipient's worker has named its own
WINDOWS = (16, 8_192)  # the smallest and the largest that it names: half of the mailbox's bound, if that is between
NARROW_KEPT = 1_000  # outboxes that are idle, and remember a window narrower than the first
WAITING_BOUND = 100_000  # messages for one actor that wait here; only who ignores the flow gets so far
HELD_AT_MOST_S = 1.0  # two actors that hold each other up go on after this: slowed, never stopped
REPORT_AFTER_S = 0.05  # what has been dealt with is reported by then, however little it is


class Outbox:
    """What this node has sent to one actor of another worker, and has still to send."""

    __slots__ = ("held", "next_id", "outstanding", "unsettled", "waiters", "waiting", "window")

    def __init__(self) -> None:
        self.window = FIRST_WINDOW
        self.next_id = -1
        """That would lengthen the last of the unsettled runs."""
        self.outstanding = 0
        """Tells that were sent, and not dealt with as far as we know."""
        self.unsettled: deque[_Sent] = deque()
        """The same, as runs in order of sending: the first envelope, and how many follow from its id on."""
        self.waiting: deque[Envelope] = deque()
        self.held: list[Life] = []
        """Senders that handle nothing until `waiting` is empty."""
        self.waiters: list[asyncio.Future[None]] = []
        """Who awaits room."""

    @property
    def has_room(self) -> bool:
        """Whether a tell may leave at once."""
        return not self.waiting and self.outstanding < self.window

    def sent(self, envelope: Envelope) -> None:
        """Note a tell that leaves."""
        self.outstanding += 1
        unsettled = self.unsettled
        id_ = envelope.id
        if id_ == self.next_id and unsettled:
            last = unsettled[-1]
            first = last.first  # from which this one is to differ in its id and its body only
            if (
                envelope.sender == first.sender
                and envelope.cause == first.cause
                and type(envelope.body) is type(first.body)
            ):
                last.count += 1
                self.next_id = id_ + 1
                return
        unsettled.append(_Sent(envelope, 1))
        self.next_id = id_ + 1

    def settle(self, last: int) -> None:
        """The tell with that id has been dealt with, and so have all that were sent before it.

        Ids, not numbers: what was our predecessor's, of the same name, is none of ours; and if a network loses one
        after all, or brings it twice, the account is right again with the next.
        """
        unsettled = self.unsettled
        if not unsettled or (last ^ unsettled[0].first.id) >> LIFE_SHIFT:
            return
        while unsettled and (count := last - unsettled[0].first.id + 1) > 0:
            run = unsettled[0]
            if count < run.count:
                run.first, run.count = run.nth(count), run.count - count
                self.outstanding -= count
                return
            unsettled.popleft()
            self.outstanding -= run.count

    def withdraw(self, tell_id: int) -> None:
        """This one did not leave after all."""
        self.next_id = -1
        for index in range(len(self.unsettled) - 1, -1, -1):  # it was among the last
            run = self.unsettled[index]
            number = tell_id - run.first.id
            if 0 <= number < run.count:
                parts = [_Sent(run.first, number), _Sent(run.nth(number + 1), run.count - number - 1)]
                del self.unsettled[index]
                for part in reversed(parts):
                    if part.count:
                        self.unsettled.insert(index, part)
                self.outstanding -= 1
                return

    def take_back(self, ask_id: int) -> Envelope | None:
        """Take out an ask that waits and whose asker has given up; None when it does not wait here."""
        for index, envelope in enumerate(self.waiting):
            if envelope.id == ask_id:
                del self.waiting[index]
                return envelope
        return None

    def in_doubt(self) -> list[Envelope]:
        """Return the tells of which we do not know that they were dealt with. Of a run, all but the first have lost
        their bodies: the first one's stands for them.
        """
        return [run.nth(number) for run in self.unsettled for number in range(run.count)]


class _Sent:
    """Tells with ids that count up from the first one's."""

    __slots__ = ("count", "first")

    def __init__(self, first: Envelope, count: int) -> None:
        self.first = first
        self.count = count

    def nth(self, number: int) -> Envelope:
        """Return one of them, from 0; all but the first with the first one's body."""
        first = self.first
        id_ = first.id + number
        trace = id_ if first.trace == first.id else first.trace
        return Envelope(id_, trace, first.cause, first.sender, first.to, first.kind, first.deadline_ns, first.body)


class Outboxes:
    """The outboxes of one node, by recipient."""

    def __init__(self, send: Callable[[Envelope], bool]) -> None:
        self._send = send
        self.by_address: dict[str, Outbox] = {}
        """Those that hold anything, or know of a window."""
        self.closed: set[str] = set()
        """How the addresses of workers begin that are being succeeded: what is for their actors waits."""
        self._news: asyncio.Future[None] | None = None

    def of(self, address: str) -> Outbox:
        """Return the outbox for an actor."""
        box = self.by_address.get(address)
        if box is None:
            box = self.by_address[address] = Outbox()
        return box

    def unsettled(self, *, but: str) -> list[str]:
        """Name the actors of whose tells something is not known, except those whose address begins so."""
        return [
            address
            for address, box in self.by_address.items()
            if (box.outstanding or box.waiting) and not address.startswith(but)
        ]

    async def until_settled(self, within_s: float, *, but: str) -> None:
        """Wait until there are none, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.unsettled(but=but):
                    self._news = asyncio.get_running_loop().create_future()
                    await self._news

    def known(self, address: str) -> Outbox | None:
        """Return it if there is one."""
        return self.by_address.get(address)

    def is_closed(self, address: str) -> bool:
        """Say whether what is for an actor waits, because its worker is being succeeded. A host is no actor of a
        program: it does not move.
        """
        return any(address.startswith(prefix) for prefix in self.closed) and not address.endswith("/host")

    def waiting(self, prefix: str) -> list[Envelope]:
        """Return what waits for the actors whose address begins so."""
        boxes = [box for address, box in self.by_address.items() if address.startswith(prefix)]
        return [envelope for box in boxes for envelope in box.waiting]

    def open(self, prefix: str) -> None:
        """Send what waits for the actors of a worker that has been succeeded."""
        self.closed.discard(prefix)
        for address in [one for one in self.by_address if one.startswith(prefix)]:
            self.send_on(address)

    def hold(self, box: Outbox, sender: Life) -> None:
        """Have an actor handle nothing more until what waits has left, or for a second."""
        if sender.hold(HELD_AT_MOST_S) and sender not in box.held:
            box.held.append(sender)

    def settled(self, address: str, last: int, window: int) -> None:
        """The recipient's worker has dealt with the tells up to this one; send what waited for that."""
        box = self.by_address.get(address)
        if box is None:
            return
        box.settle(last)
        box.window = max(WINDOWS[0], min(WINDOWS[1], window))
        self.send_on(address)

    def send(self, box: Outbox, envelope: Envelope) -> bool:
        """Send a tell, for which there is room; False when it did not leave."""
        box.sent(envelope)  # before it leaves: on the way out it may turn out not to be encodable, see `withdraw`
        if self._send(envelope):
            return True
        box.withdraw(envelope.id)
        return False

    def send_on(self, address: str) -> None:
        """Send what waits, as far as there is room."""
        box = self.by_address.get(address)
        if box is None or (self.closed and self.is_closed(address)):
            return
        waiting = box.waiting
        while waiting and (box.outstanding < box.window or waiting[0].kind != TELL):
            envelope = waiting.popleft()
            if envelope.kind == TELL:
                self.send(box, envelope)
            else:
                self._send(envelope)
        if waiting:
            return
        _release(box)
        self.forget_idle(address)

    def forget_idle(self, address: str) -> None:
        """Drop an outbox that says nothing: all is settled, and the window is no narrower than a new one's. Where there
        are many, names come and go, and narrow windows are forgotten, too.
        """
        box = self.by_address.get(address)
        if box is None or box.outstanding or box.waiting:
            return
        if box.window >= FIRST_WINDOW or len(self.by_address) > NARROW_KEPT:
            del self.by_address[address]
        self._tell_news()

    def lost(self, prefix: str) -> list[tuple[list[Envelope], list[Envelope]]]:
        """A worker is gone: for each of its actors, return what is in doubt and what never left. What never left for
        one that is being succeeded stays.
        """
        found: list[tuple[list[Envelope], list[Envelope]]] = []
        for address in [one for one in self.by_address if one.startswith(prefix)]:
            box = self.by_address.pop(address)
            waiting, box.waiting = box.waiting, deque[Envelope]()
            if waiting and self.closed and self.is_closed(address):
                self.of(address).waiting, waiting = waiting, deque[Envelope]()
            found.append((box.in_doubt(), list(waiting)))
            _release(box)
        self._tell_news()
        return found

    def _tell_news(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def _release(box: Outbox) -> None:
    held, box.held = box.held, []
    for sender in held:
        sender.release()
    waiters, box.waiters = box.waiters, []
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


class Accounts:
    """What this node has dealt with for others: tells from one worker to one actor here. Reported in batches."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        report: Callable[[str, list[tuple[str, int, int]]], None],
        window_of: Callable[[str], int],
    ) -> None:
        """`report` is given an origin (`WORKER/LIFE`), and rows of: actor, id of its last tell, its window."""
        self._loop = loop
        self._report = report
        self._window_of = window_of
        self._unreported: dict[str, dict[str, tuple[int, int]]] = {}
        self._scheduled = False

    def settle(self, origin: str, address: str, count: int, last: int) -> None:
        """So many tells of a worker to an actor have been dealt with, up to that with the id `last`."""
        rows = self._unreported.get(origin)
        if rows is None:
            rows = self._unreported[origin] = {}
        total, latest = rows.get(address, (0, 0))
        total, latest = total + count, max(latest, last)  # an older one may still be handled when the next is dropped
        rows[address] = (total, latest)
        if total * 2 >= (window := self._window_of(address)) or total * 2 >= FIRST_WINDOW:
            del rows[address]
            self._report(origin, [(address, latest, window)])
        elif not self._scheduled:
            self._scheduled = True
            call_later(self._loop, REPORT_AFTER_S, "flow control", self.flush)

    def flush(self) -> None:
        """Report all that has not been."""
        self._scheduled = False
        unreported, self._unreported = self._unreported, {}
        for origin, rows in unreported.items():
            if rows:
                self._report(origin, [(address, last, self._window_of(address)) for address, (_, last) in rows.items()])

    def forget(self, worker: str) -> None:
        """A worker is gone: it need not be told."""
        for origin in [one for one in self._unreported if one.startswith(f"{worker}/")]:
            del self._unreported[origin]
