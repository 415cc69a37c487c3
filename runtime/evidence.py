"""What the flight recorder of one worker says of its actors: what they handled last, what they are handling.

Only the newest ring of the worker is read; `trace` joins all of them.
"""

from __future__ import annotations

from pathlib import Path

from .recorder import RingUnreadable, read_ring
from .trace import Span, spans_of

_ANSWERS = frozenset({"reply", "failure"})  # not handled: they wake who asked


def spans_at(directory: Path, node: str, worker: str) -> list[Span]:
    """Return what the newest ring of a worker has of messages to its own actors, in order of time; nothing if it
    can't be read. Takes a fifth of a second for a full ring: use a thread.
    """
    rings = [path for path in directory.glob(f"{node}.{worker}.*.ring") if path.suffixes[-2][1:].isdigit()]
    if not rings:
        return []
    newest = max(rings, key=lambda path: int(path.suffixes[-2][1:]))
    try:
        ring = read_ring(newest)
    except (OSError, RingUnreadable):
        return []
    here = f"{node}/{worker}/"
    return [
        span
        for span in spans_of([(worker, ring.records)])
        if span.to.startswith(here) and span.kind not in _ANSWERS and span.received_ns is not None
    ]


def under_way(spans: list[Span]) -> list[Span]:
    """Return those that were begun and have not ended, the latest of each actor."""
    latest = {span.to: span for span in spans if span.started_ns is not None and span.ended_ns is None}
    return list(latest.values())


def of_actor(spans: list[Span], address: str) -> list[Span]:
    """Return those to one actor."""
    return [span for span in spans if span.to == address]


def handled_per_s(spans: list[Span], now_ns: int, window_s: float) -> tuple[float, float]:
    """Return how many of these were begun each second of the last `window_s`, and over how long that was counted:
    shorter where the ring does not reach back so far.
    """
    started = [span.started_ns for span in spans if span.started_ns is not None]
    if not started:
        return 0.0, window_s
    # Overwritten records are as good as unknown: count only from where the ring begins.
    since_ns = max(now_ns - int(window_s * 1e9), min(started))
    over_s = (now_ns - since_ns) / 1e9
    counted = sum(span.count for span in spans if (span.started_ns or 0) >= since_ns)
    return (counted / over_s if over_s > 0 else 0.0), over_s
