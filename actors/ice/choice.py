"""Which pair a session uses, and the way from one to another: nomination carried out, and looking for something better.

`nomination` decides; here a decision becomes a check with USE-CANDIDATE, and its answer a selected pair. Only the
controlling side nominates. Both sides look for something better, since a check gets through two NATs only if both
sides try.
"""

from collections.abc import Iterator

import msgspec

from .agent import Path, RelayLoss
from .check_list import Pair, PairState
from .checks import Checks
from .messages import Event, PathBroken, PathSelected
from .nomination import Contender, decide

UPGRADE_FIRST_S, UPGRADE_FACTOR, UPGRADE_LONGEST_S = 1.0, 2.0, 30.0
"""On a relayed path, direct pairs are tried again after 1 s, 2 s, 4 s, … at last every 30 s; after 1 s again when
something is new: a hint, an address of ours, a candidate of the peer."""
RECHECK_S = 2.0
"""How often all pairs are checked again while the selected one is silent."""
SELDOM_SENDS = 3
"""After so many transmissions of a check, the next one is a second away (`check_list.CHECK_INTERVALS_S`)."""
REPAIR_S = 0.5
"""How soon another pair is found if the relay in use dies while one works: two checks of it, and the nomination. After
so long somebody else should look as well."""


class Choice:
    """The pair in use and the one that is to be."""

    def __init__(self, checks: Checks, events: list[Event]) -> None:
        self._checks = checks
        self._events = events
        self._announced: Path | None = None
        self._nomination_at: float | None = None
        self._next_recheck_at = 0.0
        self._upgrade_after_s = UPGRADE_FIRST_S
        self._last_upgrade_at = float("-inf")
        self._next_upgrade_at: float | None = None
        self._repaired_by: float | None = None
        self.lost_relay: RelayLoss | None = None
        """Why the relay of the selected pair was given up, if it was."""
        self.selected: Pair | None = None
        """What data goes over."""
        self.nominating: Pair | None = None
        """What we have proposed to the peer, unanswered so far."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing here waits for an answer or a time."""
        waits = (self.nominating, self._next_upgrade_at, self._nomination_at, self._repaired_by)
        return all(one is None for one in waits)

    def wake_ups(self) -> Iterator[tuple[float, str]]:
        """When `tend` wants to be called next, and why."""
        if self._nomination_at is not None:
            yield self._nomination_at, "nomination"
        if self._next_upgrade_at is not None:
            yield self._next_upgrade_at, "direct path probe"
        if self._repaired_by is not None:
            yield self._repaired_by, "repair of the path"

    def tend(self, now: float) -> None:
        """Look for a better pair when it is time, and nominate what is best."""
        self._tend_upgrade(now)
        self._tend_nomination(now)
        if self._repaired_by is not None and now >= self._repaired_by:
            self._repaired_by = None
            if self.lost_relay is not None:
                self._events.append(PathBroken(self.lost_relay))

    def select(self, pair: Pair, now: float) -> bool:
        """Use a pair from now on, as both sides agreed; False: it is in use already."""
        self.nominating = None
        if pair is self.selected:
            return False
        self._repaired_by = self.lost_relay = None
        before, self.selected = self.selected, pair
        if before is not None and before.is_leaving and before.remote.address not in self._checks.list.remotes:
            self._checks.list.remove_remote(before.remote.address, keep=None)
        self._upgrade_after_s = UPGRADE_FIRST_S
        self._next_upgrade_at = now + UPGRADE_FIRST_S if pair.relay_legs else None
        self.announce()
        return True

    def announce(self) -> None:
        """Report the selected path unless it is the one last reported, apart from its rtt."""
        if self.selected is None:
            return
        path = self.selected.path
        if self._announced is None or msgspec.structs.replace(self._announced, rtt_ms=path.rtt_ms) != path:
            self._announced = path
            self._events.append(PathSelected(path))

    def lose_base(self, base_id: int, reason: RelayLoss, now: float) -> None:
        """What went over a base goes nowhere now; if that was the selected pair, find out what works, and soon."""
        for pair in (self.selected, self.nominating):
            if pair is not None and pair.base.id == base_id:
                pair.advance("refused")
                pair.check = None
                self.nominating = None
        if self.selected is not None and self.selected.base.id == base_id:
            self.lost_relay = reason
            self._repaired_by = now + REPAIR_S
            self.doubt_all(now)
            self.expect_upgrade(now)

    def doubt_all(self, now: float) -> None:
        """The selected pair is silent: find out which pairs work now, itself included. A check that is under way and
        repeated seldom by now begins anew.
        """
        self._next_recheck_at = now + RECHECK_S
        for pair in self._checks.list.pairs.values():
            if pair.check is not None and pair.check.sends > SELDOM_SENDS and pair is not self.nominating:
                pair.check = None
            if pair.check is None:
                pair.advance("doubted")

    def doubt_all_in_silence(self, now: float) -> None:
        """The same, not too often."""
        if now >= self._next_recheck_at:
            self.doubt_all(now)

    def look_elsewhere(self) -> None:
        """The selected pair is about to go: find out whether one that failed works now. It carries on meanwhile."""
        if self.selected is not None and self.selected.is_leaving:
            for pair in self._checks.list.pairs.values():
                if pair.state is PairState.FAILED and not pair.is_leaving:
                    pair.advance("doubted")

    def expect_upgrade(self, now: float) -> None:
        """Something is new: a direct path may open now. Try what failed at once, but not twice in a second."""
        if self._next_upgrade_at is not None:
            self._upgrade_after_s = UPGRADE_FIRST_S
            self._next_upgrade_at = min(self._next_upgrade_at, max(now, self._last_upgrade_at + UPGRADE_FIRST_S))

    def _tend_upgrade(self, now: float) -> None:
        if self.selected is None or self._next_upgrade_at is None or now < self._next_upgrade_at:
            return
        for pair in self._checks.list.pairs.values():
            if pair.state is PairState.FAILED and pair.relay_legs < self.selected.relay_legs:
                pair.advance("doubted")
        self._last_upgrade_at = now
        self._upgrade_after_s = min(self._upgrade_after_s * UPGRADE_FACTOR, UPGRADE_LONGEST_S)
        self._next_upgrade_at = now + self._upgrade_after_s

    def _tend_nomination(self, now: float) -> None:
        self._nomination_at = None
        controlling = self._checks.role.controlling
        if not controlling:
            self.nominating = None
        if self.nominating is not None and self.nominating.check is None:
            self.nominating = None  # given up, refused, or its base is gone
        if not controlling or self.nominating is not None:
            return
        selected = self.selected
        if selected is not None and (selected.is_leaving or selected.state is not PairState.SUCCEEDED):
            selected = None
        if selected is not None and not selected.relay_legs:
            return  # nothing is better than that
        decision = decide(
            [
                _contender(pair)
                for pair in self._checks.list.in_order(controlling=True)
                if pair.state is not PairState.FAILED and not pair.is_leaving
            ],
            selected=None if selected is None else _contender(selected),
            now=now,
        )
        self._nomination_at = decision.wait_until
        if isinstance(decision.nominate, Pair):
            self.nominating = decision.nominate
            self._checks.begin(decision.nominate, now, nominate=True)


def _contender(pair: Pair) -> Contender:
    """A pair as the nominating side sees it."""
    return Contender(pair, pair.relay_legs, pair.priority(controlling=True), pair.valid_since, rtt_s=pair.rtt_ms / 1000)
