"""Which span a message belongs to: what joins effects to their cause.

Mostly a span is one message, and this a table. But a burst of equal messages is one span with many ids, any of which
may be named as a cause, so an id that has no span of its own is looked for among the bursts that begin before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .trace import Span


class Causes:
    """The spans of one or many traces, by the ids of their messages."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = {span.id: span for span in spans}
        self._bursts = sorted(span.id for span in self._spans.values() if span.count > 1)

    def span_of(self, message_id: int) -> Span | None:
        """The span that this message is part of; None if its record was overwritten, or for 0."""
        found = self._spans.get(message_id)
        if found is not None or not self._bursts:
            return found
        place = bisect_right(self._bursts, message_id) - 1
        if place < 0:
            return None
        burst = self._spans[self._bursts[place]]
        return burst if message_id - burst.id < burst.count else None

    def of(self, span: Span) -> Span | None:
        """The span whose handler sent this one; None at the root, where it was overwritten, or names itself."""
        cause = self.span_of(span.cause)
        return cause if cause is not span else None
