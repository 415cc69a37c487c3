"""Requests that still may be answered, by transaction id (RFC 8489 section 6.2).

An answer counts whenever it comes, also to a check that was given up or to a consent check sent seconds ago: a path
with a long round trip is slow, not dead. Entries are forgotten after `ANSWER_WINDOW_S`.
"""

from dataclasses import dataclass

from .check_list import Pair

ANSWER_WINDOW_S = 15.0
FORGET_AFTER_S = ANSWER_WINDOW_S + 1.0
"""When it is looked for what to forget, if nothing else happens: who only answers would keep its last checks, 3 kB."""
FORGETTING = "late answers"
"""Why; it may be done up to a second early."""
MAX_OUTSTANDING = 512
"""More than 100 pairs with a check and a nomination each, and 15 s of consent checks at 0.5 s, can use."""


@dataclass(slots=True)
class Sent:
    """One request: where it went and in which role, which its answer must fit."""

    pair: Pair
    nominates: bool
    controlling: bool
    first_sent_at: float
    last_sent_at: float
    sends: int = 1

    def rtt_ms(self, now: float) -> float:
        """Round trip in ms. After a retransmission it is unknown which one was answered (Karn): the longest, then."""
        return (now - self.first_sent_at) * 1000


class Transactions:
    """The outstanding requests of one session."""

    def __init__(self) -> None:
        self._sent: dict[bytes, Sent] = {}
        """The oldest first; an empty OrderedDict has 1,000 bytes."""

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, transaction_id: bytes, pair: Pair, *, nominates: bool, controlling: bool, now: float) -> None:
        """Remember a request, or that it was sent again."""
        known = self._sent.get(transaction_id)
        if known is not None:
            known.sends += 1
            known.last_sent_at = now
            return
        if len(self._sent) >= MAX_OUTSTANDING:
            del self._sent[next(iter(self._sent))]
        self._sent[transaction_id] = Sent(pair, nominates, controlling, now, now)

    def peek(self, transaction_id: bytes) -> Sent | None:
        """Look at a request without ending it: the response may turn out to be forged."""
        return self._sent.get(transaction_id)

    def end(self, transaction_id: bytes) -> None:
        """Forget a request that was answered."""
        self._sent.pop(transaction_id, None)

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        while self._sent:
            transaction_id, oldest = next(iter(self._sent.items()))
            if now - oldest.first_sent_at <= ANSWER_WINDOW_S:
                return
            del self._sent[transaction_id]
        self._sent = {}  # a dict does not shrink

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return when to call `expire`, and why; None: nothing is outstanding."""
        oldest = next(iter(self._sent.values()), None)
        return None if oldest is None else (oldest.first_sent_at + FORGET_AFTER_S, FORGETTING)
