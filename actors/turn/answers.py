"""Answers that were given lately, so that a request which the network repeated is answered the same.

A client that lost our answer sends its request again, byte for byte (RFC 8489 section 6.3.1). To do the work
twice would answer an Allocate with 437 (it exists already) and a Refresh of 0 with 437 (it is gone already).
"""

from collections import OrderedDict

from .codec import Address
from .settings import ANSWERS_KEPT_S

MAX_ANSWERS = 4096
MAX_REQUEST_BYTES = 1500  # whatever is longer is done again rather than kept


class RecentAnswers:
    """The last answers, by who asked and what was asked. Only authentic requests are worth a place here."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[Address, bytes], tuple[float, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def recall(self, source: Address, request: bytes, now: float) -> bytes | None:
        """Answer what these very bytes were answered with within the last 40 s."""
        kept = self._answers.get((source, request))
        return kept[1] if kept is not None and kept[0] > now else None

    def keep(self, source: Address, request: bytes, answer: bytes, now: float) -> None:
        """Remember an answer; the oldest goes when there are too many."""
        if len(request) > MAX_REQUEST_BYTES:
            return
        self._answers[source, request] = (now + ANSWERS_KEPT_S, answer)
        while self._answers:
            expires_at, _ = next(iter(self._answers.values()))
            if expires_at > now and len(self._answers) <= MAX_ANSWERS:
                return
            self._answers.popitem(last=False)
