"""Traces: what happened because of what, read back from the flight recorders of all workers, living and dead.

A *span* is one message: sent, received, handled. A *trace* is all that followed from one first message. Sender and
recipient write into different rings; the envelope's id joins their records.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from .causes import Causes
from .envelope import Kind
from .recorder import Event, Record, Ring, RingUnreadable, read_ring


class Span(msgspec.Struct, frozen=True):
    """One message's way. Times are CLOCK_REALTIME nanoseconds; None where it was not seen."""

    id: int
    cause: int
    trace: int
    from_: str
    to: str
    message: str
    kind: str
    """`tell`, `ask`, `reply`, `failure`, `system`."""
    worker: str
    """Who handled it, or sent it if nobody did."""
    sent_ns: int | None = None
    received_ns: int | None = None
    started_ns: int | None = None
    ended_ns: int | None = None
    outcome: str = "pending"
    """`ok`, `failed`, `refused`, `dropped`, `cancelled`, `pending` (still waiting or running, or its worker died)."""
    count: int = 1
    """A burst of equal messages, sent and handled back to back, is one span: its messages are id … id + count - 1,
    and any of them may be the cause of another span.
    """

    @property
    def first_ns(self) -> int:
        """The earliest time known."""
        return min((at for at in (self.sent_ns, self.received_ns, self.started_ns) if at is not None), default=0)

    @property
    def last_ns(self) -> int:
        """The latest time known."""
        times = (self.sent_ns, self.received_ns, self.started_ns, self.ended_ns)
        return max((at for at in times if at is not None), default=0)


_WORST_FIRST = ("failed", "dropped", "pending", "cancelled", "refused")


class Trace(msgspec.Struct, frozen=True):
    """All that followed from one message."""

    id: int
    spans: list[Span]
    """In order of time."""

    @property
    def root(self) -> Span:
        """The message that began it; the earliest one known, where that was overwritten."""
        return next((span for span in self.spans if 0 <= self.id - span.id < span.count), self.spans[0])

    @property
    def messages(self) -> int:
        """How many messages it has; a burst's are all counted."""
        return sum(span.count for span in self.spans)

    @property
    def started_ns(self) -> int:
        """When it began."""
        return min(span.first_ns for span in self.spans)

    @property
    def duration_ns(self) -> int:
        """From its first to its last known time."""
        return max(span.last_ns for span in self.spans) - self.started_ns

    @property
    def outcome(self) -> str:
        """The worst of its spans': `failed`, `dropped`, `pending`, `cancelled`, `refused`, or `ok`."""
        outcomes = {span.outcome for span in self.spans}
        return next((word for word in _WORST_FIRST if word in outcomes), "ok")


_OUTCOMES = {Event.ENDED: "ok", Event.FAILED: "failed", Event.DROPPED: "dropped", Event.REFUSED: "refused"}
_TIMES = {Event.SENT: "sent_ns", Event.RECEIVED: "received_ns", Event.STARTED: "started_ns"}


def spans_of(rings: Iterable[tuple[str, list[Record]]]) -> list[Span]:
    """Join the records of several workers into spans, in order of time."""
    found: dict[int, dict[str, object]] = {}
    for worker, records in rings:
        for record in records:
            _merge(found, worker, record)
    spans = [msgspec.convert(fields, Span) for fields in found.values()]
    return sorted(spans, key=lambda span: span.first_ns)


def _merge(found: dict[int, dict[str, object]], worker: str, record: Record) -> None:
    fields = found.get(record.id)
    if fields is None:
        fields = found[record.id] = {
            "id": record.id,
            "cause": record.cause,
            "trace": record.trace,
            "from_": record.sender,
            "to": record.to,
            "message": record.message,
            "kind": Kind(record.kind).name.lower() if record.kind in set(Kind) else "?",
            "worker": worker,
        }
    event = Event(record.event) if record.event in set(Event) else None
    if event is not None and event in _TIMES:
        fields[_TIMES[event]] = record.at_ns
    elif event is not None:
        fields["ended_ns"] = record.at_ns
        fields["outcome"] = _OUTCOMES[event]
    if event is not Event.SENT:
        fields["worker"] = worker
    if event is Event.RECEIVED and record.kind in (Kind.REPLY, Kind.FAILURE):
        fields["outcome"] = "ok"  # an answer is not handled: it wakes its asker


def load(directory: Path, *, instance: str | None = None) -> list[Span]:
    """Read every ring below `directory` (of one instance, if named). Files that can't be read are passed over.

    Rings are read one after another. What was recorded meanwhile is left out: it would be in some of them and not in
    others, and make messages look lost that were only handled later.
    """
    begun_ns = time.time_ns()
    rings = [(ring.worker, ring.records) for ring in read_rings(directory, instance=instance)]
    return as_of(begun_ns, time.time_ns(), spans_of(rings))


def as_of(begun_ns: int, ended_ns: int, spans: Iterable[Span]) -> list[Span]:
    """The spans as they were at `begun_ns`, without what came then and until `ended_ns`."""

    def clipped(at_ns: int | None) -> int | None:
        return None if at_ns is not None and begun_ns < at_ns <= ended_ns else at_ns

    found: list[Span] = []
    for span in spans:
        # What lies after both was recorded before the clock was set back: it stays.
        if not begun_ns < span.last_ns <= ended_ns:
            found.append(span)
        elif span.first_ns <= begun_ns:  # else it is all new
            times = {name: clipped(getattr(span, name)) for name in _TIMES.values()}
            ended = clipped(span.ended_ns)
            found.append(msgspec.structs.replace(span, **times, ended_ns=ended, outcome="pending"))
    return found


def read_rings(directory: Path, *, instance: str | None = None) -> Iterator[Ring]:
    """The rings below `directory` (of one instance, if named), those that can be read."""
    for path in ring_files(directory, instance=instance):
        with contextlib.suppress(OSError, RingUnreadable):
            yield read_ring(path)


def ring_files(directory: Path, *, instance: str | None = None) -> list[Path]:
    """The rings' files below `directory` (of one instance, if named), by name."""
    return sorted(directory.glob(f"{instance or '*'}.*.ring"))


def group(spans: Iterable[Span]) -> list[Trace]:
    """Group spans by trace, newest trace last."""
    spans = list(spans)
    causes = Causes(spans)
    by_trace: dict[int, list[Span]] = {}
    for span in spans:
        # What a later message of a burst began is part of the trace that the burst's first one began.
        root = causes.span_of(span.trace)
        by_trace.setdefault(root.trace if root is not None else span.trace, []).append(span)
    traces = [Trace(id_, members) for id_, members in by_trace.items()]
    return sorted(traces, key=lambda trace: trace.started_ns)
