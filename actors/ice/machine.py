"""One ICE session as a pure machine (RFC 8445, full agent, one component, trickle as in RFC 8838).

    handle_*(…, now) in;  poll_transmit(), poll_event(), poll_timeout() out: drain all three after each input

The life of a session:

    idle --handle_start--> checking --a pair selected--> connected --consent expired--> over
                              |                              |  ^
                              |                              +--+ another pair selected
                              +--every pair failed, no more candidates--> over

It answers the peer's checks from the beginning, since the credentials are known beforehand. Deviations from RFC 8445,
each for a measured reason: checks are repeated faster than 500 ms (`CHECK_INTERVALS_S`); the controlling side
nominates again when a pair with fewer relay legs starts to work, the selected one falls silent or one of its ends is
about to go, and its consent checks carry USE-CANDIDATE, so that the peer follows a NAT that assigned us a new address
and both sides end up with the same pair.

A NAT that moves is followed from both ends: authenticated data from an address that was not selected makes the side
that gets it check that address, and such a check makes the controlling side assert the pair from its new address.
"""

import random
from collections import Counter
from collections.abc import Iterator

from aioice import stun

from . import binding
from .agent import Address, Credentials, LostReason, NeverReason, RelayLoss
from .candidate import Candidate, priority
from .check_list import Base, Pair, PairState
from .checks import Asked, Checks
from .choice import Choice
from .consent import Consent
from .messages import AddressProven, ChecksFailed, Event, PathLost, Rest, Transmit
from .packing import Role
from .snapshot import Snapshot

PACING_S = 0.01
"""Ta: new checks start no faster than this (RFC 8445 section 14.2: 50 ms, at least 5 ms)."""
PATIENCE_S = 5.0
"""How long the peer's checks may still reveal a pair after all of ours failed (the idea of RFC 8863)."""
LATE_S = 2.5
"""How long the answer to a check that was given up may still come: on a host that has too much to do, it waits in the
socket."""
MAX_PROVEN = 128
"""More addresses of the peer than this are forgotten; to hear of one again does no harm."""


class IceMachine:
    """Finds, keeps and gives up one path."""

    def __init__(
        self,
        *,
        role: Role,
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
        self._events: list[Event] = []  # an empty deque has 700 bytes
        self._started_at: float | None = None
        self._is_over = False
        self._local_end = self._remote_end = False
        self._choice = Choice(self._checks, self._events)
        self._consent: Consent | None = None
        self._next_pace_at = 0.0
        self._only_consent = False
        """Nothing can be due but consent, until something else happens than signs of life."""
        self._proven: tuple[Address, ...] = ()
        self.last_alive: float | None = None
        """The last authenticated sign of life on any pair; that of the selected one decides about the path."""

    @property
    def selected(self) -> Pair | None:
        """The pair that data goes over: its base and its remote address."""
        return self._choice.selected

    def watches(self, now: float) -> bool:
        """Whether the peer, if it fell silent now, would be missed by itself: after `consent.PASSIVE_S`."""
        return self._consent is not None and self._consent.watches(now)

    @property
    def is_controlling(self) -> bool:
        """Whether this side nominates. May change once, by a role conflict."""
        return self._checks.role.controlling

    @property
    def role(self) -> Role:
        """Our side of the decision, with its tie-breaker."""
        return self._checks.role

    @property
    def remotes(self) -> list[Candidate]:
        """The peer's candidates, told and learned."""
        return list(self._checks.list.remotes.values())

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, the highest priority first."""
        return list(self._checks.list.in_order(controlling=self.is_controlling))

    # Inputs

    def handle_base(self, base: Base, now: float) -> None:
        """Use another socket or allocation of ours."""
        self._checks.list.add_base(base)
        self._choice.expect_upgrade(now)
        self._step(now)

    def handle_reflexive(self, address: Address) -> None:
        """Take note of an address of ours that a STUN server saw; it only names the type of a path."""
        if address not in self._checks.list.reflexive:
            self._checks.list.reflexive += (address,)

    def handle_base_lost(self, base_id: int, reason: RelayLoss, now: float) -> None:
        """An allocation is given up. The path moves if it can; else it is lost, at once if no base is left."""
        self._checks.list.remove_base(base_id)
        self._choice.lose_base(base_id, reason, now)
        if self.selected is not None and not self._checks.list.bases:
            self._lose(reason, now)
        self._step(now)

    def handle_base_leaving(self, base_id: int, now: float) -> None:
        """A relay will go soon: move the path elsewhere while it still carries it (make before break)."""
        self._checks.list.leave_base(base_id)
        self._choice.look_elsewhere()
        self._step(now)

    def handle_remote_withdrawn(self, candidate: Candidate, now: float) -> None:
        """The peer took a candidate back: move the path elsewhere if it uses it."""
        self._checks.list.remove_remote(candidate.address, keep=self.selected)
        self._choice.look_elsewhere()
        self._step(now)

    def handle_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """Take a candidate that the peer told, before or while checking, even after its end of candidates."""
        if not self._checks.list.add_remote(candidate):
            self._counters["remote_candidate_over_limit"] += 1
        self._choice.expect_upgrade(now)
        self._choice.announce()
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

    def handle_resume(self, base_id: int, snapshot: Snapshot, now: float) -> None:
        """Go on with a pair that a predecessor of this process had agreed on; its consent is asked for at once."""
        for remote in snapshot.remotes:
            self._checks.list.add_remote(remote)
        pair = self._checks.list.learn(base_id, snapshot.remote.address, snapshot.remote.priority)
        if pair is None:
            raise ValueError("there is no room for the pair to resume")
        pair.local_type, pair.rtt_ms = snapshot.local_type, snapshot.rtt_ms
        pair.advance("answered", now)
        self._started_at = now
        self._take_sign(pair, now)
        self._select(pair, now)
        self.last_alive = snapshot.last_alive
        self.handle_hint(now, urgent=True)

    def handle_alive(self, now: float) -> None:
        """The layer above authenticated a packet of the peer that came over the selected pair."""
        self.last_alive = now
        if self._consent is not None:
            self._consent.handle_alive(now)

    def handle_stray(self, base_id: int, source: Address, now: float) -> None:
        """The layer above authenticated a packet of the peer that came from elsewhere: its NAT may have moved.

        That address is checked; as a sign of life the packet does not speak for the selected pair.
        """
        if self.selected is None or self._started_at is None:
            return
        self.last_alive = now
        pair = self._checks.list.learn(base_id, source, priority("prflx"))
        if pair is None:
            self._counters["remote_candidate_over_limit"] += 1
        elif pair is self.selected:
            self.handle_alive(now)
        elif pair.check is None and pair.state is not PairState.SUCCEEDED:
            self._checks.trigger(pair, now)
            self._step(now)

    def handle_sent(self, now: float) -> bool:
        """Data was sent on the selected pair. True: `poll_timeout` may have changed."""
        return self._consent is not None and self._consent.handle_sent(now)

    def handle_hint(self, now: float, *, urgent: bool = False) -> None:
        """Something (ICMP, a route change) says that the path may be gone: check at once."""
        if self._consent is not None:
            self._consent.handle_hint(now, urgent=urgent)
        self._choice.expect_upgrade(now)
        self._step(now)

    def handle_datagram(self, base_id: int, datagram: bytes, source: Address, now: float) -> bool:
        """Take a STUN datagram that arrived at a base. Whatever it says, this never raises.

        False: it was one of the consent checks of an idle connection or its answer, which cost little because all that
        follows from them is a datagram to send: no event, and no earlier timeout.
        """
        pair = self.selected
        if pair is not None and base_id == pair.base.id and source == pair.remote.address:
            changed = self._take_packed(base_id, datagram, source, now)
            if changed is not None:
                return changed
        message = binding.read(datagram)
        if message is None:
            self._counters["malformed_stun"] += 1
        else:
            self.handle_message(base_id, message, source, now)
        return True

    def answer_consent(self, base_id: int, datagram: bytes, source: Address, now: float) -> bytes | None:
        """Take a check on the selected pair, as each idle peer sends them: return the answer, which is all that follows
        from it. None: it is something else, for `handle_datagram`.
        """
        pair, consent = self.selected, self._consent
        if pair is None or consent is None or self._is_over or self.is_controlling or datagram[0]:
            return None
        if base_id != pair.base.id or source != pair.remote.address or pair.state is not PairState.SUCCEEDED:
            return None
        answer = self._checks.answer(pair, datagram)
        if answer is None:
            return None
        self._take_sign(pair, now)
        consent.handle_alive(now)
        return answer[0]

    def handle_heard(self, before_at: float, heard_at: float) -> None:
        """Checks on the selected pair were answered for us, the last two at these times, or long ago."""
        for at in (before_at, heard_at):
            if self._consent is not None and at > self._consent.last_alive:
                self._consent.handle_alive(at)
                self.last_alive = at

    def handle_woken(self, nominations: bytes) -> None:
        """We answer ourselves again; these have nominated, before and meanwhile."""
        self._checks.nominations = nominations

    def _take_packed(self, base_id: int, datagram: bytes, source: Address, now: float) -> bool | None:
        """Take a datagram on the selected pair the short way; None: it has to go the long way."""
        if datagram[0] == 0:
            asked = self._checks.take_packed_request(base_id, datagram, source)
            if asked is None:
                return None
            changed = self._take_request(asked, now)
        else:
            answered = self._checks.take_packed_response(base_id, datagram, source, now)
            if answered is None:
                return None
            self._take_answer(answered.pair, now, nominated=answered.nominated)
            changed = not self._choice.is_settled
        if changed:
            self._step(now)
        return changed

    def handle_message(self, base_id: int, message: stun.Message, source: Address, now: float) -> None:
        """Take a STUN message that arrived at a base."""
        if self._is_over or base_id not in self._checks.list.bases:
            self._counters["stun_after_end"] += 1
        elif message.message_class is stun.Class.REQUEST:
            asked = self._checks.take_request(base_id, message, source)
            if asked is not None:
                self._take_request(asked, now)
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
        return self._checks.transmits.pop(0) if self._checks.transmits else None

    def poll_event(self) -> Event | None:
        """Return the next fact."""
        return self._events.pop(0) if self._events else None

    def poll_rest(self) -> Rest | None:
        """Say what the checks are that others may answer until `handle_woken`, one of which was answered just now; who
        has nominated is theirs to keep meanwhile. None: something else is due, or would follow from them.
        """
        pair, consent = self.selected, self._consent
        if pair is None or consent is None or self.poll_timeout() is None or not self._only_consent or self._events:
            return None
        quiet_s = consent.quiet_s()
        return None if quiet_s is None else self._checks.rest(pair, consent.last_alive, quiet_s)

    def poll_timeout(self) -> tuple[float, str] | None:
        """When `handle_timeout` wants to be called next, and why; None: not at all."""
        if self._is_over or self._started_at is None:
            return None
        if self._only_consent and self._consent is not None:
            return self._consent.poll_timeout()
        due = list(self._wake_ups())
        self._only_consent = len(due) == 1 and self._consent is not None
        return min(due, default=None)

    def _wake_ups(self) -> Iterator[tuple[float, str]]:
        for pair in self._checks.list.pairs.values():
            if pair.check is not None:
                yield pair.check.next_at, "check retransmission"
            elif pair.state is PairState.WAITING:
                yield self._next_pace_at, "check pacing"
        forgetting = self._checks.poll_timeout()
        if forgetting is not None:
            yield forgetting
        yield from self._choice.wake_ups()
        if self._consent is not None:
            yield self._consent.poll_timeout()
        if self._is_hopeless and self._started_at is not None:
            yield self._patience_ends_at(self._started_at), "patience"

    # Everything that depends on time

    def _step(self, now: float) -> None:
        self._only_consent = False
        if self._is_over or self._started_at is None:
            return
        self._tend_consent(now)
        if self._is_over:
            return
        self._checks.tend(now)
        self._pace(now)
        self._choice.tend(now)
        if self._is_hopeless and now >= self._patience_ends_at(self._started_at):
            self._is_over = True
            self._events.append(ChecksFailed(self._missing))

    def _tend_consent(self, now: float) -> None:
        consent, pair = self._consent, self.selected
        if consent is None or pair is None:
            return
        consent.asks = self.is_controlling
        consent.handle_timeout(now)
        has_base = pair.base.id in self._checks.list.bases
        if consent.is_lost(now):
            # A relay that was only silent proves no more than the peer that is.
            self._lose("relay_lost" if self._choice.lost_relay == "relay_lost" and not has_base else "no_answer", now)
            return
        if consent.is_suspect(now):
            self._choice.doubt_all_in_silence(now)
        if consent.poll_check() and has_base:
            self._checks.send_consent(pair, now, nominate=self.is_controlling and self._choice.nominating is None)

    def _pace(self, now: float) -> None:
        """Start the check of the best waiting pair, one per Ta (RFC 8445 section 6.1.4.2)."""
        if now < self._next_pace_at:
            return
        waiting = [p for p in self._checks.list.pairs.values() if p.state is PairState.WAITING and p.check is None]
        if waiting:
            controlling = self.is_controlling
            self._checks.begin(max(waiting, key=lambda pair: pair.priority(controlling=controlling)), now)
            self._next_pace_at = now + PACING_S

    # Nomination and its consequences

    def _take_sign(self, pair: Pair, now: float) -> None:
        """The peer has shown on this pair that it lives."""
        self.last_alive = now
        address = pair.remote.address
        if address not in self._proven:
            self._proven = (*self._proven[-MAX_PROVEN + 1 :], address)
            self._events.append(AddressProven(address))

    def _take_request(self, asked: Asked, now: float) -> bool:
        """Follow a check of the peer. False: it changes nothing that has to be looked at."""
        pair = asked.pair
        self._take_sign(pair, now)
        if pair is self.selected and self._consent is not None:
            self._consent.handle_alive(now)
            if not self.is_controlling:
                return False
            self._consent.handle_hint(now)  # who is controlled asks only if it misses us, at the address it knows
        elif pair.state is not PairState.SUCCEEDED:
            if self._started_at is not None:
                self._checks.trigger(pair, now)
        elif asked.nominated:
            self._select(pair, now)
        return True

    def _take_answer(self, pair: Pair, now: float, *, nominated: bool) -> None:
        self._take_sign(pair, now)
        if pair is self.selected and self._consent is not None:
            self._consent.handle_answer(now, pair.rtt_ms / 1000)
        if self.is_controlling:
            if nominated and (pair is self._choice.nominating or self.selected is None):
                self._select(pair, now)
        elif pair.remote_nominated:
            self._select(pair, now)

    def _select(self, pair: Pair, now: float) -> None:
        if not self._choice.select(pair, now):
            return
        if self._consent is None:
            asks, interval_s, lost_after_s = self.is_controlling, self._consent_interval_s, self._lost_after_s
            self._consent = Consent(asks=asks, interval_s=interval_s, lost_after_s=lost_after_s, rng=self._rng, now=now)
        self._consent.handle_selected(now)

    def _lose(self, reason: LostReason, now: float) -> None:
        last_alive = self._consent.last_alive if self._consent is not None else now
        self._is_over = True
        self._choice.selected = self._consent = None
        self._events.append(PathLost(reason, now - last_alive))

    def _patience_ends_at(self, started_at: float) -> float:
        return max(started_at + PATIENCE_S, self._checks.last_given_up_at + LATE_S)

    @property
    def _is_hopeless(self) -> bool:
        if self.selected is not None or not (self._local_end and self._remote_end):
            return False
        return all(pair.state is PairState.FAILED for pair in self._checks.list.pairs.values())

    @property
    def _missing(self) -> NeverReason:
        if not self._checks.list.bases:
            return "no_local_candidates"
        return "checks_failed" if self._checks.list.remotes else "no_remote_candidates"
