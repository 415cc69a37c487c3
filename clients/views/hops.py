"""What the four views of a trace have in common: when a message waited, when it ran, what to call its ends."""

from typing import NamedTuple

from exeunt.runtime.trace import Span, Trace


class Hop(NamedTuple):
    """A span's times, relative to its trace's beginning. None where it was not seen."""

    span: Span
    at_ms: float
    """When it was sent, or first seen."""
    travelled_ms: float | None
    """From being sent to being in the recipient's mailbox."""
    queued_ms: float | None
    """From the mailbox to its handler."""
    ran_ms: float | None
    """In its handler."""


def hops(trace: Trace) -> list[Hop]:
    """The trace's spans with their times, in the order in which they were sent."""
    return [
        Hop(
            span,
            (span.first_ns - trace.started_ns) / 1e6,
            _between_ms(span.sent_ns, span.received_ns),
            _between_ms(span.received_ns, span.started_ns),
            _between_ms(span.started_ns, span.ended_ns),
        )
        for span in sorted(trace.spans, key=lambda span: (span.first_ns, span.id))
    ]


def names(trace: Trace) -> dict[str, str]:
    """Each address's short name, in order of appearance: as many of its last parts as tell it from the others."""
    addresses: dict[str, None] = {}
    for hop in hops(trace):
        addresses.setdefault(hop.span.from_)
        addresses.setdefault(hop.span.to)
    found: dict[str, str] = {}
    for address in addresses:
        parts = address.split("/")
        short = [other.split("/")[-1] for other in addresses]
        unique = short.count(parts[-1]) == 1
        found[address] = (parts[-1] if unique else address) or "outside"
    return found


def interval(duration_ms: float | None) -> str:
    """A duration in a column of durations: always milliseconds, so that they compare at a glance."""
    if duration_ms is None:
        return "–"
    return f"{duration_ms:.2f} ms" if duration_ms < 100 else f"{duration_ms:.0f} ms"


def _between_ms(begin_ns: int | None, end_ns: int | None) -> float | None:
    # Two processes stamped them from one clock, but a step of that clock may have come between.
    return None if begin_ns is None or end_ns is None else max(0.0, (end_ns - begin_ns) / 1e6)
