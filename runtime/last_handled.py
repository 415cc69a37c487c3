"""What each actor handled last, and whether it finished: read from the rings of workers, living and dead.

A worker that was killed with SIGKILL leaves its ring, because the kernel keeps mapped pages. A message that was started
and has no end is the one in whose handler its actor was when the worker died, or is now if it lives. Each life of a
worker has its own ring, so an actor that was started again in another process is listed once for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from .liveness import is_alive
from .recorder import Ring
from .trace import Span, read_rings, spans_of


class LastHandled(msgspec.Struct, frozen=True):
    """The last message that an actor began to handle in one life of its worker."""

    span: Span
    worker: str
    pid: int
    alive: bool
    """Whether the worker's process still runs."""
    waiting: int
    """Messages that were in its mailbox and that it had not begun to handle."""

    @property
    def interrupted(self) -> bool:
        """Whether its worker died while it was handling this."""
        return not self.alive and self.span.outcome == "pending"


def last_handled(directory: Path, *, instance: str | None = None) -> list[LastHandled]:
    """What each actor below `directory` (of one instance, if named) handled last, the latest first."""
    found = [
        one
        for ring in read_rings(directory, instance=instance)
        for one in of_ring(ring, alive=is_alive(ring.pid, wrote_ns=_latest_ns(ring)))
    ]
    return sorted(found, key=lambda one: one.span.started_ns or 0, reverse=True)


def of_ring(ring: Ring, *, alive: bool) -> list[LastHandled]:
    """What each actor of one ring handled last."""
    spans = spans_of([(ring.worker, ring.records)])
    latest: dict[str, Span] = {}
    for span in spans:
        if span.started_ns is not None and span.started_ns >= _started_ns(latest.get(span.to)):
            latest[span.to] = span
    waiting = _waiting(spans)
    return [
        LastHandled(span, ring.worker, ring.pid, alive, waiting.get(address, 0)) for address, span in latest.items()
    ]


def _waiting(spans: Iterable[Span]) -> dict[str, int]:
    found: dict[str, int] = {}
    for span in spans:
        if span.received_ns is not None and span.started_ns is None and span.outcome == "pending":
            found[span.to] = found.get(span.to, 0) + span.count
    return found


def _started_ns(span: Span | None) -> int:
    return span.started_ns or 0 if span is not None else 0


def _latest_ns(ring: Ring) -> int:
    return max((record.at_ns for record in ring.records), default=0)
