"""What the views of traces have in common: when a message waited, when it ran, who caused it, what to call its ends."""

from typing import NamedTuple

from exeunt.runtime.causes import Causes
from exeunt.runtime.trace import Span, Trace

from .printable import printable

UNWELL = frozenset({"failed", "refused", "dropped", "cancelled"})
"""Outcomes after which a sender may try again."""
STYLES = {"failed": "red", "dropped": "red", "refused": "yellow", "cancelled": "magenta", "pending": "yellow"}
"""How lines and bars show an outcome other than `ok`."""
ANSWERS = frozenset({"reply", "failure"})


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
    cause: Span | None
    """In whose handler it was sent; of an answer, the ask. None at the root."""
    attempt: int
    """2 where it is sent again after the first did not succeed: same sender's handler, recipient and message."""

    @property
    def is_answer(self) -> bool:
        """Whether it answers an ask: nobody handles it, it wakes who waits."""
        return self.span.kind in ANSWERS


def hops(trace: Trace) -> list[Hop]:
    """The trace's spans with their times, in the order in which they were sent."""
    causes = Causes(trace.spans)
    tries: dict[tuple[int, str, str, str], tuple[int, str]] = {}
    found: list[Hop] = []
    for span in sorted(trace.spans, key=lambda span: (span.first_ns, span.id)):
        key = (span.cause, span.from_, span.to, span.message)
        attempts, outcome = tries.get(key, (0, ""))
        attempt = attempts + 1 if span.cause and span.kind not in ANSWERS and outcome in UNWELL else 1
        tries[key] = (attempt, span.outcome)
        found.append(
            Hop(
                span,
                (span.first_ns - trace.started_ns) / 1e6,
                _between_ms(span.sent_ns, span.received_ns),
                _between_ms(span.received_ns, span.started_ns),
                _between_ms(span.started_ns, span.ended_ns),
                causes.of(span),
                attempt,
            )
        )
    return found


def answers(found: list[Hop]) -> dict[int, Hop]:
    """By the ask's id, the answers that can be shown as part of it: they arrived, and nothing follows from them."""
    causes = {hop.cause.id for hop in found if hop.cause is not None}
    folded: dict[int, Hop] = {}
    for hop in found:
        if hop.is_answer and hop.cause is not None and hop.span.outcome == "ok" and hop.span.id not in causes:
            folded.setdefault(hop.cause.id, hop)
    return folded


def title(hop: Hop) -> str:
    """The message, how many of it, and whether it was sent again."""
    count = f" ×{hop.span.count}" if hop.span.count > 1 else ""
    again = f" ↻{hop.attempt}" if hop.attempt > 1 else ""
    empty = hop.is_answer and hop.span.message == "None"  # a handler that had nothing to say, and is done
    return f"{'done' if empty else printable(hop.span.message)}{count}{again}"


def names(trace: Trace) -> dict[str, str]:
    """Each address's short name, in order of appearance: as many of its last parts as tell it from the others."""
    addresses: dict[str, None] = {}
    for hop in hops(trace):
        addresses.setdefault(hop.span.from_)
        addresses.setdefault(hop.span.to)
    return {address: _short(address, list(addresses)) for address in addresses}


def interval(duration_ms: float | None) -> str:
    """A duration in a column of durations: milliseconds below ten seconds, so that they compare at a glance."""
    if duration_ms is None:
        return "–"
    if duration_ms < 100:
        return f"{duration_ms:.2f} ms"
    return f"{duration_ms:.0f} ms" if duration_ms < 10_000 else f"{duration_ms / 1000:.1f} s"


def bare_name(address: str) -> str:
    """An address's last part, and the worker of one that each worker has; who is no actor stands outside."""
    worker, name = address.split("/")[-2:] if "/" in address else ("", address)
    return f"{worker}/{name}" if name == "host" else name.removeprefix("$") or "outside"


def _short(address: str, addresses: list[str]) -> str:
    parts = address.split("/")
    for length in range(1, len(parts) + 1):
        last = parts[-length:]
        if sum(other.split("/")[-length:] == last for other in addresses) == 1:
            return "/".join(last).removeprefix("$") or "outside"
    return address or "outside"


def _between_ms(begin_ns: int | None, end_ns: int | None) -> float | None:
    # Two processes stamped them from one clock, but a step of that clock may have come between.
    return None if begin_ns is None or end_ns is None else max(0.0, (end_ns - begin_ns) / 1e6)
