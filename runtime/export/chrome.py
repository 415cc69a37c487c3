"""Chrome's trace event format, one document for Perfetto, chrome://tracing and the Firefox Profiler.

What is where (the format has a name, "Trace Event Format", and no standard):

- `M` names processes (workers) and threads (actors).
- `X` is a slice: a handler that ran. On one thread slices nest, or Perfetto drops them; see `tracks`.
- `s` and `f` are the two ends of an arrow. Each binds to the slice around it (`bp: "e"`), and Perfetto draws the arrow
  from the end of the one slice to the beginning of the other. So a message that is sent has a slice of a nanosecond in
  the handler that sends it, and an answer has one where it arrives, in the handler that waits for it.
- `C` is a counter: how many messages wait in an actor's mailbox.
- `i` is an instant: a message that was dropped, an actor that was started again.

The Firefox Profiler takes `X` and `i` and skips the others, and shows of `args` only `args.data`; so details are always
there, and `firefox` leaves out what it would skip. Times are microseconds, as floating point numbers: counted from the
trace's beginning, so that nanoseconds survive. `otherData` says when that was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..causes import Causes
from ..trace import Span
from .tracks import Interval, Track, Tracks

Document = dict[str, Any]

_FIREFOX_PHASES = frozenset({"X", "B", "E", "b", "n", "e", "i", "I", "R", "M"})
_MOMENT_NS = 1  # the slice of what takes no time: it can't overlap anything in part
_ANSWERS = frozenset({"reply", "failure"})


def chrome(spans: Iterable[Span]) -> Document:
    """The document, to be written as JSON."""
    return _Drawing(list(spans)).document()


def firefox(spans: Iterable[Span]) -> Document:
    """The same, without what the Firefox Profiler would skip."""
    document = chrome(spans)
    events = [event for event in document["traceEvents"] if event["ph"] in _FIREFOX_PHASES]
    return {**document, "traceEvents": events}


class _Drawing:
    """All events of one document."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans
        self._causes = Causes(spans)
        self._start_ns = min((span.first_ns for span in spans), default=0)
        self._end_ns = max((span.last_ns for span in spans), default=0) + _MOMENT_NS
        self._tracks = Tracks()
        # Keys of slices: a span's place, twice; odd ones are for its sending, even ones for its handling or arrival.
        self._slices: dict[int, tuple[str, int, int]] = {}

    def document(self) -> Document:
        for number, span in enumerate(self._spans):
            self._add_slices(number, span)
        intervals = [Interval(actor, begin, end, key) for key, (actor, begin, end) in self._slices.items()]
        self._tracks.lay_out(intervals)
        events = [*self._handled(), *self._arrows(), *self._instants(), *self._depths()]
        # A slice before what binds to it, a parent before its children.
        events.sort(key=lambda event: (event["ts"], event["ph"] != "X", -event.get("dur", 0)))
        return {
            "traceEvents": [*self._names(), *events],
            "displayTimeUnit": "ms",
            "otherData": {"producer": "exeunt", "began_unix_ns": str(self._start_ns)},
        }

    def _add_slices(self, number: int, span: Span) -> None:
        if span.sent_ns is not None:
            self._slices[2 * number + 1] = (span.from_, span.sent_ns, span.sent_ns + _MOMENT_NS)
        if span.started_ns is not None:
            # What has not ended still runs where the record stops.
            end = self._end_ns if span.ended_ns is None else span.ended_ns
            self._slices[2 * number] = (span.to, span.started_ns, max(end, span.started_ns + _MOMENT_NS))
        elif span.kind in _ANSWERS and span.received_ns is not None:
            self._slices[2 * number] = (span.to, span.received_ns, span.received_ns + _MOMENT_NS)

    def _handled(self) -> Iterator[Document]:
        for key, (_, begin, end) in self._slices.items():
            track = self._tracks.place(key)
            assert track is not None
            span = self._spans[key // 2]
            sent = key % 2 == 1
            name = f"send {_title(span)}" if sent else _title(span)
            yield {
                **self._event("X", name, track, begin),
                "dur": (end - begin) / 1000,
                "cat": "send" if sent else span.kind,
                "args": {"data": _details(span)},
            }

    def _arrows(self) -> Iterator[Document]:
        for number, span in enumerate(self._spans):
            tail, head = self._slices.get(2 * number + 1), self._slices.get(2 * number)
            # An arrow has two ends or none, and after a step of the clock it would go back in time.
            if tail is None or head is None or head[1] < tail[1]:
                continue
            arrow = {"cat": "message", "id": number + 1, "bp": "e"}
            for phase, key, end in (("s", 2 * number + 1, tail), ("f", 2 * number, head)):
                track = self._tracks.place(key)
                assert track is not None
                yield {**self._event(phase, _title(span), track, end[1]), **arrow}

    def _instants(self) -> Iterator[Document]:
        for span in self._spans:
            if span.outcome in {"dropped", "cancelled"}:
                name, category = f"{span.outcome} {_title(span)}", span.outcome
            elif span.message == "StartActor" and span.outcome == "ok" and self._causes.of(span) is not None:
                name = category = "restart"  # the first start has no cause; this one follows from an ending
            else:
                continue
            event = self._event("i", name, self._tracks.of_actor(span.to), span.last_ns)
            yield {**event, "cat": category, "s": "t", "args": {"data": _details(span)}}

    def _depths(self) -> Iterator[Document]:
        changes: dict[str, list[tuple[int, int]]] = {}
        for span in self._spans:
            if span.received_ns is None or span.kind in _ANSWERS:
                continue
            left = span.started_ns if span.started_ns is not None else span.ended_ns
            changes.setdefault(span.to, []).append((span.received_ns, span.count))
            if left is not None:
                changes[span.to].append((max(left, span.received_ns), -span.count))
        for actor, steps in changes.items():
            track, depth = self._tracks.of_actor(actor), 0
            for at, change in sorted(steps, key=lambda step: (step[0], -step[1])):
                depth += change
                name = f"mailbox {actor.rpartition('/')[2]}"
                yield {**self._event("C", name, track, at), "args": {"waiting": depth}}

    def _names(self) -> Iterator[Document]:
        for order, (worker, process) in enumerate(self._tracks.processes):
            track = Track(process, 0)
            yield {**self._event("M", "process_name", track, self._start_ns), "args": {"name": worker}}
            yield {**self._event("M", "process_sort_index", track, self._start_ns), "args": {"sort_index": order}}
        for order, (name, track) in enumerate(self._tracks.threads):
            yield {**self._event("M", "thread_name", track, self._start_ns), "args": {"name": name}}
            yield {**self._event("M", "thread_sort_index", track, self._start_ns), "args": {"sort_index": order}}

    def _event(self, phase: str, name: str, track: Track, at_ns: int) -> Document:
        return {
            "ph": phase,
            "name": name,
            "pid": track.process,
            "tid": track.thread,
            "ts": (at_ns - self._start_ns) / 1000,
        }


def _title(span: Span) -> str:
    return span.message if span.count == 1 else f"{span.message} ×{span.count}"


def _details(span: Span) -> dict[str, Any]:
    """What a viewer shows of a span. Ids are text: 64 bits do not survive a JavaScript number."""
    return {
        "message": span.message,
        "kind": span.kind,
        "from": span.from_,
        "to": span.to,
        "outcome": span.outcome,
        "count": span.count,
        "queued_ms": _between_ms(span.received_ns, span.started_ns),
        "ran_ms": _between_ms(span.started_ns, span.ended_ns),
        "id": f"{span.id:016x}",
        "cause": f"{span.cause:016x}" if span.cause else None,
        "trace": f"{span.trace:016x}",
    }


def _between_ms(begin_ns: int | None, end_ns: int | None) -> float | None:
    return None if begin_ns is None or end_ns is None else (end_ns - begin_ns) / 1e6
