"""JSON Lines: a span a line, in order of time, for jq and data frames.

The names are those of `exeunt trace show --json` (`exeunt.trace/1`), with the trace beside them; ids are text, because
64 bits do not survive a JavaScript number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from ..trace import Span


def jsonl(spans: Iterable[Span]) -> Iterator[str]:
    """The lines, without their ends."""
    for span in spans:
        yield msgspec.json.encode(
            {
                "trace": f"{span.trace:016x}",
                "id": f"{span.id:016x}",
                "cause": f"{span.cause:016x}" if span.cause else None,
                "from": span.from_,
                "to": span.to,
                "message": span.message,
                "kind": span.kind,
                "worker": span.worker,
                "sent_ns": span.sent_ns,
                "received_ns": span.received_ns,
                "started_ns": span.started_ns,
                "ended_ns": span.ended_ns,
                "outcome": span.outcome,
                "count": span.count,
            }
        ).decode()
