"""One ICE session as a pure machine (RFC 8445, full agent, one component, trickle as in RFC 8838).

    handle_*(…, now) in;  poll_transmit(), poll_event(), poll_timeout() out: drain all three after each input

The life of a session:

    idle --handle_start--> checking --a pair selected--> connected --consent expired--> over
                              |                              |  ^
                              |                              +--+ another pair selected
                              +--every pair failed, no more candidates--> over

It answers the peer's checks from the beginning, since the credentials are known beforehand. Deviations from RFC 8445,
each for a measured reason: checks are repeated faster than 500 ms (`CHECK_INTERVALS_S`); the controlling side
nominates again when a pair with fewer relay legs starts to work or the selected one falls silent, and its consent
checks carry USE-CANDIDATE, so that the peer follows a NAT that assigned us a new address and both sides end up with
the same pair.
"""

import random
from collections import Counter, deque
from collections.abc import Iterator

import msgspec
from aioice import stun

from . import binding
from .agent import Address, Credentials, LostReason, NeverReason, Path
from .candidate import Candidate
from .check_list import Base, Pair, PairState
from .checks import Checks
from .consent import Consent
from .messages import ChecksFailed, Event, PathLost, PathSelected, Transmit
from .nomination import Contender, decide

PACING_S = 0.02
"""Ta: new checks start no faster than this (RFC 8445 section 14.2: 50 ms, at least 5 ms)."""
PATIENCE_S = 5.0
"""How long the peer's checks may still reveal a pair after all of ours failed (the idea of RFC 8863)."""
RECHECK_S = 5.0
"""How often all pairs are checked again while the selected one is silent."""
UPGRADE_FIRST_S, UPGRADE_FACTOR, UPGRADE_LONGEST_S = 10.0, 1.5, 60.0
"""On a relayed path, direct pairs are tried again after 10 s, 15 s, 22 s, … at last once a minute."""


class IceMachine:
    """Finds, keeps and gives up one path."""

    def __init__(
        self,
        *,
        role: binding.Role,
        credentials: Credentials,
        consent_interval_s: float,
        lost_after_s: float,
        rng: random.Random,
        counters: Counter[str],
    ) -> None:
        self._checks = Checks(role, credentials, counters)
        self._consent_interval_s = consent_interval_s
        self._lost_after_s = lost_after_s
        self._rng = rng
        self._counters = counters
        self._events: deque[Event] = deque()
        self._started_at: float | None = None
        self._is_over = False
        self._local_end = self._remote_end = False
        self._selected: Pair | None = None
        self._announced: Path | None = None
        self._nominating: Pair | None = None
        self._nomination_at: float | None = None
        self._consent: Consent | None = None
        self._next_pace_at = 0.0
        self._next_recheck_at = 0.0
        self._upgrade_after_s = UPGRADE_FIRST_S
        self._next_upgrade_at: float | None = None

    @property
    def selected(self) -> Pair | None:
        """The pair that data goes over: its base and its remote address."""
        return self._selected

    @property
    def is_controlling(self) -> bool:
        """Whether this side nominates. May change once, by a role conflict."""
        return self._checks.role.controlling

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, the highest priority first."""
        return list(self._checks.list.in_order(controlling=self.is_controlling))

    # Inputs

    def handle_base(self, base: Base, now: float) -> None:
        """Use another socket or allocation of ours."""
        self._checks.list.add_base(base)
        self._step(now)

    def handle_reflexive(self, address: Address) -> None:
        """Take note of an address of ours that a STUN server saw; it only names the type of a path."""
        self._checks.list.reflexive.add(address)

    def handle_base_lost(self, base_id: int, now: float) -> None:
        """A socket or allocation is gone. The path moves if it can; else it is lost, at once if no base is left."""
        self._checks.list.remove_base(base_id)
        for pair in (self._selected, self._nominating):
            if pair is not None and pair.base.id == base_id:
                pair.advance("refused")
                pair.check = None
                self._nominating = None
        if self._selected is not None and not self._checks.list.bases:
            self._lose("relay_lost", now)
        elif self._selected is not None and self._selected.base.id == base_id:
            self._doubt_all(now)
        self._step(now)

    def handle_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """Take a candidate that the peer told, before or while checking, even after its end of candidates."""
        if not self._checks.list.add_remote(candidate):
            self._counters["remote_candidate_over_limit"] += 1
        self._announce()
        self._step(now)

    def handle_local_end(self, now: float) -> None:
        """No more candidates of ours will come."""
        self._local_end = True
        self._step(now)

    def handle_remote_end(self, now: float) -> None:
        """No more candidates of the peer will come."""
        self._remote_end = True
        self._step(now)

    def handle_start(self, now: float) -> None:
        """Begin to check."""
        if self._started_at is None:
            self._started_at = now
        self._step(now)

    def handle_alive(self, now: float) -> None:
        """The layer above authenticated a packet of the peer."""
        if self._consent is not None:
            self._consent.handle_alive(now)

    def handle_hint(self, now: float) -> None:
        """Something (ICMP, a route change) says that the path may be gone: check at once."""
        if self._consent is not None:
            self._consent.handle_hint(now)
        self._step(now)

    def handle_message(self, base_id: int, message: stun.Message, source: Address, now: float) -> None:
        """Take a STUN message that arrived at a base. Whatever it says, this never raises."""
        if self._is_over or base_id not in self._checks.list.bases:
            self._counters["stun_after_end"] += 1
        elif message.message_class is stun.Class.REQUEST:
            asked = self._checks.take_request(base_id, message, source)
            if asked is not None and asked.pair.state is not PairState.SUCCEEDED:
                if self._started_at is not None:
                    self._checks.trigger(asked.pair, now)
            elif asked is not None and asked.nominated:
                self._select(asked.pair, now)
        elif message.message_class in (stun.Class.RESPONSE, stun.Class.ERROR):
            answered = self._checks.take_response(base_id, message, source, now)
            if answered is not None:
                self._take_answer(answered.pair, now, nominated=answered.nominated)
        else:
            self._counters["stun_unexpected"] += 1
        self._step(now)

    def handle_timeout(self, now: float) -> None:
        """Let the clock advance."""
        self._step(now)

    # Outputs

    def poll_transmit(self) -> Transmit | None:
        """Return the next datagram to send."""
        return self._checks.transmits.popleft() if self._checks.transmits else None

    def poll_event(self) -> Event | None:
        """Return the next fact."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """When `handle_timeout` wants to be called next, and why; None: not at all."""
        if self._is_over or self._started_at is None:
            return None
        return min(self._wake_ups(), default=None)

    def _wake_ups(self) -> Iterator[tuple[float, str]]:
        for pair in self._checks.list.pairs.values():
            if pair.check is not None:
                yield pair.check.next_at, "check retransmission"
            elif pair.state is PairState.WAITING:
                yield self._next_pace_at, "check pacing"
        if self._nomination_at is not None:
            yield self._nomination_at, "nomination"
        if self._consent is not None:
            yield self._consent.poll_timeout()
        if self._next_upgrade_at is not None:
            yield self._next_upgrade_at, "direct path probe"
        if self._is_hopeless and self._started_at is not None:
            yield self._started_at + PATIENCE_S, "patience"

    # Everything that depends on time

    def _step(self, now: float) -> None:
        if self._is_over or self._started_at is None:
            return
        self._tend_consent(now)
        if self._is_over:
            return
        self._checks.tend(now)
        self._pace(now)
        self._tend_upgrade(now)
        self._tend_nomination(now)
        if self._is_hopeless and now >= self._started_at + PATIENCE_S:
            self._is_over = True
            self._events.append(ChecksFailed(self._missing))

    def _tend_consent(self, now: float) -> None:
        consent, pair = self._consent, self._selected
        if consent is None or pair is None:
            return
        consent.handle_timeout(now)
        has_base = pair.base.id in self._checks.list.bases
        if consent.is_lost(now):
            self._lose("no_answer" if has_base else "relay_lost", now)
            return
        if consent.is_suspect(now) and now >= self._next_recheck_at:
            self._doubt_all(now)
        if consent.poll_check() and has_base:
            self._checks.send_consent(pair, now, nominate=self.is_controlling and self._nominating is None)

    def _pace(self, now: float) -> None:
        """Start the check of the best waiting pair, one per Ta (RFC 8445 section 6.1.4.2)."""
        if now < self._next_pace_at:
            return
        for pair in self.pairs:
            if pair.state is PairState.WAITING and pair.check is None:
                self._checks.begin(pair, now)
                self._next_pace_at = now + PACING_S
                return

    def _tend_upgrade(self, now: float) -> None:
        if self._selected is None or self._next_upgrade_at is None or now < self._next_upgrade_at:
            return
        for pair in self._checks.list.pairs.values():
            if pair.state is PairState.FAILED and pair.relay_legs < self._selected.relay_legs:
                pair.advance("doubted")
        self._upgrade_after_s = min(self._upgrade_after_s * UPGRADE_FACTOR, UPGRADE_LONGEST_S)
        self._next_upgrade_at = now + self._upgrade_after_s

    def _doubt_all(self, now: float) -> None:
        """The selected pair is silent: find out which pairs work now, itself included."""
        self._next_recheck_at = now + RECHECK_S
        for pair in self._checks.list.pairs.values():
            if pair.check is None:
                pair.advance("doubted")

    # Nomination and its consequences

    def _take_answer(self, pair: Pair, now: float, *, nominated: bool) -> None:
        if pair is self._selected and self._consent is not None:
            self._consent.handle_alive(now)
        if self.is_controlling:
            if nominated and pair is self._nominating:
                self._select(pair, now)
        elif pair.remote_nominated:
            self._select(pair, now)

    def _tend_nomination(self, now: float) -> None:
        self._nomination_at = None
        if not self.is_controlling:
            self._nominating = None
        if self._nominating is not None and self._nominating.check is None:
            self._nominating = None  # given up, refused, or its base is gone
        if not self.is_controlling or self._nominating is not None:
            return
        selected = self._selected
        if selected is not None and selected.state is not PairState.SUCCEEDED:
            selected = None
        decision = decide(
            [self._contender(p) for p in self.pairs if p.state is not PairState.FAILED],
            selected=None if selected is None else self._contender(selected),
            now=now,
        )
        self._nomination_at = decision.wait_until
        if isinstance(decision.nominate, Pair):
            self._nominating = decision.nominate
            self._checks.begin(decision.nominate, now, nominate=True)

    def _contender(self, pair: Pair) -> Contender:
        priority = pair.priority(controlling=self.is_controlling)
        return Contender(pair, pair.relay_legs, priority, pair.valid_since)

    def _select(self, pair: Pair, now: float) -> None:
        self._nominating = None
        if pair is self._selected:
            return
        self._selected = pair
        if self._consent is None:
            self._consent = Consent(
                interval_s=self._consent_interval_s, lost_after_s=self._lost_after_s, rng=self._rng, now=now
            )
        elif self.is_controlling:
            self._consent.handle_alive(now)  # the nomination was answered just now
        else:
            self._consent.handle_hint(now)
        self._upgrade_after_s = UPGRADE_FIRST_S
        self._next_upgrade_at = now + UPGRADE_FIRST_S if pair.relay_legs else None
        self._announce()

    def _announce(self) -> None:
        """Report the selected path unless it is the one last reported, apart from its rtt."""
        if self._selected is None:
            return
        path = self._selected.path
        if self._announced is None or msgspec.structs.replace(self._announced, rtt_ms=path.rtt_ms) != path:
            self._announced = path
            self._events.append(PathSelected(path))

    def _lose(self, reason: LostReason, now: float) -> None:
        last_alive = self._consent.last_alive if self._consent is not None else now
        self._is_over = True
        self._selected = self._consent = None
        self._events.append(PathLost(reason, now - last_alive))

    @property
    def _is_hopeless(self) -> bool:
        if self._selected is not None or not (self._local_end and self._remote_end):
            return False
        return not any(
            pair.is_pending or (pair.state is PairState.SUCCEEDED and not self.is_controlling)
            for pair in self._checks.list.pairs.values()
        )

    @property
    def _missing(self) -> NeverReason:
        if not self._checks.list.bases:
            return "no_local_candidates"
        return "checks_failed" if self._checks.list.remotes else "no_remote_candidates"
