"""Sessions at rest: nothing is due but to miss the peer some day, and its checks are answered where they are read.

`batch.answers` does the answering, and each session's owner looks at its books before it asks or tells the machine
anything. All sessions of a worker share one timer: it looks which peers will be missed before the next point of the
grid. These wake up, and are what they would be if each check had come by them.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from typing import Protocol

from ..batch.answers import Answerer, Answers
from ..grid import COARSE_S, Wake, meet
from .agent import Address
from .burst import give_all
from .messages import Rest
from .reading import source_of

LONGEST_KEY_BYTES, LONGEST_ASKED_BYTES = 64, 128
"""What an answerer takes. Passwords may be longer (RFC 8839 section 5.4), and names; ours are not."""


class Resting(Protocol):
    """A session."""

    def end_rest(self) -> None:
        """Rest no more: the peer will be missed soon."""


class Rests:
    """A worker's. All calls come from its loop."""

    def __init__(self, answers: Answers, now: Callable[[], float]) -> None:
        self._answers = answers
        self._now = now
        self._timer: Wake | None = None
        self._look_at = math.inf

    def begin(self, session: Resting, rest: Rest, descriptor: int) -> Answerer | None:
        """Have a session's checks be answered, which the descriptor brings; None: that cannot be done."""
        remote = packed_remote(rest.remote)
        if remote is None or len(rest.key) > LONGEST_KEY_BYTES or len(rest.asked) > LONGEST_ASKED_BYTES:
            return None
        answerer = self._answers.answer(
            owner=session,
            key=rest.key,
            asked=rest.asked,
            nominates=rest.nominates,
            nominations=rest.nominations,
            descriptor=descriptor,
            remote=remote,
            local=_packed(rest.local),
            heard_at=rest.heard_at,
            quiet_s=rest.quiet_s,
        )
        if answerer is not None:
            self._look_by(rest.heard_at + rest.quiet_s)
        return answerer

    def end(self, answerer: Answerer) -> None:
        """Answer no more. Idempotent."""
        self._answers.answer_no_more(answerer)

    def close(self) -> None:
        """Look after nobody: all have ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._look_at = None, math.inf

    def _look_by(self, due: float) -> None:
        if due >= self._look_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._look_at, delay_s = due, max(due - self._now(), COARSE_S)
        self._timer, _ = meet(asyncio.get_running_loop(), delay_s, "consent check", self._look)

    def _look(self) -> None:
        self._timer, self._look_at = None, math.inf
        silent, due = self._answers.silent_by(self._now() + COARSE_S)
        try:
            give_all(list(silent), lambda session: session.end_rest())
        finally:
            self._look_by(due)


def packed_remote(address: Address) -> bytes | None:
    """Return an address as a reading tells it; None: it would be told otherwise, as one with a scope is."""
    host, port = address
    if "%" in host:
        return None
    packed = port.to_bytes(2, "big") + bytes(4) + _packed(host)
    return packed if source_of(packed) == address else None


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
