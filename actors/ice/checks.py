"""Connectivity checks: asking, answering, and what an answer proves (RFC 8445 section 7).

This is the part of a session that talks STUN. It knows pairs and roles; it decides nothing about which pair to use.
What it learns it returns: the pair that a check of the peer came in on, the pair that an answer proved.
"""

from collections import Counter, deque
from typing import NamedTuple

from aioice import stun

from . import binding
from .agent import Address, Credentials
from .check_list import CHECK_INTERVALS_S, MAX_TRIGGERED_SENDS, Check, CheckList, Pair, PairState
from .messages import Transmit
from .transactions import Sent, Transactions


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

    def __init__(self, role: binding.Role, credentials: Credentials, counters: Counter[str]) -> None:
        self.role = role
        self.list = CheckList()
        self.transmits: deque[Transmit] = deque()
        self._credentials = credentials
        self._counters = counters
        self._transactions = Transactions()

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
        answer = binding.success(request, source, self._credentials)
        self.transmits.append(Transmit(base_id, source, answer))
        pair = self.list.learn(base_id, source, binding.attribute(request, "PRIORITY"))
        if pair is None:
            self._counters["remote_candidate_over_limit"] += 1
            return None
        nominated = "USE-CANDIDATE" in request.attributes and not self.role.controlling
        if nominated:
            for other in self.list.pairs.values():
                other.remote_nominated = other is pair
        return Asked(pair, nominated)

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
        """Check at once where the peer's check came from (RFC 8445 section 7.3.1.4): its NAT is open now."""
        if pair.check is None:
            pair.advance("doubted")
            self.begin(pair, now)
        elif pair.check.triggered_sends < MAX_TRIGGERED_SENDS:
            pair.check.triggered_sends += 1
            self._transmit(pair, pair.check, now)

    def begin(self, pair: Pair, now: float, *, nominate: bool = False) -> None:
        """Start a check, or a nomination, in place of what was under way on the pair."""
        request = binding.check_request(self._credentials, self.role, nominate=nominate)
        pair.check = Check(request.transaction_id, bytes(request), nominate, next_at=now)
        self._transmit(pair, pair.check, now)
        pair.advance("sent", now)

    def send_consent(self, pair: Pair, now: float, *, nominate: bool) -> None:
        """Send one consent check (RFC 7675): a request that is not repeated and whose silence fails nothing."""
        request = binding.check_request(self._credentials, self.role, nominate=nominate)
        self._send(pair, request.transaction_id, bytes(request), now, nominates=nominate)

    def tend(self, now: float) -> None:
        """Repeat what is due, give up what was repeated enough, forget what is too old to be answered."""
        self._transactions.expire(now)
        for pair in self.list.pairs.values():
            if pair.check is None or now < pair.check.next_at:
                continue
            if pair.check.sends < len(CHECK_INTERVALS_S):
                self._transmit(pair, pair.check, now)
            else:
                pair.check = None
                pair.advance("unanswered")

    def _transmit(self, pair: Pair, check: Check, now: float) -> None:
        check.next_at = now + CHECK_INTERVALS_S[min(check.sends, len(CHECK_INTERVALS_S) - 1)]
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
        pair = sent.pair
        if self.list.pairs.get((pair.base.id, pair.remote.address)) is not pair:
            self._counters["response_late"] += 1
            return None
        if response.message_class is stun.Class.ERROR:
            self._take_refusal(sent, response)
            return None
        if (base_id, source) != (pair.base.id, pair.remote.address):
            # RFC 8445 section 7.2.5.2.1: only a path that is the same in both directions is one.
            self._counters["response_asymmetric"] += 1
            pair.check = None
            pair.advance("refused")
            return None
        self._take_success(sent, binding.attribute(response, "XOR-MAPPED-ADDRESS"), now)
        return Answered(pair, sent.nominates)

    def _take_refusal(self, sent: Sent, response: stun.Message) -> None:
        self._counters["check_refused"] += 1
        if response.error_code == binding.ROLE_CONFLICT[0]:
            if sent.controlling == self.role.controlling:
                self._switch_role()
            return
        sent.pair.check = None
        sent.pair.advance("refused")

    def _take_success(self, sent: Sent, mapped: Address | None, now: float) -> None:
        pair = sent.pair
        pair.rtt_ms = sent.rtt_ms(now)
        if mapped is not None:
            pair.local_type = self.list.local_type(pair.base, mapped)
        if pair.check is not None and (sent.nominates or not pair.check.nominates):
            pair.check = None
        pair.advance("answered", now)
