"""What each actor handled last, and whether it finished: read from the rings of workers, living and dead.

A worker that was killed with SIGKILL leaves its ring, because the kernel keeps mapped pages. A message that was started
and has no end is the one in whose handler its actor was when the worker died, or is now if it lives. Each life of a
worker has its own ring, so an actor that was started again in another process is listed once for each.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .liveness import is_alive
from .recorder import Event, Ring
from .trace import Span, read_rings, spans_of

ANSWERS = frozenset({"reply", "failure"})


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
    return of_rings(
        [(ring, is_alive(ring.pid, wrote_ns=_last_ns(ring))) for ring in read_rings(directory, instance=instance)]
    )


def of_rings(rings: Sequence[tuple[Ring, bool]]) -> list[LastHandled]:
    """What each actor of these rings handled last; beside each ring stands whether its worker lives."""
    waiting = _Waiting(rings)
    found: list[LastHandled] = []
    for ring, alive in rings:
        latest: dict[str, Span] = {}
        for span in spans_of([(ring.worker, ring.records)]):
            if span.started_ns is not None and span.started_ns >= _started_ns(latest.get(span.to)):
                latest[span.to] = span
        found += [
            LastHandled(span, ring.worker, ring.pid, alive, waiting.of(address, ring))
            for address, span in latest.items()
        ]
    return sorted(found, key=lambda one: _started_ns(one.span), reverse=True)


class _Waiting:
    """How many messages each actor had not begun to handle: those that somebody sent and whose handling nobody
    recorded. Each counts for the life of the actor's worker in which it was sent.
    """

    def __init__(self, rings: Sequence[tuple[Ring, bool]]) -> None:
        self._lives: dict[str, list[int]] = {}
        for ring, _ in rings:
            for worker in {record.to.rpartition("/")[0] for record in ring.records if record.event != Event.SENT}:
                self._lives.setdefault(worker, []).append(_first_ns(ring))
        for begins in self._lives.values():
            begins.sort()
        self._counts: dict[tuple[str, int], int] = {}
        for span in spans_of((ring.worker, ring.records) for ring, _ in rings):
            handled = span.started_ns is not None or span.kind in ANSWERS
            if span.outcome == "pending" and span.sent_ns is not None and not handled:
                key = (span.to, self._life(span.to, span.sent_ns))
                self._counts[key] = self._counts.get(key, 0) + span.count

    def of(self, address: str, ring: Ring) -> int:
        return self._counts.get((address, _first_ns(ring)), 0)

    def _life(self, address: str, at_ns: int) -> int:
        """When the life of the actor's worker began in which this was."""
        begins = self._lives.get(address.rpartition("/")[0], [0])
        return begins[max(0, bisect.bisect_right(begins, at_ns) - 1)]


def _started_ns(span: Span | None) -> int:
    return (span.started_ns or 0) if span is not None else 0


def _first_ns(ring: Ring) -> int:
    return min((record.at_ns for record in ring.records), default=0)


def _last_ns(ring: Ring) -> int:
    return max((record.at_ns for record in ring.records), default=0)
