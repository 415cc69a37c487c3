"""The half of a session that time meets: one timer for the next moment that its machines name, or none while it rests.

A gateway's session whose peer is idle rests (`rest`): its checks are answered where they are read, and noted. Whoever
tells the machine anything ends that, and is told what was noted first; whoever only looks is told, too.
"""

import asyncio
from collections.abc import Callable

from exeunt.runtime.wakeups import call_later

from ..batch.answers import Answerer
from ..grid import COARSE_S, Wake, meet
from .consent import PASSIVE_S
from .machine import IceMachine
from .reflexive import ReflexiveQueries
from .sockets import HostBase, Sockets
from .transactions import FORGETTING

MIN_TIMER_S = 0.001
PUT_OFF_S = PASSIVE_S / 2
"""A gateway's timer that is so near is put off when its peer is heard: every other time then, while the session is at
hand anyway. To wake up and look takes longer."""


class SessionClock:
    """A session's time, and rest."""

    def __init__(
        self,
        machine: IceMachine,
        queries: ReflexiveQueries,
        sockets: Sockets,
        now: Callable[[], float],
    ) -> None:
        self._asleep = machine
        """The machine, for what is the same whether it rests or not: who decides, and the pair in use."""
        self._queries = queries
        self._sockets = sockets
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._timer: Wake | None = None
        self._timer_at = 0.0
        self._answerer: Answerer | None = None
        """While it rests."""
        self._is_closed = False

    def pump(self) -> None:
        """Do everything that the machines have to say, and set the timer."""
        raise NotImplementedError

    def tell_quiet(self) -> None:
        """The peer has not been heard for a while."""
        raise NotImplementedError

    # At rest

    @property
    def _machine(self) -> IceMachine:
        """The machine, awake: it knows all that has happened, and may be told more."""
        if self._answerer is not None:
            self.end_rest()
        return self._asleep

    @property
    def _informed(self) -> IceMachine:
        """The machine, which knows all that has happened, and is told nothing."""
        if self._answerer is not None:
            _, before_at, heard_at = self._answerer.books()
            self._asleep.handle_heard(before_at, heard_at)
        return self._asleep

    def _rest(self, channel: HostBase) -> None:
        """A check was answered. Rest if nothing else is due, where others answer the next."""
        rests, descriptor = self._sockets.rests, channel.descriptor()
        if rests is None or descriptor is None or self._queries.poll_timeout() is not None:
            return
        rest = self._asleep.poll_rest()
        self._answerer = None if rest is None else rests.begin(self, rest, descriptor)
        if self._answerer is None:
            if rest is not None:
                self._asleep.handle_woken(rest.nominations)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end_rest(self) -> None:
        """Rest no more: the peer will be missed soon, or something else happens. Idempotent."""
        answerer = self._answerer
        if answerer is None:
            return
        machine, rests = self._informed, self._sockets.rests
        self._answerer = None
        if rests is not None:
            rests.end(answerer)
        machine.handle_woken(answerer.nominations())
        self._set_timer()

    # The timer

    def _set_timer(self) -> None:
        """Wake up in time. A timer that comes too early is left: it costs one look, and not two calls a datagram."""
        if not self._is_closed:
            self._set_timer_to(self._due(), self._now())

    def _due(self) -> tuple[float, str] | None:
        return min((t for t in (self._machine.poll_timeout(), self._queries.poll_timeout()) if t), default=None)

    def _set_timer_to(self, timeout: tuple[float, str] | None, now: float) -> None:
        if timeout is None or (self._timer is not None and self._timer_at <= timeout[0]):
            return
        due, reason = timeout
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(MIN_TIMER_S, due - now)
        if self._machine.is_controlling:
            self._timer, self._timer_at = call_later(self._loop, delay_s, reason, self._wake), due
        else:  # a gateway, which has thousands of sessions
            self._timer, delay_s = meet(self._loop, delay_s, reason, self._wake)
            self._timer_at = min(due, now + delay_s)

    def _put_off(self, now: float) -> None:
        """The peer has been heard: a client then sleeps on, as a telephone should; and so does a gateway, if it would
        wake up soon to find that out.
        """
        timeout = self._due() if self._timer is not None else None
        if self._timer is not None and timeout is not None and timeout[0] > self._timer_at:
            self._timer.cancel()
            self._timer = None
            self._set_timer_to(timeout, now)

    def _wake(self) -> None:
        """Do what is due. In an idle session mostly nothing is: the peer has shown that it lives, so sleep on."""
        self._timer = None
        now, timeout = self._now(), self._due()
        if timeout is not None and timeout[0] > now and not (timeout[1] is FORGETTING and timeout[0] - now < COARSE_S):
            self._set_timer_to(timeout, now)
            return
        self._queries.handle_timeout(now)
        self._machine.handle_timeout(now)
        self.pump()
        if not self._machine.is_controlling and not self._machine.watches(now):
            self.tell_quiet()
