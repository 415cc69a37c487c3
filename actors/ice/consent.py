"""Whether the peer still wants to hear from us (RFC 7675), by time since the last sign of life.

Counting unanswered checks is wrong twice: a check whose answer takes longer than its timer counts as lost although
the path is fine, and the time to expiry depends on how the checks happened to fall. So here each check is one
datagram, its answer counts whenever it comes, and only the age of the last sign of life decides. Signs of life are
answers to our checks, authenticated requests of the peer, and packets that the layer above authenticated.

The two sides share the work. The controlling side asks; the controlled side, a gateway with thousands of peers,
answers, and asks only when it has heard nothing for 6 s. When the controlling side asks:

    fresh     1 s after traffic ended, then 2 s, then 2.8 s after the last answer: a NAT that moved while a download
              ran is found out in a second, and an idle peer costs little
    waiting   1 s after the first datagram that we sent into a silence, and 1 s after a check without answer
    suspect   after 5 s of silence (longer by two round trips): every 0.5 s, so that even a path that loses half of
              the datagrams is not given up
    lost      15 s after the path was cut, as far as one can tell: that was between the last sign of life and the
              first check without answer, and so the middle is taken. Who only answers expects that check after a
              rest that follows from the one before (`rest_after`). Both sides are wrong by half a rest, 1.4 s

If our own process was stopped or starved, silence proves nothing: the answers may wait in the socket. A timer that
fires more than a second late therefore grants one more round.
"""

import random

RESTS_S = (1.0, 2.0)
"""From the last sign of life to the next check: after traffic, after one answered check; then the interval."""
PASSIVE_S = 6.0
"""Silence after which the controlled side asks: longer than a controlling side ever leaves an answered path alone."""
RETRY_S = 1.0
SUSPECT_S = 5.0
SUSPECT_INTERVAL_S = 0.5
URGENT_INTERVAL_S = 0.1
URGENT_S = 2.0
REASSERT_S = (0.25, 1.0, 2.5)
"""After a pair was selected, the controlling side says so again: an older nomination that the network delayed may
have arrived after the newer one."""
EASE = 0.8
"""Rests are drawn from this much to all of their length: many sessions must not check in step (RFC 7675 5.1)."""
STALL_S = 1.0
STALL_GRACE_S = 1.5
_NEVER = float("-inf")


def rest_after(gap_s: float, longest_s: float) -> float:
    """Return how long the controlling side leaves an answered path alone after two signs of life so far apart."""
    return min(gap_s + RESTS_S[0], longest_s)


class Consent:
    """The clock of one selected pair. All times are seconds of one monotonic clock."""

    def __init__(self, *, asks: bool, interval_s: float, lost_after_s: float, rng: random.Random, now: float) -> None:
        self.asks = asks
        """Whether this side is the one that checks without a reason: it is controlling."""
        self.last_alive = now
        """When the last sign of life arrived."""
        self._gap_s = 0.0
        self._rtt_s = 0.0
        self._lost_after_s = lost_after_s
        self._suspect_after_s = min(SUSPECT_S, lost_after_s / 3)
        self._passive_s = min(PASSIVE_S, lost_after_s * 0.4)
        self._longest_rest_s = min(interval_s, self._suspect_after_s)
        self._rng = rng
        self._answers = 0
        self._rest_s = self._draw_rest()
        self._last_check_at = _NEVER
        self._unanswered_since: float | None = None
        self._check_due = False
        self._asked_for_at: float | None = None
        self._silent_send_at: float | None = None
        self._urgent_until = _NEVER
        self._reassert_at: list[float] = []
        self._grace_until = now

    # Inputs

    def handle_alive(self, now: float) -> None:
        """Take note of an authenticated packet, or of a request of the peer. Called for every packet."""
        self._heard(now)
        self._silent_send_at = self._unanswered_since = None
        if self._answers:
            self._answers = 0
            self._rest_s = self._draw_rest()

    def handle_answer(self, now: float, rtt_s: float) -> None:
        """Take note of the answer to one of our checks."""
        self._heard(now)
        self._rtt_s = rtt_s
        self._silent_send_at = self._unanswered_since = None
        self._urgent_until = _NEVER
        self._answers += 1
        self._rest_s = self._draw_rest()

    def handle_sent(self, now: float) -> bool:
        """We sent data. True: into a silence, and `poll_timeout` may have changed."""
        if self._silent_send_at is not None or now - self.last_alive < RETRY_S:
            return False
        self._silent_send_at = now
        return True

    def handle_hint(self, now: float, *, urgent: bool = False) -> None:
        """Something says that the path may have changed: check at once. A hint never ends anything by itself."""
        if self._asked_for_at is None:
            self._asked_for_at = now
        if urgent:
            self._urgent_until = now + URGENT_S

    def handle_selected(self, now: float) -> None:
        """Another pair was agreed on just now, in our view."""
        self.last_alive = max(self.last_alive, now)
        self._reassert_at = [now + delay_s for delay_s in REASSERT_S] if self.asks else []

    def handle_timeout(self, now: float) -> None:
        """Let the clock advance; `poll_check` says afterwards whether a check is to be sent."""
        due, _ = self.poll_timeout()
        if now - due > STALL_S:
            self._grace_until = now + STALL_GRACE_S
            self._asked_for_at = now
        if now >= self._next_check_at() and not self.is_lost(now):
            self._check_due = True
            self._last_check_at = now
            if self._unanswered_since is None:
                self._unanswered_since = now
            self._asked_for_at = None
            self._reassert_at = [when for when in self._reassert_at if when > now]

    # Outputs

    def poll_check(self) -> bool:
        """Whether a check is due; asking clears it."""
        due, self._check_due = self._check_due, False
        return due

    def poll_timeout(self) -> tuple[float, str]:
        """When `handle_timeout` wants to be called next, and why."""
        return min((self._next_check_at(), "consent check"), (self._lost_at(), "consent expiry"))

    def watches(self, now: float) -> bool:
        """Whether this side only answers, and has heard the peer lately: `PASSIVE_S` after that it asks by itself."""
        return not self.asks and now < self.last_alive + self._passive_s

    def quiet_s(self) -> float | None:
        """After how long from the last sign of life something is due, if a further sign is all that moves that."""
        due, _ = self.poll_timeout()
        return None if self.asks or due != self.last_alive + self._passive_s else self._passive_s

    def is_suspect(self, now: float) -> bool:
        """Whether the silence is long enough to look for another path."""
        return now >= self._suspect_at()

    def is_lost(self, now: float) -> bool:
        """Whether consent has expired: nothing but further checks may be sent on this pair."""
        return now >= self._lost_at()

    # The deadlines

    def _next_check_at(self) -> float:
        due = self._regular_check_at()
        if self._silent_send_at is not None and self._last_check_at < self._silent_send_at:
            due = min(due, self._silent_send_at + max(RETRY_S, 1.5 * self._rtt_s))
        if self._reassert_at:
            due = min(due, self._reassert_at[0])
        if self._last_check_at < self._urgent_until:
            due = min(due, self._last_check_at + URGENT_INTERVAL_S)
        if self._asked_for_at is not None:
            due = min(due, max(self._asked_for_at, self._last_check_at + URGENT_INTERVAL_S))
        return due

    def _regular_check_at(self) -> float:
        first_at = self.last_alive + (self._rest_s if self.asks else self._passive_s)
        if self._last_check_at < self.last_alive:
            return first_at
        retry_at = self._last_check_at + max(RETRY_S, self._rtt_s)
        if not self.asks:
            retry_at = max(retry_at, first_at)
        suspect_at = max(
            self._suspect_at(), self._last_check_at + SUSPECT_INTERVAL_S * self._suspect_after_s / SUSPECT_S
        )
        return min(retry_at, suspect_at)

    def _suspect_at(self) -> float:
        silent_s = self._suspect_after_s if self.asks else self._passive_s
        return self.last_alive + silent_s + min(2 * self._rtt_s, silent_s)

    def _lost_at(self) -> float:
        if not self.asks:
            rest_s = rest_after(self._gap_s, self._longest_rest_s)
        elif self._unanswered_since is None:
            rest_s = 0.0
        else:
            rest_s = min(self._unanswered_since - self.last_alive, self._longest_rest_s)
        return max(self.last_alive + rest_s / 2 + self._lost_after_s, self._grace_until)

    def _heard(self, now: float) -> None:
        if now > self.last_alive:
            self._gap_s = now - self.last_alive
            self.last_alive = now

    def _draw_rest(self) -> float:
        rest_s = RESTS_S[self._answers] if self._answers < len(RESTS_S) else self._longest_rest_s
        return min(rest_s, self._longest_rest_s) * self._rng.uniform(EASE, 1.0)
