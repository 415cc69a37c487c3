"""Which pair to nominate, and when (RFC 8445 section 8.1.1, regular nomination).

The controlling side first checks without USE-CANDIDATE and nominates afterwards, so it sees what works before it
decides. Aggressive nomination lets the fastest answer win, which is often the relay, and can leave the two sides on
different pairs; RFC 8445 removed it.

Best is: fewest relay legs, then priority. A valid pair that nothing pending can beat is nominated at once. Otherwise a
better one gets time to finish, and how much is a question of evidence, not of patience. A valid pair shows that the
peer runs and knows our candidates, and better pairs are checked before worse ones: so when the first one is valid, both
sides have sent on the better ones as well, both NATs are open, and what is still to come takes one round trip. That of
the valid pair bounds it from above, since the better path is hardly the longer one.

    direct    a round trip and 20 ms, at most 150 ms: what is pending is mostly private addresses of somebody else's
              network, which will never answer
    relayed   a round trip and 200 ms, at most 1 s: a direct path is worth the wait for a check that was lost and is
              repeated after 150 ms (`check_list.CHECK_INTERVALS_S`). What takes longer is taken when it comes

A pair that carries traffic is replaced only by one with fewer relay legs, never for priority: every switch costs
packets, and two direct paths are equally good.
"""

from collections.abc import Hashable, Iterable
from typing import NamedTuple

DIRECT_WAIT_S, LONGEST_DIRECT_WAIT_S = 0.020, 0.150
RELAY_WAIT_S, LONGEST_RELAY_WAIT_S = 0.200, 1.0
"""On top of a round trip of the best pair so far, and with it at most."""


class Contender(NamedTuple):
    """A pair as nomination sees it: valid since a time, or (None) pending: its check may still succeed."""

    key: Hashable
    relay_legs: int
    priority: int
    valid_since: float | None
    rtt_s: float = 0.0
    """Of a valid one."""

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller is better."""
        return self.relay_legs, -self.priority

    @property
    def patience_s(self) -> float:
        """How long a better one may take after something is valid, if this is the best so far."""
        if self.relay_legs:
            return min(self.rtt_s + RELAY_WAIT_S, LONGEST_RELAY_WAIT_S)
        return min(self.rtt_s + DIRECT_WAIT_S, LONGEST_DIRECT_WAIT_S)


class Decision(NamedTuple):
    """`nominate` now; or look again at `wait_until` (seconds, the caller's clock); or neither: nothing to decide."""

    nominate: Hashable | None = None
    wait_until: float | None = None


def decide(contenders: Iterable[Contender], *, selected: Contender | None, now: float) -> Decision:
    """Choose among pairs that are valid or pending (failed ones are not passed in).

    `selected` is the pair in use if it still works, else None. The wait for a better pair is counted from when the
    first pair that could be nominated became valid.
    """
    better = [c for c in contenders if selected is None or c.relay_legs < selected.relay_legs]
    valid = [c for c in better if c.valid_since is not None]
    if not valid:
        return Decision()
    best = min(valid, key=lambda c: c.rank)
    if all(c.valid_since is not None or c.rank > best.rank for c in better):
        return Decision(nominate=best.key)
    first_valid_at = min(c.valid_since for c in valid if c.valid_since is not None)
    wait_until = first_valid_at + best.patience_s
    return Decision(nominate=best.key) if now >= wait_until else Decision(wait_until=wait_until)
