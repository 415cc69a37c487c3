"""OpenTelemetry: an `ExportTraceServiceRequest` as OTLP/HTTP takes it in JSON (POST it to a collector's `/v1/traces`).

A message becomes two spans, as OpenTelemetry's conventions for messaging have it: a PRODUCER, in the sender's
resource, from being sent to being in the recipient's mailbox; and below it a CONSUMER, in the recipient's, while its
handler ran. A handler's CONSUMER is the parent of what the handler sent. An answer is a message too, and is linked to
the ask that it answers.

Ids are hexadecimal, times are text (64 bits do not survive a JavaScript number). Our trace ids have 64 bits; the other
64 are zeros in front, as is the custom. The CONSUMER keeps the message's id; the PRODUCER's is derived from it.

Status: `failed` and `dropped` are errors, `ok` is ok. A refusal is an answer, and what is pending or was cancelled is
nobody's error: these stay unset, and `exeunt.outcome` says which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from ..causes import Causes
from ..trace import Span

Document = dict[str, Any]

PRODUCER, CONSUMER = 4, 5
UNSET, OK, ERROR = 0, 1, 2

_STATUS = {"ok": OK, "failed": ERROR, "dropped": ERROR}
_ANSWERS = frozenset({"reply", "failure"})


def otlp(spans: Iterable[Span]) -> Document:
    """The request, to be written as JSON: a resource for each worker."""
    spans = list(spans)
    causes = Causes(spans)
    by_worker: dict[str, list[Document]] = {}
    for span in spans:
        if span.sent_ns is not None:
            by_worker.setdefault(_worker(span.from_), []).append(_producer(span, causes))
        if span.received_ns is not None or span.started_ns is not None:
            by_worker.setdefault(_worker(span.to), []).append(_consumer(span, causes))
    return {"resourceSpans": [_resource(worker, found) for worker, found in by_worker.items()]}


def _resource(worker: str, spans: list[Document]) -> Document:
    attributes = {"service.name": worker.partition("/")[0] or "outside", "service.instance.id": worker or "outside"}
    return {
        "resource": {"attributes": _attributes(attributes)},
        "scopeSpans": [{"scope": {"name": "exeunt.runtime"}, "spans": spans}],
    }


def _producer(span: Span, causes: Causes) -> Document:
    assert span.sent_ns is not None
    parent = causes.of(span)
    arrived = span.received_ns is not None or span.started_ns is not None
    end_ns = max(span.sent_ns, span.received_ns or span.sent_ns)
    made = _span(span, PRODUCER, f"send {span.message}", (span.sent_ns, end_ns), causes)
    made["spanId"] = _producer_id(span)
    # A cause of which only the sending was recorded has no CONSUMER; then its PRODUCER is what there is.
    made["parentSpanId"] = "" if parent is None else _known_id(parent)
    made["status"] = {"code": OK if arrived else _STATUS.get(span.outcome, UNSET)}
    return made


def _consumer(span: Span, causes: Causes) -> Document:
    begin_ns = span.started_ns if span.started_ns is not None else span.received_ns
    assert begin_ns is not None
    ended_ns = span.ended_ns if span.ended_ns is not None else begin_ns
    made = _span(span, CONSUMER, f"handle {span.message}", (begin_ns, max(begin_ns, ended_ns)), causes)
    parent = causes.of(span)
    made["spanId"] = _hex(span.id)
    if span.sent_ns is not None:
        made["parentSpanId"] = _producer_id(span)
    else:
        made["parentSpanId"] = "" if parent is None else _known_id(parent)
    made["status"] = {"code": _STATUS.get(span.outcome, UNSET)}
    return made


def _span(span: Span, kind: int, name: str, times_ns: tuple[int, int], causes: Causes) -> Document:
    attributes: dict[str, str | int] = {
        "messaging.system": "exeunt",
        "messaging.message.id": _hex(span.id),
        "messaging.destination.name": span.to,
        "exeunt.from": span.from_,
        "exeunt.kind": span.kind,
        "exeunt.outcome": span.outcome,
    }
    if span.count > 1:
        attributes["messaging.batch.message_count"] = span.count
    if span.received_ns is not None and span.started_ns is not None:
        attributes["exeunt.queued_ns"] = max(0, span.started_ns - span.received_ns)
    asked = causes.span_of(span.cause) if span.kind in _ANSWERS else None
    links: list[Document] = []
    if asked is not None and asked.sent_ns is not None:
        links.append({"traceId": _trace_id(asked), "spanId": _producer_id(asked)})
    return {
        "traceId": _trace_id(span),
        "spanId": "",
        "parentSpanId": "",
        "name": name if span.count == 1 else f"{name} ×{span.count}",
        "kind": kind,
        "startTimeUnixNano": str(times_ns[0]),
        "endTimeUnixNano": str(times_ns[1]),
        "attributes": _attributes(attributes),
        "links": links,
    }


def _attributes(values: dict[str, Any]) -> list[Document]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
    ]


def _known_id(span: Span) -> str:
    handled = span.received_ns is not None or span.started_ns is not None
    return _hex(span.id) if handled else _producer_id(span) if span.sent_ns is not None else ""


def _producer_id(span: Span) -> str:
    return hashlib.blake2b(b"sent" + span.id.to_bytes(8, "big"), digest_size=8).hexdigest()


def _trace_id(span: Span) -> str:
    return f"{span.trace:032x}"


def _hex(number: int) -> str:
    return f"{number:016x}"


def _worker(address: str) -> str:
    return address.rpartition("/")[0]
