"""Traces: what happened because of what, read back from the flight recorders of all workers, living and dead.

A *span* is one message: sent, received, handled. A *trace* is all that followed from one first message. Sender and
recipient write into different rings; the envelope's id joins their records.
"""

from __future__ import annotations

import bisect
import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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
    """`ok`, `failed`, `refused`, `dropped`, `cancelled` (nobody waited any more), `pending` (still waiting or running,
    or its worker died).
    """
    count: int = 1
    """How many messages this stands for, ids upwards from `id`: equal ones that were sent or handled back to back. Any
    of them may be the cause of another span.
    """

    @property
    def first_ns(self) -> int:
        """The earliest time known."""
        times = (self.sent_ns, self.received_ns, self.started_ns, self.ended_ns)
        return min((at for at in times if at is not None), default=0)  # of a dead letter the end may be all there is

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


_OUTCOMES = {
    Event.ENDED: "ok",
    Event.FAILED: "failed",
    Event.DROPPED: "dropped",
    Event.REFUSED: "refused",
    Event.CANCELLED: "cancelled",
}
_ANSWERS = (Kind.REPLY, Kind.FAILURE)
_TIMES = ("sent_ns", "received_ns", "started_ns", "ended_ns")


def spans_of(rings: Iterable[tuple[str, list[Record]]]) -> list[Span]:
    """Join the records of several workers into spans, in order of time.

    What was sent as one run may have been handled in several records, and each of those is a span then: it takes over
    what the run's record says of the way there.
    """
    sent: list[tuple[str, Record]] = []
    other: list[tuple[str, Record]] = []
    for worker, records in rings:
        for record in records:
            (sent if record.event == Event.SENT else other).append((worker, record))
    found: dict[int, dict[str, Any]] = {}
    for worker, record in other:
        _merge(found, worker, record)
    _add_sent(found, sent)
    _add_answers(found)
    spans = [msgspec.convert(fields, Span) for fields in found.values()]
    return sorted(spans, key=lambda span: span.first_ns)


def _fields(worker: str, record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "cause": record.cause,
        "trace": record.trace,
        "from_": record.sender,
        "to": record.to,
        "message": record.message,
        "kind": Kind(record.kind).name.lower() if record.kind in set(Kind) else "?",
        "worker": worker,
        "count": record.count,
    }


def _merge(found: dict[int, dict[str, Any]], worker: str, record: Record) -> None:
    """Add what a worker recorded of a message that came to it."""
    event = Event(record.event) if record.event in set(Event) else None
    if event is None:
        return
    fields = found.get(record.id)
    if fields is None:
        fields = found[record.id] = _fields(worker, record)
    fields["worker"] = worker
    fields["count"] = max(fields["count"], record.count)
    if event is Event.RECEIVED:
        fields["received_ns"] = record.at_ns
        if record.kind in _ANSWERS:
            fields["outcome"] = "ok"  # an answer is not handled: it wakes its asker
        return
    if event in _OUTCOMES:
        fields["outcome"] = _OUTCOMES[event]
    if event in (Event.DROPPED, Event.CANCELLED) and not record.ran_ns:
        fields["ended_ns"] = record.at_ns
        return
    if not fields.get("received_ns"):
        fields["received_ns"] = record.at_ns - record.waited_ns
    fields["started_ns"] = record.at_ns
    if event is not Event.STARTED:
        fields["ended_ns"] = record.at_ns + record.ran_ns


def _add_sent(found: dict[int, dict[str, Any]], sent: list[tuple[str, Record]]) -> None:
    """Say of each span when it was sent, and make spans of what nobody has received."""
    firsts = sorted(found)
    for worker, record in sent:
        at = bisect.bisect_left(firsts, record.id)
        end, next_id = record.id + record.count, record.id
        while at < len(firsts) and firsts[at] < end:
            fields = found[firsts[at]]
            fields["sent_ns"] = record.at_ns
            if next_id < firsts[at]:
                _never_received(found, worker, record, next_id, firsts[at] - next_id)
            next_id = firsts[at] + fields["count"]
            at += 1
        if next_id < end:
            _never_received(found, worker, record, next_id, end - next_id)


def _never_received(found: dict[int, dict[str, Any]], worker: str, record: Record, first: int, count: int) -> None:
    trace = first if record.trace == record.id else record.trace
    fields = _fields(worker, record)
    fields.update(id=first, count=count, trace=trace, sent_ns=record.at_ns)
    found[first] = fields


def _add_answers(found: dict[int, dict[str, Any]]) -> None:
    """An answer left when the handler of its ask ended, or when it was given later: then nobody recorded it."""
    for fields in found.values():
        if fields["kind"] in ("reply", "failure") and "sent_ns" not in fields and "received_ns" in fields:
            ask = found.get(fields["cause"], {})
            ended_ns = ask.get("ended_ns")
            if ended_ns is not None and ask["outcome"] != "dropped" and ended_ns <= fields["received_ns"]:
                fields["sent_ns"] = ended_ns


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
            times = {name: clipped(getattr(span, name)) for name in _TIMES}
            found.append(msgspec.structs.replace(span, **times, outcome="pending"))
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
