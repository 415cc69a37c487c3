"""Connectivity checks: asking, answering, and what an answer proves (RFC 8445 section 7).

This is the part of a session that talks STUN. It knows pairs and roles; it decides nothing about which pair to use.
What it learns it returns: the pair that a check of the peer came in on, the pair that an answer proved.
"""

import os
from collections import Counter
from typing import NamedTuple

from aioice import stun

from . import binding
from .agent import Address, Credentials
from .check_list import (
    CHECK_INTERVALS_S,
    MAX_TRIGGERED_SENDS,
    NOMINATION_INTERVALS_S,
    Check,
    CheckList,
    Pair,
    PairState,
)
from .messages import Rest, Transmit
from .packing import Packing, Role
from .transactions import Sent, Transactions

MAX_NOMINATIONS = 64
"""Transaction ids that are remembered, so that a copy that the network delayed does not nominate again."""
_ID_BYTES = 12


class Asked(NamedTuple):
    """The peer checked this pair, authentically; `nominated`: with USE-CANDIDATE, and we are controlled."""

    pair: Pair
    nominated: bool


class Answered(NamedTuple):
    """The peer answered our check of this pair; `nominated`: our check carried USE-CANDIDATE."""

    pair: Pair
    nominated: bool


class Checks:
    """The requests of one session in both directions."""

    def __init__(self, role: Role, credentials: Credentials, counters: Counter[str]) -> None:
        self.role = role
        self.list = CheckList()
        self.transmits: list[Transmit] = []  # an empty deque has 700 bytes
        self.last_given_up_at = float("-inf")
        """When a check last ended without an answer."""
        self._credentials = credentials
        self._counters = counters
        self._packing = Packing(credentials)
        self._transactions = Transactions()
        self.nominations = b""
        """The ids of those that have nominated, one behind the other: as objects in a table those of an idle peer took
        10 kB."""

    # The peer's checks

    def take_request(self, base_id: int, request: stun.Message, source: Address) -> Asked | None:
        """Answer a request. None: it was refused, or there is no room for another pair."""
        error = binding.authenticate(request, self._credentials)
        if error is None and self._loses_role_conflict(request):
            error = binding.ROLE_CONFLICT
        if error is not None:
            self._counters[f"request_refused_{error[0]}"] += 1
            answer = binding.failure(request, error, self._credentials)
            self.transmits.append(Transmit(base_id, source, answer))
            return None
        self._answer(base_id, request.transaction_id, source)
        pair = self.list.learn(base_id, source, binding.attribute(request, "PRIORITY"))
        if pair is None:
            self._counters["remote_candidate_over_limit"] += 1
            return None
        return Asked(pair, self._nominates(pair, request.transaction_id, "USE-CANDIDATE" in request.attributes))

    def take_packed_request(self, base_id: int, datagram: bytes, source: Address) -> Asked | None:
        """Answer a check on a pair that is known to work, the short way. None: it has to go the long way."""
        pair = self.list.pairs.get((base_id, source))
        if pair is None or pair.state is not PairState.SUCCEEDED:
            return None
        answer = self.answer(pair, datagram)
        if answer is None:
            return None
        self.transmits.append(Transmit(base_id, source, answer[0]))
        return Asked(pair, answer[1])

    def answer(self, pair: Pair, datagram: bytes) -> tuple[bytes, bool] | None:
        """Return the answer to a check on a pair that works, and whether it nominates. None: it has to go the long way.

        It came from the pair's remote address.
        """
        request = self._packing.read_request(datagram)
        if request is None or request.role.controlling == self.role.controlling:
            return None
        nominates = self._nominates(pair, request.transaction_id, request.nominates)
        return self._packing.success(request.transaction_id, pair.remote.address), nominates

    def rest(self, pair: Pair, heard_at: float, quiet_s: float) -> Rest | None:
        """Say what the checks on this pair are, if all are like the last one, which was answered the short way; keep
        nothing then that is said, or can be made again.
        """
        asked = self._packing.asked
        if asked is None or (asked[1] and not pair.remote_nominated) or self.transmits:
            return None
        nominations, self.nominations = self.nominations, b""
        self._packing.forget()
        return Rest(
            local=pair.base.candidate.address[0],
            remote=pair.remote.address,
            key=self._credentials.local_password.encode(),
            asked=asked[0],
            nominates=asked[1],
            nominations=nominations,
            heard_at=heard_at,
            quiet_s=quiet_s,
        )

    def _answer(self, base_id: int, transaction_id: bytes, source: Address) -> None:
        self.transmits.append(Transmit(base_id, source, self._packing.success(transaction_id, source)))

    def _nominates(self, pair: Pair, transaction_id: bytes, asked: bool) -> bool:
        """Whether a request with USE-CANDIDATE, or without, nominates the pair: once, and only if we are controlled."""
        if not asked or self.role.controlling or transaction_id in self.nominations:
            return False
        self.nominations = (self.nominations + transaction_id)[-MAX_NOMINATIONS * _ID_BYTES :]
        if not pair.remote_nominated:
            for other in self.list.pairs.values():
                other.remote_nominated = other is pair
        return True

    def _loses_role_conflict(self, request: stun.Message) -> bool:
        """Settle equal roles by the tie-breaker (RFC 8445 section 7.3.1.1); True: the sender has to switch."""
        name = "ICE-CONTROLLING" if self.role.controlling else "ICE-CONTROLLED"
        theirs = binding.attribute(request, name)
        if theirs is None:
            return False
        we_control = self.role.tie_breaker >= theirs
        if we_control == self.role.controlling:
            return True
        self._switch_role()
        return False

    def _switch_role(self) -> None:
        self._counters["role_switched"] += 1
        self.role = self.role._replace(controlling=not self.role.controlling)
        for pair in self.list.pairs.values():
            pair.check = None
            pair.remote_nominated = False
            if pair.state is PairState.IN_PROGRESS:
                pair.advance("doubted")

    # Our checks

    def trigger(self, pair: Pair, now: float) -> None:
        """Check at once where the peer's check came from (RFC 8445 section 7.3.1.4): its NAT is open now.

        It is another request than the one under way, so that its round trip is known; an answer to either counts.
        """
        check = pair.check
        if check is None:
            pair.advance("doubted")
            self.begin(pair, now)
        elif check.triggered_sends < MAX_TRIGGERED_SENDS:
            self.begin(pair, now, nominate=check.nominates)
            if pair.check is not None:
                pair.check.sends += check.sends
                pair.check.triggered_sends = check.triggered_sends + 1

    def begin(self, pair: Pair, now: float, *, nominate: bool = False) -> None:
        """Start a check, or a nomination, in place of what was under way on the pair."""
        transaction_id = os.urandom(12)
        payload = self._packing.request(transaction_id, self.role, nominate=nominate)
        pair.check = Check(transaction_id, payload, nominate, next_at=now)
        self._transmit(pair, pair.check, now)
        pair.advance("sent", now)

    def send_consent(self, pair: Pair, now: float, *, nominate: bool) -> None:
        """Send one consent check (RFC 7675): a request that is not repeated and whose silence fails nothing."""
        transaction_id = os.urandom(12)
        payload = self._packing.request(transaction_id, self.role, nominate=nominate)
        self._send(pair, transaction_id, payload, now, nominates=nominate)

    def poll_timeout(self) -> tuple[float, str] | None:
        """When there is something to forget, if nothing else is to be done before."""
        return self._transactions.poll_timeout()

    def tend(self, now: float) -> None:
        """Repeat what is due, give up what was repeated enough, forget what is too old to be answered."""
        self._transactions.expire(now)
        for pair in self.list.pairs.values():
            if pair.check is None or now < pair.check.next_at:
                continue
            if pair.check.sends < len(_intervals_of(pair.check)):
                self._transmit(pair, pair.check, now)
            else:
                pair.check = None
                pair.advance("unanswered")
                self.last_given_up_at = now

    def _transmit(self, pair: Pair, check: Check, now: float) -> None:
        intervals = _intervals_of(check)
        check.next_at = now + intervals[min(check.sends, len(intervals) - 1)]
        check.sends += 1
        self._send(pair, check.transaction_id, check.payload, now, nominates=check.nominates)

    def _send(self, pair: Pair, transaction_id: bytes, payload: bytes, now: float, *, nominates: bool) -> None:
        controlling = self.role.controlling
        self._transactions.add(transaction_id, pair, nominates=nominates, controlling=controlling, now=now)
        self.transmits.append(Transmit(pair.base.id, pair.remote.address, payload))

    # The peer's answers

    def take_response(self, base_id: int, response: stun.Message, source: Address, now: float) -> Answered | None:
        """Match an answer to what was asked. None: it proves nothing."""
        sent = self._transactions.peek(response.transaction_id)
        if sent is None:
            self._counters["response_unknown"] += 1
            return None
        if not response.check_message_integrity(self._credentials.remote_password.encode()):
            self._counters["response_unauthenticated"] += 1
            return None
        self._transactions.end(response.transaction_id)
        if response.message_class is stun.Class.ERROR:
            if self._is_listed(sent.pair):
                self._take_refusal(sent, response)
            return None
        return self._take_success(sent, base_id, source, binding.attribute(response, "XOR-MAPPED-ADDRESS"), now)

    def take_packed_response(self, base_id: int, datagram: bytes, source: Address, now: float) -> Answered | None:
        """Match an answer to what was asked, the short way. None: it has to go the long way."""
        sent = self._transactions.peek(datagram[8:20])
        found = self._packing.read_success(datagram) if sent is not None else None
        if sent is None or found is None:
            return None
        self._transactions.end(found[0])
        return self._take_success(sent, base_id, source, found[1], now)

    def _is_listed(self, pair: Pair) -> bool:
        if self.list.pairs.get((pair.base.id, pair.remote.address)) is pair:
            return True
        self._counters["response_late"] += 1
        return False

    def _take_refusal(self, sent: Sent, response: stun.Message) -> None:
        self._counters["check_refused"] += 1
        if response.error_code == binding.ROLE_CONFLICT[0]:
            if sent.controlling == self.role.controlling:
                self._switch_role()
            return
        sent.pair.check = None
        sent.pair.advance("refused")

    def _take_success(
        self, sent: Sent, base_id: int, source: Address, mapped: Address | None, now: float
    ) -> Answered | None:
        pair = sent.pair
        if not self._is_listed(pair):
            return None
        if (base_id, source) != (pair.base.id, pair.remote.address):
            # RFC 8445 section 7.2.5.2.1: only a path that is the same in both directions is one.
            self._counters["response_asymmetric"] += 1
            pair.check = None
            pair.advance("refused")
            return None
        pair.rtt_ms = sent.rtt_ms(now)
        if mapped is not None:
            pair.local_type = self.list.local_type(pair.base, mapped)
        if pair.check is not None and (sent.nominates or not pair.check.nominates):
            pair.check = None
        pair.advance("answered", now)
        return Answered(pair, sent.nominates)


def _intervals_of(check: Check) -> tuple[float, ...]:
    return NOMINATION_INTERVALS_S if check.nominates else CHECK_INTERVALS_S
