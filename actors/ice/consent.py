"""Whether the peer still wants to hear from us (RFC 7675), by time since the last sign of life.

Counting unanswered checks is wrong twice: a check whose answer takes longer than its timer counts as lost although
the path is fine, and the time to expiry depends on how the checks happened to fall. So here each check is one
datagram, its answer counts whenever it comes, and only the age of the last sign of life decides. Signs of life are
answers to our checks and packets that the layer above authenticated.

Three phases: fresh (a check every 2 s or so); suspect, after a third of the time to expiry (a check every 0.5 s, so
that even a path that loses half of the datagrams is not given up); lost, at the end of it.

If our own process was stopped or starved, silence proves nothing: the answers may wait in the socket. A timer that
fires more than a second late therefore grants one more round.
"""

import random

SUSPECT_FRACTION = 1 / 3
SUSPECT_INTERVAL_S = 0.5
JITTER = 0.25
"""RFC 7675 section 5.1: randomise, so that many sessions do not check in step."""
STALL_S = 1.0
STALL_GRACE_S = 1.5


class Consent:
    """The clock of one selected pair. All times are seconds of one monotonic clock."""

    def __init__(self, *, interval_s: float, lost_after_s: float, rng: random.Random, now: float) -> None:
        self._interval_s = interval_s
        self._lost_after_s = lost_after_s
        self._suspect_after_s = max(lost_after_s * SUSPECT_FRACTION, interval_s * (1 + JITTER))
        self._rng = rng
        self._grace_until = now
        self._check_due = False
        self.last_alive = now
        """When the last sign of life arrived."""
        self._next_check_at = now + self._draw_interval(now)

    def handle_alive(self, now: float) -> None:
        """Take note of a sign of life."""
        self.last_alive = max(self.last_alive, now)

    def handle_hint(self, now: float) -> None:
        """Something says that the path may have changed: check at once. A hint never ends anything by itself."""
        self._next_check_at = min(self._next_check_at, now)

    def handle_timeout(self, now: float) -> None:
        """Let the clock advance; `poll_check` says afterwards whether a check is to be sent."""
        due, _ = self.poll_timeout()
        if now - due > STALL_S:
            self._grace_until = now + STALL_GRACE_S
            self._next_check_at = now
        if now >= self._next_check_at and not self.is_lost(now):
            self._check_due = True
            self._next_check_at = now + self._draw_interval(now)

    def poll_check(self) -> bool:
        """Whether a check is due; asking clears it."""
        due, self._check_due = self._check_due, False
        return due

    def poll_timeout(self) -> tuple[float, str]:
        """When `handle_timeout` wants to be called next, and why."""
        return min((self._next_check_at, "consent check"), (self._lost_at(), "consent expiry"))

    def is_suspect(self, now: float) -> bool:
        """Whether the silence is long enough to look for another path."""
        return now - self.last_alive >= self._suspect_after_s

    def is_lost(self, now: float) -> bool:
        """Whether consent has expired: nothing but further checks may be sent on this pair."""
        return now >= self._lost_at()

    def _lost_at(self) -> float:
        return max(self.last_alive + self._lost_after_s, self._grace_until)

    def _draw_interval(self, now: float) -> float:
        interval_s = self._interval_s
        if self.is_suspect(now):
            interval_s = min(interval_s, SUSPECT_INTERVAL_S)
        return interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
